"""relay as a user runs it: `relay up` with its own Redis and sink, on ports of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.postfix import tree_cpu_seconds
from relay.sim.client import SinkClient, SinkError

_SHAPING = """\
["default"]
max_connections = 20
connection_rate = "unlimited"
message_rate = "unlimited"
mails_per_connection = 1000
"""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Relay:
    """One `relay up`; `sink` sees what arrives."""

    def __init__(self, base: Path, **environment: str) -> None:
        base.mkdir(parents=True, exist_ok=True)
        (base / "shaping.toml").write_text(_SHAPING)
        self.smtp_port, http, dns, smtp, control = (free_port() for _ in range(5))
        self.sink_port = smtp
        self.sink = SinkClient(f"127.0.0.1:{control}")
        self._base = base
        self._environment = {
            **os.environ,
            "RELAY_UP_DATA_DIR": str(base / "data"),
            "RELAY_SMTP_LISTEN": f"127.0.0.1:{self.smtp_port}",
            "RELAY_HTTP_LISTEN": f"127.0.0.1:{http}",
            "RELAY_SINK_DNS": f"127.0.0.1:{dns}",
            "RELAY_SINK_SMTP": f"127.0.0.1:{smtp}",
            "RELAY_SINK_SMTPS": "",
            "RELAY_SINK_CONTROL": f"127.0.0.1:{control}",
            "RELAY_FILES_SHAPING": str(base / "shaping.toml"),
            "RELAY_LOG_FORMAT": "json",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until the listener and the sink answer."""
        log = (self._base / "relay.log").open("wb")
        command = [str(Path(sys.executable).with_name("relay")), "up"]
        self._process = subprocess.Popen(
            command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, SinkError):
                socket.create_connection(("127.0.0.1", self.smtp_port), 1).close()
                self.sink.status()
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"relay up did not start; see {self._base}/relay.log")

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far by process, the name being what it was started as."""
        assert self._process is not None
        found: dict[str, float] = {}
        children = subprocess.run(
            ["ps", "--no-headers", "-o", "pid=,args=", "--ppid", str(self._process.pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for line in children.splitlines():
            pid, _, arguments = line.strip().partition(" ")
            found[_name_of(arguments)] = found.get(_name_of(arguments), 0.0) + tree_cpu_seconds(
                int(pid)
            )
        return found

    def stop(self) -> None:
        """SIGTERM, as an operator would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)


def _name_of(arguments: str) -> str:
    for name in ("redis-server", "valkey-server", "smtpd", "http", "sink", "worker"):
        if name in arguments:
            return name
    return "other"
