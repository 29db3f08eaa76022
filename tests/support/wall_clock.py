"""Processes with a wall clock of the test's own, set at any moment; steady clocks stay right."""

import subprocess
from pathlib import Path

_SITE = """
import time

_real = time.time


def _put():
    with open({file!r}) as ahead:
        return _real() + int(ahead.read())


time.time = _put
"""


class WallClock:
    """What goes before the commands that are to live by it, `put` sets it.

    Programs in C get it from libfaketime. Python's own sleep fails under that, so in a Python
    program `time.time` is another.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._file = folder / "ahead"
        self.put(0)

    def put(self, ahead_s: int) -> None:
        """From now on it is so far ahead of the machine's, or behind it."""
        fresh = self._folder / "fresh"
        fresh.write_text(f"{ahead_s:+d}\n")
        fresh.replace(self._file)

    def in_c(self) -> tuple[str, ...]:
        """For a program such as Redis."""
        library = subprocess.run(
            ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        return (
            "env",
            # The C library's malloc: jemalloc asks for the time before there is one.
            f"LD_PRELOAD={library} libc.so.6",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        )

    def in_python(self) -> tuple[str, ...]:
        """For a program of ours."""
        (self._folder / "sitecustomize.py").write_text(_SITE.format(file=str(self._file)))
        return ("env", f"PYTHONPATH={self._folder}")
