"""Starts programs, restarts them with backoff, stops them in order, and leaves no orphan.

Rules of this file:
 1. Every program leads a process group of its own, so a Ctrl-C on the terminal reaches only us.
 2. The kernel kills a program when we die (PR_SET_PDEATHSIG); the keeper (`keeper.py`) kills its
    whole group, for what the program itself started.
 3. When a program ends, whatever is left of its group is killed before it starts again.
 4. Only the main thread starts programs: PR_SET_PDEATHSIG follows the thread, not the process.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from relay.telemetry.log import get_logger

_PR_SET_PDEATHSIG = 1
#: Loaded before any fork: between fork and exec nothing may be imported.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_FIRST_PAUSE_S = 0.5
#: A program that ran this long has recovered: its next restart is at once again.
_RECOVERED_S = 60.0
_LONGEST_LINE = 65536
_log = get_logger()


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. Stages stop from the highest to the lowest, each within its `stop_s`.

    What fails again and again is started after pauses that grow up to `longest_pause_s`.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    stage: int
    stop_s: float
    longest_pause_s: float = 30.0
    inherited: tuple[int, ...] = ()


class Supervisor:
    """Runs programs until it is told to stop or one of them reports a fault of configuration."""

    def __init__(self, write_lines: Callable[[str, bytes], None]) -> None:
        """`write_lines(name, lines)` takes what a program prints, without the last line end."""
        self.exit_code = 0
        self.reason = ""  # why it ends, where nobody asked for it
        self._write_lines = write_lines
        self._runs: list[_Run] = []
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._keeper = _start_keeper()

    def start(self, program: Program) -> None:
        """Start a program and keep it running."""
        run = _Run(program, self)
        self._runs.append(run)
        run.task = asyncio.get_running_loop().create_task(run.keep_running(), name=program.name)

    def give_up(self, exit_code: int, reason: str) -> None:
        """Ask for the end because of a fault that no restart cures."""
        if not self._ending.is_set():
            self.reason = reason
            self.end(exit_code)

    def last_line(self, name: str) -> str:
        """What a program printed last."""
        return next((run.last_line for run in self._runs if run.program.name == name), "")

    def end(self, exit_code: int = 0) -> None:
        """Ask for the end; asked a second time, nothing is waited for."""
        if self._ending.is_set():
            self._hurry.set()
            return
        self.exit_code = exit_code
        self._ending.set()

    @property
    def is_ending(self) -> bool:
        return self._ending.is_set()

    async def wait(self) -> None:
        """Until the end is asked for."""
        await self._ending.wait()

    async def stop(self) -> None:
        """Stop every program, the highest stage first; always within the sum of the bounds."""
        self._ending.set()
        for stage in sorted({run.program.stage for run in self._runs}, reverse=True):
            runs = [run for run in self._runs if run.program.stage == stage]
            await asyncio.gather(*(run.stop(self._hurry) for run in runs))
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        self._keeper.wait()

    def run_until_signalled(self) -> None:
        """Have SIGTERM, SIGINT and SIGHUP ask for the end."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self.end)

    def write_lines(self, name: str, lines: bytes) -> None:
        self._write_lines(name, lines)

    def tell_keeper(self, sign: str, group: int) -> None:
        """A group lives (`+`) or is gone (`-`); a keeper that was killed is replaced."""
        if self._keeper.poll() is not None:
            self._keeper = _start_keeper()
            for run in self._runs:
                if run.group:
                    self._tell(f"+{run.group}\n")
        self._tell(f"{sign}{group}\n")

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            assert self._keeper.stdin is not None
            self._keeper.stdin.write(line.encode())
            self._keeper.stdin.flush()


