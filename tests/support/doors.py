"""The HTTP and SMTP daemons with a real Redis and nobody who delivers: doors alone."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support import processes
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer

_WAIT_S = 20.0


class Doors:
    """One Redis and the daemons that a test starts before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = RedisServer(folder)
        self.redis.start()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            "RELAY_DELIVERY_MODE": "sink",
            "RELAY_DELIVERY_HOSTNAME": "relay.example",
            "RELAY_REDIS_URL": self.redis.url,
            "RELAY_LOG_FORMAT": "json",
        }

    def start(self, verb: str, **more: str) -> tuple[subprocess.Popen[bytes], int]:
        """Start `relay smtpd` or `relay http`; the process and its port."""
        port = free_port()
        environment = {
            **self.environment,
            f"RELAY_{verb.removesuffix('d').upper()}_LISTEN": f"127.0.0.1:{port}",
            **more,
        }
        log = self.folder / f"{verb}.log"
        command = processes.python("relay.cli.main", verb)
        process = processes.start(command, log=log, environment=environment)
        self._processes.append(process)
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return process, port
            time.sleep(0.02)
        raise AssertionError(f"{verb} does not listen: {log.read_text()}")

    def http(self, **more: str) -> httpx.Client:
        """Start `relay http`; a client of it."""
        _, port = self.start("http", **more)
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=15)

    def stop(self) -> None:
        """End everything."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.redis.stop()


@contextlib.contextmanager
def running_doors(folder: Path) -> Iterator[Doors]:
    """Doors that end with the block."""
    doors = Doors(folder)
    try:
        yield doors
    finally:
        doors.stop()


def relay(*arguments: str, api: str = "", given: bytes = b"", **environment: str) -> "Run":
    """Run the command line as a user does."""
    variables = {name: value for name, value in os.environ.items() if name[:6] != "RELAY_"}
    variables |= {"RELAY_API": api, **environment} if api else environment
    done = subprocess.run(
        processes.python("relay.cli.main", *arguments),
        input=given,
        capture_output=True,
        timeout=60,
        cwd=processes.ROOT,
        env=variables,
        check=False,
    )
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())


class Run:
    """How a command ended and what it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"Run(code={self.code}, out={self.out!r}, err={self.err!r})"
