"""Targets in processes of their own, whose memory the kernel limits."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fuzz.campaign import run
from tests.fuzz.targets import TARGETS
from tests.support.processes import die_with_parent

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
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        preexec_fn=die_with_parent,  # noqa: PLW1509
    )


def fuzz_here(name: str, seed: int, inputs: range) -> None:
    """One target in this process."""
    if len(inputs) > 1:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_OCTETS, MEMORY_OCTETS))
    with tempfile.TemporaryDirectory() as folder:
        figures = run(TARGETS[name](Path(folder)), seed=seed, inputs=inputs)
    print(figures)
    assert figures.grown_octets < GROWTH_OCTETS, f"{name}: memory grows: {figures.grown_octets:,}"
