"""The Celery application: `celery -A workers.app worker`.

Celery distributes wake-ups and restarts processes; nothing of a message travels in a task. The
settings are those of `config/relay.toml` and the environment; why each Celery option is as it is
stands beside it.
"""

import logging
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning
from celery.signals import setup_logging
from kombu.entity import Queue

from relay.model.errors import ConfigError
from relay.settings.loader import load_settings
from relay.settings.schema import Settings
from relay.store.keys import broker_prefix
from relay.telemetry.log import configure_logging
from workers.engine_step import EngineStep


def make_app(settings: Settings) -> Celery:
    """The app of these settings."""
    mode = settings.delivery.mode
    if mode is None:
        raise ConfigError("delivery.mode: not set; say sink or live")
    names = ["route", *(f"egress.{pool}" for pool in settings.worker.pools)]
    queues = [Queue(name, routing_key=name) for name in names]  # type: ignore[no-untyped-call]
    app = Celery("relay", broker=broker_url(settings.redis.url), include=["workers.tasks"])
    app.conf.update(
        # Wake-ups are hints that the ticker repeats: results, retries and events would only cost.
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],  # never pickle: whoever writes to Redis could run code
        worker_send_task_events=False,
        task_send_sent_event=False,
        worker_enable_remote_control=False,  # leaves orphaned reply lists in Redis
        worker_disable_rate_limits=True,
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Tasks return in milliseconds: two threads are enough.
        worker_pool="threads",
        worker_concurrency=2,
        worker_prefetch_multiplier=1,
        task_acks_late=True,
        task_queues=queues,
        task_default_queue="route",
        task_create_missing_queues=False,
        # Through every absence of Redis.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_transport_options={
            # One BRPOP a task instead of seven commands; losing a wake-up is harmless.
            "ack_emulation": False,
            "priority_steps": [0],
            "global_keyprefix": broker_prefix(mode.value),
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_log_color=False,
    )
    app.steps["worker"].add(EngineStep)
    app.relay_settings = settings
    return app


def broker_url(url: str) -> str:
    """The data's Redis as kombu names it."""
    return "redis+socket://" + url.removeprefix("unix://") if url.startswith("unix://") else url


# Celery warns of root because pickle would run code; nothing but JSON is accepted here.
warnings.filterwarnings("ignore", category=SecurityWarning)
# It warns of a future default that is set below.
warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


@setup_logging.connect  # type: ignore[untyped-decorator]
def log_as_relay(**_: Any) -> None:
    """Celery's own lines go where ours go; "task received" says nothing about mail."""
    configure_logging(app.relay_settings, service="worker")
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


app = make_app(load_settings())
