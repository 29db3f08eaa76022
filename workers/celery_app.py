"""How the Celery application of some settings is made.

Celery distributes wake-ups and restarts processes; nothing of a message travels in a task. Why
each Celery option is as it is stands beside it.
"""

import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
from celery import Celery
from celery.platforms import SecurityWarning
from kombu.connection import Connection
from kombu.entity import Queue

from relay.model.errors import ConfigError
from relay.settings.schema import Settings
from relay.settings.sentinel import SentinelUrl, is_sentinel_url, parse_sentinel_url
from relay.store.keys import broker_prefix
from relay.store.wire import DEAD_NETWORK_OPTIONS
from workers.engine_step import EngineStep


class BrokerConnection(Connection):
    """Wake-ups are hints: what kombu does to keep messages safe would only cost."""

    def channel(self) -> Any:
        """A channel that does not put back, or dump to a file, what was not acknowledged.

        Who drains a full store must not need room in it: bindings are for those who publish by
        Celery, and the length of a queue is asked for nobody.
        """
        channel = super().channel()  # type: ignore[no-untyped-call]
        channel.do_restore = False
        for name in ("_queue_bind", "_size"):
            setattr(channel, name, _as_far_as_there_is_room(channel, getattr(channel, name)))
        return channel

    def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        """As kombu's, with pauses of seconds: they would grow to half a minute."""
        pauses = {"interval_start": 1, "interval_step": 1, "interval_max": 2}
        return super().ensure_connection(  # type: ignore[no-untyped-call]
            *arguments, **(pauses | options)
        )


def _as_far_as_there_is_room(channel: Any, ask: Callable[..., Any]) -> Callable[..., Any]:
    def carefully(*arguments: Any) -> Any:
        try:
            return ask(*arguments)
        except channel.ResponseError as error:
            if "maxmemory" not in str(error):
                raise
            return 0

    return carefully


def make_app(settings: Settings) -> Celery:
    """The app of these settings."""
    mode = settings.delivery.mode
    if mode is None:
        raise ConfigError("delivery.mode: not set; say sink or live")
    names = ["route", *(f"egress.{pool}" for pool in settings.worker.pools)]
    queues = [Queue(name, routing_key=name) for name in names]  # type: ignore[no-untyped-call]
    broker = broker_of(settings.redis.url)
    app = Celery("relay", broker=broker.url, include=["workers.tasks"])
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
            "socket_keepalive_options": DEAD_NETWORK_OPTIONS,
            "health_check_interval": 25,
            **broker.options,
        },
        broker_use_ssl=broker.tls,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_log_color=False,
    )
    app.amqp.Connection = BrokerConnection
    app.steps["worker"].add(EngineStep)
    app.relay_settings = settings
    return app


class Broker(msgspec.Struct, frozen=True):
    """The data's Redis as kombu names it; `tls` is None where it is not spoken."""

    url: str
    options: dict[str, Any] = {}
    tls: dict[str, Any] | None = None


def broker_of(url: str) -> Broker:
    """The broker of `redis.url`."""
    if url.startswith("unix://"):
        return Broker("redis+socket://" + url.removeprefix("unix://"))
    return _broker_of_sentinels(parse_sentinel_url(url)) if is_sentinel_url(url) else Broker(url)


def _broker_of_sentinels(url: SentinelUrl) -> Broker:
    login = quote(url.login.user, safe="") + ":" + quote(url.login.password, safe="")
    at = f"{login}@" if url.login.password else ""
    urls = [
        f"sentinel://{at}{f'[{host}]' if ':' in host else host}:{port}/{url.db}"
        for host, port in url.sentinels
    ]
    # A sentinel that is silent is passed over.
    asking: dict[str, Any] = {"socket_timeout": 1, "socket_connect_timeout": 1}
    if url.sentinel_login.user:
        asking["username"] = url.sentinel_login.user
    if url.sentinel_login.password:
        asking["password"] = url.sentinel_login.password
    tls: dict[str, Any] | None = None
    if url.is_tls:
        tls = {"ssl_cert_reqs": "required"} | ({"ssl_ca_certs": url.ca_file} if url.ca_file else {})
        asking |= {"ssl": True, **tls}
    options = {"master_name": url.master, "sentinel_kwargs": asking}
    return Broker(";".join(urls), options, tls)


# Celery warns of root because pickle would run code; nothing but JSON is accepted here.
warnings.filterwarnings("ignore", category=SecurityWarning)
