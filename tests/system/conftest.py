"""One running system a test: real Redis, real workers, real packets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.system import System, running_system


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """A system with one worker and quick retries."""
    async with running_system(tmp_path) as running:
        yield running