class _Run:
    """One program: its process now, its task, its pauses."""

    def __init__(self, program: Program, supervisor: Supervisor) -> None:
        self.program = program
        self.group = 0
        self.task: asyncio.Task[None] | None = None
        self._supervisor = supervisor
        self._process: asyncio.subprocess.Process | None = None
        self._unwanted = asyncio.Event()
        self._said = b""

    @property
    def last_line(self) -> str:
        """The last line that it printed and that said anything."""
        last = self._said.rstrip().rpartition(b"\n")[2]
        return last.decode("utf-8", "backslashreplace").strip()

    async def keep_running(self) -> None:
        """Start, wait for the end, pause, start again, until it is unwanted."""
        pause_s = _FIRST_PAUSE_S
        while not self._unwanted.is_set():
            began = time.monotonic()
            code = await self._run_once()
            if self._unwanted.is_set():
                return
            ran_s = time.monotonic() - began
            if code == os.EX_CONFIG:
                _log.error("program.refused", program=self.program.name, exit_code=code)
                said = self.last_line.removeprefix("relay: ") or "its configuration is refused"
                self._supervisor.give_up(os.EX_CONFIG, f"{self.program.name}: {said}")
                return
            pause_s = _FIRST_PAUSE_S if ran_s > _RECOVERED_S else pause_s
            _log.warning(
                "program.ended",
                program=self.program.name,
                how=_how(code),
                ran_s=round(ran_s, 1),
                restart_in_s=pause_s,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._unwanted.wait(), pause_s)
            pause_s = min(pause_s * 2, self.program.longest_pause_s)

    async def _run_once(self) -> int:
        # A pipe of our own: with asyncio's, wait() lasts until the last process that inherited it
        # is gone, not only the program itself.
        ours, theirs = os.pipe()
        try:
            process = await self._start_process(theirs)
        except OSError as error:
            os.close(ours)
            _log.error("program.not_started", program=self.program.name, error=str(error))
            return os.EX_OSERR
        finally:
            os.close(theirs)
        self.group, self._process = process.pid, process
        self._supervisor.tell_keeper("+", self.group)
        if self._unwanted.is_set():  # stopped while it was being started
            self._signal(signal.SIGTERM)
        reading = asyncio.create_task(self._read_lines(ours))
        code = await process.wait()
        self._kill_group()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reading, 2)
        self._supervisor.tell_keeper("-", self.group)
        self.group, self._process = 0, None
        return code

    async def _start_process(self, output: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.program.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=self.program.environment,
            pass_fds=self.program.inherited,
            process_group=0,
            preexec_fn=_die_with(os.getpid()),
        )

    async def _read_lines(self, pipe: int) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
        )
        rest = b""
        try:
            while chunk := await reader.read(_LONGEST_LINE):
                lines, end, rest = (rest + chunk).rpartition(b"\n")
                if end:
                    self._take(lines)
                if len(rest) > _LONGEST_LINE:
                    self._take(rest)
                    rest = b""
        finally:
            transport.close()
        if rest:
            self._take(rest)

    def _take(self, lines: bytes) -> None:
        if lines and not lines.isspace():
            self._said = lines
        self._supervisor.write_lines(self.program.name, lines)

    async def stop(self, hurry: asyncio.Event) -> None:
        """SIGTERM, wait within the bound, SIGKILL."""
        self._unwanted.set()
        if self.task is None:
            return
        self._signal(signal.SIGTERM)
        hurried = asyncio.create_task(hurry.wait())
        bound_s = self.program.stop_s
        await asyncio.wait(
            {self.task, hurried}, timeout=bound_s, return_when=asyncio.FIRST_COMPLETED
        )
        hurried.cancel()
        if not self.task.done():
            if not hurry.is_set():
                _log.warning("program.killed", program=self.program.name, after_s=bound_s)
            self._kill_group()
        await self.task

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _kill_group(self) -> None:
        if self.group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, signal.SIGKILL)


def _die_with(parent: int) -> Callable[[], None]:
    """What a program does between fork and exec: ask the kernel to be killed when we die."""

    def prepare() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:  # we died before the kernel knew
                os._exit(os.EX_OSERR)

    return prepare


def _start_keeper() -> "subprocess.Popen[bytes]":
    path = Path(__file__).with_name("keeper.py")
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


async def run_programs(
    programs: Iterable[Program], write_lines: Callable[[str, bytes], Any]
) -> int:
    """Run programs under a supervisor of their own until a signal; answers the exit code."""
    supervisor = Supervisor(write_lines)
    supervisor.run_until_signalled()
    for program in programs:
        supervisor.start(program)
    await supervisor.wait()
    await supervisor.stop()
    return supervisor.exit_code
