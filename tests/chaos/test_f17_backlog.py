"""What is queued costs memory and nothing else: tick, pages and mail go on as in an empty store."""

from pathlib import Path

import pytest

from tests.chaos.f17_backlog import assert_flat, backlogs, table


async def test_tick_and_pages_cost_the_same_however_much_is_queued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = await backlogs(tmp_path, 3_000, 15_000, domains=20_000)
    with capsys.disabled():
        print(f"\n{table(small, large)}")
    assert_flat(small, large)
