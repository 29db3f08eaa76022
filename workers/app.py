"""The Celery application: `celery -A workers.app worker`.

Its settings are those of the configuration file and the environment.
"""

import logging
import warnings
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.signals import celeryd_after_setup, setup_logging

from relay.settings.loader import load_settings
from relay.telemetry.lines import OWN_BLOCK
from relay.telemetry.log import configure_logging
from workers.celery_app import make_app

app = make_app(load_settings())


@setup_logging.connect  # type: ignore[untyped-decorator]
def log_as_relay(**_: Any) -> None:
    """Celery's own lines go where ours go; "task received" says nothing about mail."""
    configure_logging(app.relay_settings, service="worker", block=OWN_BLOCK)
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A wake-up that comes while a worker stops goes back to its queue: no news to anybody.
    logging.getLogger("kombu.transport.virtual.base").setLevel(logging.ERROR)


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def silence(**_: Any) -> None:
    """At each lost connection Celery would warn of a future default that we set ourselves."""
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
