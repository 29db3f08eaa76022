"""Several processes on one port: the parent forks, watches and stops; the kernel spreads clients.

Nothing of asyncio may run in the parent before the fork.
"""

import contextlib
import ctypes
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence

from relay.model.errors import ConfigError
from relay.settings.kinds import parse_listen

_PR_SET_PDEATHSIG = 1
#: A process that ends sooner than this after its start is started again with a pause.
_SHORT_LIFE_S = 5.0
_PAUSE_S = 1.0


def run_processes(
    count: int, work: Callable[[], None], *, ports: Sequence[str], setting: str
) -> None:
    """Run `work` in `count` processes until SIGTERM or SIGINT; one that dies is replaced."""
    for text in ports:
        _refuse_taken_port(text, setting)
    children: dict[int, float] = {}
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while True:
        while len(children) < count and not stopping:
            children[_fork(work)] = time.monotonic()
        if not children:
            return
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return
        started = children.pop(pid, 0.0)
        code = os.waitstatus_to_exitcode(status)
        if code == os.EX_CONFIG and not stopping:
            stop(0, None)
            raise SystemExit(os.EX_CONFIG)
        if not stopping and time.monotonic() - started < _SHORT_LIFE_S:
            time.sleep(_PAUSE_S)


def _fork(work: Callable[[], None]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = os.EX_SOFTWARE
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _end_with(parent)
        work()
        code = 0
    except ConfigError as error:
        os.write(2, f"relay: {error}\n".encode())
        code = os.EX_CONFIG
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
