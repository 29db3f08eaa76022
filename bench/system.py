"""relay as a user runs it: `relay up` with its own Redis and sink, on ports of its own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from bench.processes import (
    arguments_of_children,
    cpu_seconds,
    free_port,
    main_thread_cpu_seconds,
    own_cpu_seconds,
    resident_octets,
)
from bench.receiver import PlainReceiver
from relay.ingress.client import AsyncRelay
from relay.sim.client import SinkClient, SinkError
from relay.store.server import private_url

#: Limits that do not bind, so that what is measured is relay; 20 connections as Postfix has them.
_SHAPING = """\
["default"]
max_connections = {connections}
connection_rate = "unlimited"
message_rate = "unlimited"
mails_per_connection = 1000
tls = "{tls}"
"""
#: What a process of `relay up` is called in the figures, by a word of its command line.
_NAMES = {
    "redis-server": "redis",
    "valkey-server": "redis",
    "smtpd": "listener",
    "http": "http",
    "sink": "sink",
    "worker": "worker",
    "keeper": "keeper",
}


class Relay:
    """One `relay up`; `sink` sees what arrives. `with Relay(folder) as relay:` runs it."""

    def __init__(
        self, base: Path, *, tls: str = "off", connections: int = 20, **environment: str
    ) -> None:
        (base / "shaping.toml").write_text(_SHAPING.format(tls=tls, connections=connections))
        self.smtp_port, self.http_port, dns, smtp, control = (free_port() for _ in range(5))
        self.sink_port = smtp
        self.sink = SinkClient(f"127.0.0.1:{control}", timeout_s=60.0)
        self.log = base / "relay.log"
        self._data = base / "data"
        self._environment = {
            **os.environ,
            "RELAY_UP_DATA_DIR": str(self._data),
            "RELAY_SMTP_LISTEN": f"127.0.0.1:{self.smtp_port}",
            "RELAY_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "RELAY_SINK_DNS": f"127.0.0.1:{dns}",
            "RELAY_SINK_SMTP": f"127.0.0.1:{smtp}",
            "RELAY_SINK_SMTPS": "",
            "RELAY_SINK_CONTROL": f"127.0.0.1:{control}",
            "RELAY_FILES_SHAPING": str(base / "shaping.toml"),
            "RELAY_LOG_FORMAT": "json",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where its Redis is."""
        return private_url(self._data / "sink")

    def client(self) -> AsyncRelay:
        """The Python client of this relay."""
        return AsyncRelay(self.url, mode="sink")

    def redis(self) -> redis.Redis:
        """A plain connection to its Redis, to look at what it does."""
        return redis.Redis.from_url(self.url)

    # -- life --------------------------------------------------------------------------------

    def start(self, store: Path | None = None) -> None:
        """Start and wait until everything answers; `store`: the folder of a Redis to begin with."""
        if store is not None:
            shutil.copytree(store, self._data / "sink")
        command = [str(Path(sys.executable).with_name("relay")), "up"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, SinkError, redis.RedisError):
                socket.create_connection(("127.0.0.1", self.smtp_port), 1).close()
                self.sink.status()
                self.redis().ping()
                if len(self.pids("worker")) > 0:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"relay up did not start: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """SIGTERM, as an operator would."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
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

    # -- the receiver ------------------------------------------------------------------------

    def send_to(self, receiver: PlainReceiver, *names: str) -> None:
        """Let the MX hosts of all domains below these names be the receiver."""
        for name in names:
            self.sink.set_dns(f"*.{name}", "A", receiver.address)

    def received(self) -> int:
        """Messages that the simulated internet has accepted."""
        return int(self.sink.status()["counters"]["messages"])

    # -- what it uses ------------------------------------------------------------------------

    def pids(self, name: str) -> list[int]:
        """The processes of one name."""
        return [pid for pid, found in self._children().items() if found == name]

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far, by name of process; of a worker Celery's and the engine's."""
        assert self._process is not None
        found = {"supervisor": own_cpu_seconds(self._process.pid)}
        for pid, name in self._children().items():
            used = {name: cpu_seconds(pid)}
            if name == "worker":
                celery = main_thread_cpu_seconds(pid)
                used = {"celery": celery, "engine": used[name] - celery}
            for part, seconds in used.items():
                found[part] = found.get(part, 0.0) + seconds
        return found

    def resident_octets(self) -> dict[str, int]:
        """Memory in RAM, by name of process."""
        found: dict[str, int] = {}
        for pid, name in self._children().items():
            found[name] = found.get(name, 0) + resident_octets(pid)
        return found

    def _children(self) -> dict[int, str]:
        assert self._process is not None
        children = arguments_of_children(self._process.pid)
        return {pid: _name_of(arguments) for pid, arguments in children.items()}

    def redis_info(self) -> dict[str, Any]:
        """`INFO everything` of its Redis."""
        return dict(self.redis().info("everything"))


def _name_of(arguments: str) -> str:
    return next((name for word, name in _NAMES.items() if word in arguments), "other")
