"""The receiver of benchmarks that want nothing of it but to receive: Postfix's smtp-sink."""

import contextlib
import fcntl
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bench.postfix import libraries, unpack
from bench.processes import cpu_seconds, wait_for_listener

_SESSIONS = 4000
_BACKLOG = 1024
_COUNTER = re.compile(rb"mesg=(\d+)")


class PlainReceiver:
    """One smtp-sink: ESMTP with PIPELINING, answers at once, keeps nothing but a count."""

    def __init__(self, cache: Path, port: int, *, address: str = "127.0.0.2") -> None:
        self.address = address
        self.port = port
        self.messages = 0
        self._root = unpack(cache)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it listens."""
        self._process = subprocess.Popen(
            [
                str(self._root / "usr/sbin/smtp-sink"),
                *("-u", "mail", "-c", "-m", str(_SESSIONS)),
                f"inet:{self.address}:{self.port}",
                str(_BACKLOG),
            ],
            env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": libraries(self._root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, 1 << 20)
        threading.Thread(target=self._count, args=[self._process.stdout], daemon=True).start()
        process = self._process
        wait_for_listener(self.address, self.port, lambda: process.poll() is None)

    def _count(self, output: IO[bytes]) -> None:
        """It prints its counters anew with every message."""
        rest = b""
        with contextlib.suppress(OSError):
            while data := os.read(output.fileno(), 1 << 20):
                lines, separator, rest = (rest + data).rpartition(b"\r")
                if separator and (found := _COUNTER.findall(lines)):
                    self.messages = int(found[-1])
                time.sleep(0.005)

    def received(self) -> int:
        """Messages accepted so far."""
        return self.messages

    def cpu_seconds(self) -> float:
        """CPU time so far."""
        assert self._process is not None
        return cpu_seconds(self._process.pid)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def wait_until(received: Callable[[], int], count: int, *, limit_s: float) -> None:
    """Until so many messages have been received; RuntimeError says how many were."""
    deadline = time.monotonic() + limit_s
    while (got := received()) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {got} of {count} messages arrived in {limit_s:g} s")
        time.sleep(0.01)
