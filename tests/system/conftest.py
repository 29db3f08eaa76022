"""One running system a test: real Redis, real workers, real packets."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.system import System, running_system

Start = Callable[..., Awaitable[System]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a system with settings of the test's own; its logs must be free of complaints."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_one(*, workers: int = 1, **extra: str) -> System:
            system = await stack.enter_async_context(
                running_system(tmp_path, workers=workers, **extra)
            )
            started.append(system)
            return system

        started: list[System] = []
        yield start_one
    for system in started:
        assert not system.complaints()


@pytest.fixture
async def system(start: Start) -> System:
    """A system with one worker and quick retries."""
    return await start()
