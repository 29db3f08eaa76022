"""The long form: `python -m tests.fuzz [target …] --inputs 1000000 --seed 7`.

Each target runs in a process of its own whose memory the kernel limits; without --seed a random one
is taken. The seed is printed; `--only N` runs one input again.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fuzz.campaign import run
from tests.fuzz.targets import TARGETS

#: Address space of a target's process: many times what it needs, far less than a leak would take.
MEMORY_OCTETS = 1 << 30
#: Resident memory that a process may gain after a tenth of the inputs: bounded caches fill up.
GROWTH_OCTETS = 64 << 20


def fuzz_all(names: Sequence[str], *, inputs: int, seed: int) -> Iterator[str]:
    """Run the targets side by side, as many as there are cores; a line of figures for each.

    AssertionError carries the output of the first that found something.
    """
    waiting, running = list(names), list[subprocess.Popen[str]]()
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                running.append(_start(waiting.pop(0), inputs, seed))
            process = running.pop(0)
            output, _ = process.communicate()
            assert process.returncode == 0, output
            yield output.strip()
    finally:
        for process in running:
            process.kill()
            process.communicate()


def _start(name: str, inputs: int, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.fuzz", name, "--inline"]
    command += ["--inputs", str(inputs), "--seed", str(seed)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )


def _inline(name: str, seed: int, inputs: range) -> None:
    """One target in this process."""
    if len(inputs) > 1:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_OCTETS, MEMORY_OCTETS))
    with tempfile.TemporaryDirectory() as folder:
        figures = run(TARGETS[name](Path(folder)), seed=seed, inputs=inputs)
    print(figures)
    assert figures.grown_octets < GROWTH_OCTETS, f"{name}: memory grows: {figures.grown_octets:,}"


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="target")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--only", type=int, help="run the input with this number alone")
    parser.add_argument("--inline", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    if given.only is not None or given.inline:
        numbers = range(given.inputs)
        if given.only is not None:
            numbers = range(given.only, given.only + 1)
        _inline(names[0], given.seed, numbers)
        return
    print(f"fuzzing {', '.join(names)}: {given.inputs:,} inputs each, seed {given.seed}")
    try:
        for line in fuzz_all(names, inputs=given.inputs, seed=given.seed):
            print(line, flush=True)
    except AssertionError as error:
        raise SystemExit(f"found:\n{error}") from None


main()
