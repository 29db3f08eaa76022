"""The standing fault suite in its short form; each scenario's module has the long one."""

from pathlib import Path

import pytest

from tests.chaos import f10_slow_drip


async def test_dripping_servers_take_no_place_from_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = await f10_slow_drip.run(tmp_path, f10_slow_drip.SHORT)
    with capsys.disabled():
        print(f"\n{figures}")
