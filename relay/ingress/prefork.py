"""Several processes on one port: the parent forks, watches and stops; the kernel spreads clients.

Nothing of asyncio may run in the parent before the fork.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence

from relay.model.errors import ConfigError, ScriptMismatch
from relay.settings.kinds import parse_listen

_PR_SET_PDEATHSIG = 1
#: A process that ends sooner than this after its start is started again with a pause.
_SHORT_LIFE_S = 5.0
_PAUSE_S = 1.0


def run_processes(
    count: int, work: Callable[[], None], *, ports: Sequence[tuple[str, str]]
) -> None:
    """Run `work` in `count` processes until SIGTERM or SIGINT; one that dies is replaced.

    `ports`: settings with the addresses that the work will listen on.
    """
    for setting, text in ports:
        _refuse_taken_port(text, setting)
    with _Bell() as bell:
        _watch(count, _refusing_once(work), bell)


def _refusing_once(work: Callable[[], None]) -> Callable[[], None]:
    """The work; its refusal is said by the first process that meets it, and by no other."""
    turn, put = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(put, b".")

    def refuse_once() -> None:
        try:
            work()
        except (ConfigError, ScriptMismatch) as error:
            with contextlib.suppress(BlockingIOError):
                os.read(turn, 1)
                os.write(2, f"relay: {error}\n".encode())
            os._exit(os.EX_CONFIG)

    return refuse_once


def _watch(count: int, work: Callable[[], None], bell: "_Bell") -> None:
    children: dict[int, float] = {}
    failure = 0
    not_before = 0.0
    while True:
        while len(children) < count and not bell.is_stopping and time.monotonic() >= not_before:
            children[_fork(work)] = time.monotonic()
        if bell.is_stopping:
            for pid in children:
                os.kill(pid, signal.SIGTERM)
        if bell.is_stopping and not children:
            raise SystemExit(failure)
        bell.wait(_PAUSE_S)
        for pid, code in _reaped(children):
            if code == os.EX_CONFIG and not bell.is_stopping:
                bell.is_stopping, failure = True, code
            elif time.monotonic() - children[pid] < _SHORT_LIFE_S:
                not_before = time.monotonic() + _PAUSE_S
            del children[pid]


def _reaped(children: dict[int, float]) -> list[tuple[int, int]]:
    """Those of our children that ended, with their exit codes."""
    ended = []
    for pid in children:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


class _Bell:
    """Wakes the parent when a child ends or it is told to stop; no signal is missed."""

    def __init__(self) -> None:
        self.is_stopping = False
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> "_Bell":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)

    def _stop(self, number: int, frame: object) -> None:
        self.is_stopping = True

    def wait(self, timeout_s: float) -> None:
        """Wait for a signal, or for the time to pass."""
        if select.select([self._read], [], [], timeout_s)[0]:
            os.read(self._read, 4096)


def _fork(work: Callable[[], None]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = os.EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _end_with(parent)
        work()
        code = 0
    finally:
        os._exit(code)


def _end_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent dies, however it dies (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(0)


def _refuse_taken_port(text: str, setting: str) -> None:
    """With SO_REUSEPORT the kernel would let us share a port with a stranger of our own user."""
    where = parse_listen(text)
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((where.host, where.port))
        except OSError as error:
            raise ConfigError(f"{setting}: cannot listen on {text}: {error.strerror}") from None
