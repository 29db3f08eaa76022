"""`relay up` as a user starts it, and a way to find every process that it brought about."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.ports import free_ports

WAIT_S = 30.0
ROOT = Path(__file__).parents[2]


def marked(mark: str, data: Path) -> dict[int, str]:
    """Every living process with the mark in its environment: process id and command line.

    Redis writes its title over its environment; its title names the data folder.
    """
    found = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number = int(folder.name)
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            is_ours = mark.encode() in (folder / "environ").read_bytes() or str(data) in command
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if is_ours and state not in "ZX":
                found[number] = command
    return found


def wait_until(claim: Callable[[], bool], what: str, *, within_s: float = WAIT_S) -> None:
    """Poll until the claim holds."""
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)


class Household:
    """One `relay up` with ports and data of its own; `out` and `err` are what it printed."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.mark = f"HOUSEHOLD_{uuid.uuid4().hex}"
        self.data = folder / "data"
        self.smtp, self.http, dns, smtp, control = free_ports(5)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            self.mark: "1",
            "RELAY_UP_DATA_DIR": str(self.data),
            "RELAY_SMTP_LISTEN": f"127.0.0.1:{self.smtp}",
            "RELAY_HTTP_LISTEN": f"127.0.0.1:{self.http}",
            "RELAY_SINK_DNS": f"127.0.0.1:{dns}",
            "RELAY_SINK_SMTP": f"127.0.0.1:{smtp}",
            "RELAY_SINK_CONTROL": f"127.0.0.1:{control}",
            "RELAY_WORKER_PROCESSES": "1",
            "RELAY_UP_DRAIN": "5s",
            **environment,
        }
        self.out, self.err = "", ""
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []

    @property
    def process(self) -> "subprocess.Popen[str]":
        assert self._process is not None
        return self._process

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "relay.cli.main", *arguments]

    def start(self, *arguments: str) -> None:
        """Start it; what it prints is gathered as it comes."""
        self.out, self.err = "", ""
        self._process = subprocess.Popen(
            self.command("up", *arguments),
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True)
            for name in ("out", "err")
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        stream = self.process.stdout if name == "out" else self.process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                setattr(self, name, getattr(self, name) + line)

    def start_ready(self, *arguments: str) -> None:
        """Start it and wait until it says that it is up."""
        self.start(*arguments)
        wait_until(
            lambda: (
                ("relay is up" in self.err and "Try " in self.err)
                or self.process.poll() is not None
            ),
            "relay is up",
        )
        assert self.process.poll() is None, self.err + self.out

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; answers the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        for reader in self._readers:
            reader.join(WAIT_S)
        return code

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end with the same environment."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            check=False,
            text=True,
            timeout=WAIT_S,
        )

    def processes(self) -> dict[int, str]:
        return marked(self.mark, self.data)


@contextlib.contextmanager
def household(folder: Path, **environment: str) -> Iterator[Household]:
    """A household that is gone afterwards, whatever happened."""
    house = Household(folder, **environment)
    try:
        yield house
    finally:
        for number in house.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if house._process is not None:
            house._process.wait(WAIT_S)
            for reader in house._readers:
                reader.join(WAIT_S)
