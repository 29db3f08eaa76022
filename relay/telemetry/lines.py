"""Lines of a log on their way out: gathered for a moment, written in blocks of whole lines.

A write a line would cost a busy worker a seventh of its time. What was gathered within the last
`GATHER_S` is lost when the process is killed; warnings and errors never wait.
"""

import atexit
import contextlib
import os
import threading
import weakref
from typing import Protocol

#: Longest time that a line waits.
GATHER_S = 0.05
#: What a pipe takes in one piece (PIPE_BUF): several processes may write to one.
BLOCK_OCTETS = 4096


class LineStream(Protocol):
    """Where lines are written: a binary file, or what passes for one."""

    def write(self, line: bytes, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...


class Lines:
    """Writes lines to a stream, at once or gathered; used from any thread, never raises."""

    def __init__(self, stream: LineStream, *, gathers: bool) -> None:
        self._stream = stream
        self._gathers = gathers
        self._lock = threading.Lock()
        self._block: list[bytes] = []
        self._octets = 0
        self._due = threading.Event()
        self._flusher: threading.Thread | None = None
        if gathers:
            _gathering.add(self)

    def add(self, line: bytes, *, at_once: bool) -> None:
        """Take one line with its line end."""
        if not self._gathers:
            self._write(line)
            return
        with self._lock:
            if self._octets + len(line) > BLOCK_OCTETS:
                self._flush()
            self._block.append(line)
            self._octets += len(line)
            if at_once:
                self._flush()
            elif not self._due.is_set():
                self._due.set()
                self._start_flusher()

    def flush(self) -> None:
        """Write what was gathered."""
        with self._lock:
            self._flush()

    def forget(self) -> None:
        """In a forked child: what the parent gathered is the parent's, and so is its thread."""
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._flusher = None
        self._block, self._octets = [], 0

    def _flush(self) -> None:
        block, self._block, self._octets = self._block, [], 0
        if block:
            self._write(b"".join(block))

    def _write(self, block: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads: no reason to fail mail
            self._stream.write(block)
            self._stream.flush()

    def _start_flusher(self) -> None:
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._run, name="log", daemon=True)
            self._flusher.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._due.wait()
            pause.wait(GATHER_S)
            with self._lock:
                self._due.clear()
                self._flush()


_gathering: weakref.WeakSet[Lines] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    for lines in _gathering:
        lines.flush()


def _forget_all() -> None:
    for lines in _gathering:
        lines.forget()


os.register_at_fork(after_in_child=_forget_all)
