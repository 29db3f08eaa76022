"""A real redis-server on a unix socket, as durable as the embedded one."""

import signal
import subprocess
import time
from pathlib import Path

import redis

from relay.store.server import find_server
from relay.store.torn_tail import mend
from tests.support import processes


class RedisServer:
    """One server with its data in a folder: start, kill -9, restart on the same data, pause."""

    def __init__(
        self,
        folder: Path,
        *,
        max_memory: str = "256mb",
        options: tuple[str, ...] = (),
        inside: tuple[str, ...] = (),
        password: str = "",
    ):
        """`inside` goes before the command: the host that it runs on."""
        self._inside = inside
        self._password = password or None
        self.folder = folder / "redis"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._options = (
            *("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)),
            *("--maxmemory", max_memory, "--maxmemory-policy", "noeviction"),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            *("--hash-max-listpack-value", "1024"),
            *(("--requirepass", password, "--masterauth", password) if password else ()),
            *options,
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self) -> redis.Redis:
        """A plain client, for looking and for breaking things."""
        return redis.Redis(unix_socket_path=str(self.socket), password=self._password)

    def start(self) -> None:
        """Start as `relay up` does and wait until it has loaded its data."""
        self.socket.unlink(missing_ok=True)
        mend(self.folder, find_server())
        self._process = processes.start(
            [*self._inside, find_server(), *self._options], log=self.folder / "redis.log"
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                time.sleep(0.02)
        raise AssertionError((self.folder / "redis.log").read_text())

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        processes.kill(self._process)

    def restart(self) -> None:
        """kill -9 and start again on what is on disk."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: the socket stays open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @property
    def append_only_file(self) -> Path:
        """The file that is being appended to."""
        files = (self.folder / "appendonlydir").glob("*.incr.aof")
        return max(files, key=lambda path: int(path.name.split(".")[-3]))

    def stop(self) -> None:
        """End it; its data may go."""
        if self._process is not None and self._process.poll() is None:
            processes.kill(self._process)
