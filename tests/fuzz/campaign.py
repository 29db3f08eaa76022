"""Runs a target over inputs: each is made from (seed, target, number), so each can be run alone.

A target is a class with a `name`; `check(source)` makes one input, feeds it, and asserts what must
hold. Whatever it raises is a crash. An input that takes longer than `HANGS_S` hangs.
"""

import contextlib
import logging
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import ClassVar

import msgspec

from tests.fuzz.source import Source

#: No honest input takes a hundredth of that.
HANGS_S = 20.0


class Target:
    """What is fuzzed; a folder of its own and the processes it needs live from open to close."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:
        """Get ready."""

    def check(self, source: Source) -> None:
        """Feed one input and assert what must hold of the outcome."""
        raise NotImplementedError

    def close(self) -> None:
        """Put away what `open` made; what only shows at the end is asserted here."""


class Found(AssertionError):
    """Raised for the input that broke something; says how to run it again."""


class Figures(msgspec.Struct, frozen=True):
    """What a run came to; `grown_octets`: resident memory since the first tenth of the inputs."""

    target: str
    seed: int
    inputs: int
    cpu_s: float
    grown_octets: int

    def __str__(self) -> str:
        each = self.cpu_s / max(self.inputs, 1) * 1e6
        return (
            f"F16  {self.target:16} {self.inputs:>9,} inputs, seed {self.seed}: no crash, no hang, "
            f"memory +{self.grown_octets / 1e6:.1f} MB, {each:.0f} µs CPU each"
        )


def run(target: Target, *, seed: int, inputs: range) -> Figures:
    """Feed the inputs with these numbers; Found names the first that breaks something."""
    logging.getLogger("relay").setLevel(logging.CRITICAL)  # what is refused is the point here
    began, settled = time.process_time(), 0
    warm = inputs.start + len(inputs) // 10
    target.open()
    try:
        for number in inputs:
            if number == warm:
                settled = resident_octets()
            _feed(target, seed, number)
        grown = resident_octets() - settled
    finally:
        target.close()
    return Figures(target.name, seed, len(inputs), time.process_time() - began, max(grown, 0))


def _feed(target: Target, seed: int, number: int) -> None:
    try:
        with not_hanging():
            target.check(Source(f"{seed}:{target.name}:{number}"))
    except Exception as error:
        again = f"python -m tests.fuzz {target.name} --seed {seed} --only {number}"
        raise Found(f"{target.name}: {type(error).__name__}: {error}; again: {again}") from error


class Hangs(Exception):
    """Raised inside an input that takes too long."""


@contextlib.contextmanager
def not_hanging() -> Iterator[None]:
    """Raise Hangs in what takes too long."""
    signal.signal(signal.SIGALRM, _hangs)
    signal.setitimer(signal.ITIMER_REAL, HANGS_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _hangs(number: int, frame: FrameType | None) -> None:
    raise Hangs(f"an input takes over {HANGS_S:.0f} s")


def resident_octets() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
