"""What every test may use: one real Redis for the run, a clean store for a test."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from relay.store.queue import Store
from relay.telemetry import log as log_module
from tests.support.redis_server import RedisServer

# RELAY_TEST_PROFILE=thorough: what a night is for.
settings.register_profile("quick", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=2000)
settings.load_profile(os.environ.get("RELAY_TEST_PROFILE", "quick"))


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Each test begins without a configured log, and whatever it configures ends with it."""
    root = logging.getLogger()
    handlers, level, output = root.handlers[:], root.level, log_module._output
    log_module._output = log_module._Output()
    yield
    log_module._output = output
    root.handlers[:], root.level = handlers, level
    logging.getLogger("relay").setLevel(logging.NOTSET)
    structlog.reset_defaults()
    logging.captureWarnings(False)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[object], None]:
    """What a test calls with its figures; they are printed at the end of the run."""
    return lambda figures: record_property("figures", str(figures))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests had to tell."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "figures":
                terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests that neither kill nor fill it."""
    server = RedisServer(tmp_path_factory.mktemp("session"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[Store]:
    """A connected, empty store in sink mode."""
    with redis_server.client() as client:
        client.flushall()
    store = await Store.connect(redis_server.url, "sink", client_name="test")
    yield store
    await store.close()
