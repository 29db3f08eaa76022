"""Some thousand hostile inputs for each reader of foreign octets; see the package for the rest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.campaign import Found, Target, run
from tests.fuzz.source import Source
from tests.fuzz.targets import TARGETS

SEED = 1
#: As many as fit into about half a second.
INPUTS = {
    "reply-reader": 7_500,
    "client-machine": 3_500,
    "content-encoder": 7_500,
    "content-converter": 1_500,
    "data-reader": 15_000,
    "smtp-door": 1_500,
    "http-body": 1_500,
    "dns-reader": 4_000,
    "settings-loader": 2_000,
    "incoming-report": 1_000,
}


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_neither_crashes_nor_hangs_a_reader(
    name: str, tmp_path: Path, tell: Callable[[object], None]
) -> None:
    tell(run(TARGETS[name](tmp_path), seed=SEED, inputs=range(INPUTS[name])))


class Fragile(Target):
    """Breaks at one input in ten."""

    name = "fragile"

    def check(self, source: Source) -> None:
        assert source.below(10) != 7, "seven"


def test_what_is_found_can_be_run_again_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(Found, match=r"(?s)seven.*; again: .* --seed 5 --only") as found:
        run(Fragile(tmp_path), seed=5, inputs=range(1000))
    number = int(str(found.value).rpartition(" ")[2])
    run(Fragile(tmp_path), seed=5, inputs=range(number))
    with pytest.raises(Found, match="seven"):
        run(Fragile(tmp_path), seed=5, inputs=range(number, number + 1))
