"""Modules with `RUNS_ON_BOTH_LOOPS = True` run each async test on asyncio's loop and on uvloop."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]]
    factories = {"asyncio": asyncio.new_event_loop}
    module = item.getparent(pytest.Module)
    if module is not None and getattr(module.obj, "RUNS_ON_BOTH_LOOPS", False):
        factories["uvloop"] = uvloop.new_event_loop
    return factories
