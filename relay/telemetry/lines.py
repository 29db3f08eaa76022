"""Lines of a log on their way out: gathered for a moment, written in blocks of whole lines.

A write a line would cost a busy worker a seventh of its time. What was gathered within the last
`GATHER_S` is lost when the process is killed; warnings and errors never wait.
"""

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Protocol

#: Longest time that a line waits.
GATHER_S = 0.05
#: Octets of a block: what a pipe takes in one piece (PIPE_BUF), so that several processes may write
#: to one; and where a process has its pipe to itself.
SHARED_BLOCK, OWN_BLOCK = 4096, 65536


class LineStream(Protocol):
    """Where lines are written: a binary file, or what passes for one."""

    def write(self, line: bytes, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...


class Lines:
    """Writes lines to a stream, at once or gathered in blocks; used from any thread, never raises.

    `block`: octets of one write, 0: a line.
    """

    def __init__(self, stream: LineStream, *, block: int = 0) -> None:
        self._stream = stream
        self._block = block
        self.forget()
        if block:
            _gathering.add(self)

    def forget(self) -> None:
        """Begin anew in a forked child: what the parent gathered is the parent's."""
        self._gathering = threading.Lock()
        self._writing = threading.Lock()
        self._lines: list[bytes] = []
        self._octets = 0
        self._due = threading.Event()
        self._flusher: threading.Thread | None = None

    def add(self, line: bytes, *, at_once: bool) -> None:
        """Take one line with its line end."""
        if not self._block:
            self._write(line)
            return
        with self._gathering:
            self._lines.append(line)
            self._octets += len(line)
            is_first = not self._due.is_set()
            if is_first:
                self._due.set()
        if at_once or self._octets > self._block:
            self.flush()
        elif is_first and self._flusher is None:
            self._flusher = threading.Thread(target=self._run, name="log", daemon=True)
            self._flusher.start()

    def flush(self) -> None:
        """Write what was gathered."""
        with self._writing:
            with self._gathering:
                lines, self._lines, self._octets = self._lines, [], 0
                self._due.clear()
            for block in _blocks(lines, self._block):
                self._write(block)

    def _write(self, block: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads: no reason to fail mail
            self._stream.write(block)
            self._stream.flush()

    def _run(self) -> None:
        while True:
            self._due.wait()
            time.sleep(GATHER_S)
            self.flush()


def _blocks(lines: list[bytes], most: int) -> Iterator[bytes]:
    """Whole lines together, up to so many octets; a longer line by itself."""
    start, octets = 0, 0
    for position, line in enumerate(lines):
        if octets and octets + len(line) > most:
            yield b"".join(lines[start:position])
            start, octets = position, 0
        octets += len(line)
    if octets:
        yield b"".join(lines[start:])


_gathering: weakref.WeakSet[Lines] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    for lines in _gathering:
        lines.flush()


def _forget_all() -> None:
    for lines in _gathering:
        lines.forget()


os.register_at_fork(after_in_child=_forget_all)
