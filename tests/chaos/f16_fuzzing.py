"""F16: hostile input for every reader of foreign octets; inputs and targets are in `tests.fuzz`."""

import os
from pathlib import Path

import msgspec

from tests.fuzz.processes import fuzz_all
from tests.fuzz.targets import TARGETS


class Size(msgspec.Struct, frozen=True):
    """Inputs for each target; seed None: a random one, told with the figures."""

    inputs: int
    seed: int | None = None


SHORT = Size(inputs=2_000, seed=1)
LONG = Size(inputs=1_000_000)


async def run(folder: Path, size: Size) -> str:
    """All targets, as many at a time as there are cores; a line of figures for each."""
    seed = size.seed if size.seed is not None else int.from_bytes(os.urandom(4), "big")
    return "\n".join(fuzz_all(list(TARGETS), inputs=size.inputs, seed=seed))
