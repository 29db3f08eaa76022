"""The supervisor with programs that misbehave: restarts, order, bounds, nothing left."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.cli.supervisor import Program, Supervisor
from tests.support.household import ROOT, marked, wait_until

#: Ignores every polite signal, as does the child that it starts in a group of its own making.
STUBBORN = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.fork()
print("started", flush=True)
time.sleep(600)
"""
#: Leaves a child behind and ends.
LEAVES_A_CHILD = "import os, time\nif os.fork() == 0: time.sleep(600)\n"
POLITE = "import time\nprint('started', flush=True)\ntime.sleep(600)\n"


class Lines:
    """What the programs printed, as (name, line)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def write(self, name: str, lines: bytes) -> None:
        self.seen += [(name, line) for line in lines.decode().splitlines()]


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    text = f"SUPERVISED_{os.getpid()}_{time.monotonic_ns()}"
    yield text
    for number in marked(text, tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def program(
    mark: str, source: str, *, name: str = "a", stage: int = 0, stop_s: float = 5
) -> Program:
    return Program(
        name=name,
        command=[sys.executable, "-c", source],
        environment={"PATH": os.environ["PATH"], mark: "1"},
        stage=stage,
        stop_s=stop_s,
    )


async def until(claim: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not claim():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)


async def test_supervisor_restarts_a_program_with_growing_pauses(mark: str) -> None:
    lines = Lines()
    supervisor = Supervisor(lines.write)
    supervisor.start(program(mark, "import time; print(time.time(), flush=True)"))
    await until(lambda: len(lines.seen) >= 3, "three runs")
    await supervisor.stop()
    first, second, third = (float(line) for _, line in lines.seen[:3])
    assert third - second > second - first > 0.4


async def test_supervisor_kills_what_a_program_left(mark: str, tmp_path: Path) -> None:
    supervisor = Supervisor(Lines().write)
    supervisor.start(program(mark, LEAVES_A_CHILD + "else: time.sleep(0.3)"))
    await asyncio.sleep(0.2)
    await until(lambda: not marked(mark, tmp_path), "the child is gone with its parent")
    await supervisor.stop()


async def test_supervisor_stops_within_its_bounds(mark: str, tmp_path: Path) -> None:
    lines = Lines()
    supervisor = Supervisor(lines.write)
    supervisor.start(program(mark, STUBBORN, stop_s=0.5))
    await until(lambda: len(lines.seen) == 2, "both are there")
    began = time.monotonic()
    await supervisor.stop()
    assert 0.4 < time.monotonic() - began < 5
    assert not marked(mark, tmp_path)


async def test_supervisor_asked_twice_waits_for_nothing(mark: str, tmp_path: Path) -> None:
    lines = Lines()
    supervisor = Supervisor(lines.write)
    supervisor.start(program(mark, STUBBORN, stop_s=600))
    await until(lambda: len(lines.seen) == 2, "both are there")
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.1)
    supervisor.end()
    await asyncio.wait_for(stopping, 5)
    assert not marked(mark, tmp_path)


async def test_supervisor_stops_the_highest_stage_first(mark: str) -> None:
    says = (
        "import os, signal, sys, time\n"  # print is not reentrant: a handler may not use it
        "def end(*_): os.write(1, b'ended\\n'); time.sleep(0.2); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\nos.write(1, b'started\\n')\ntime.sleep(600)\n"
    )
    lines = Lines()
    supervisor = Supervisor(lines.write)
    for name, stage in (("redis", 0), ("worker", 1), ("door", 2)):
        supervisor.start(program(mark, says, name=name, stage=stage))
    await until(lambda: len(lines.seen) == 3, "all three are there")
    await supervisor.stop()
    ended = [name for name, line in lines.seen if line == "ended"]
    assert ended == ["door", "worker", "redis"]


async def test_supervisor_ends_when_a_program_refuses_its_configuration(mark: str) -> None:
    supervisor = Supervisor(Lines().write)
    supervisor.start(program(mark, POLITE, name="other"))
    supervisor.start(program(mark, f"raise SystemExit({os.EX_CONFIG})"))
    await asyncio.wait_for(supervisor.wait(), 20)
    await supervisor.stop()
    assert supervisor.exit_code == os.EX_CONFIG


async def test_supervisor_goes_on_where_a_program_cannot_be_started(mark: str) -> None:
    supervisor = Supervisor(Lines().write)
    missing = Program(name="x", command=["/none"], environment={}, stage=0, stop_s=1)
    supervisor.start(missing)
    await asyncio.sleep(0.1)
    assert not supervisor.is_ending
    await supervisor.stop()


async def test_supervisor_passes_lines_of_any_length(mark: str) -> None:
    lines = Lines()
    supervisor = Supervisor(lines.write)
    source = "import time; print('x' * 200_000, flush=True); print('end', end='', flush=True)"
    supervisor.start(program(mark, source))
    await until(lambda: ("a", "end") in lines.seen, "the end")
    await supervisor.stop()
    text = "".join(line for _, line in lines.seen)
    assert text.startswith("x" * 200_000 + "end")


async def test_supervisor_replaces_a_keeper_that_was_killed(mark: str, tmp_path: Path) -> None:
    supervisor = Supervisor(Lines().write)
    supervisor.start(program(mark, POLITE))
    await until(lambda: bool(marked(mark, tmp_path)), "the program")
    old = supervisor._keeper
    old.kill()
    old.wait()
    assert old.stdin is not None
    supervisor.start(program(mark, POLITE, name="b"))
    await until(lambda: supervisor._keeper is not old, "another keeper")
    await supervisor.stop()
    old.stdin.close()


#: A supervisor as a process of its own, to be killed.
SUPERVISING = """
import asyncio, sys
from relay.cli.supervisor import Program, run_programs
from tests.system.test_supervisor import STUBBORN, program
async def main():
    await run_programs([program(sys.argv[1], STUBBORN, stop_s=600)], lambda *_: None)
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_supervisor_killed_leaves_no_grandchild(
    mark: str, tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen([sys.executable, "-c", SUPERVISING, mark], cwd=ROOT) as supervisor:
        wait_until(lambda: len(marked(mark, tmp_path)) == 2, "the program and its child")
        supervisor.send_signal(number)
    wait_until(lambda: not marked(mark, tmp_path), "nobody is left", within_s=5)
