"""The private Redis of `relay up`: where it is, how it is started, that only one runs on its data.

Starting, watching and stopping the process is the supervisor's; the socket is a unix socket that
only its owner may open. A lock on the data folder is inherited by the Redis process itself, so it
is held exactly as long as any process may still write there, however the others died.
"""

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path

from relay.model.errors import ConfigError
from relay.settings.schema import Redis
from relay.store import torn_tail

#: sockaddr_un holds 108 octets; some are kept for Redis' own temporary names.
_LONGEST_SOCKET_PATH = 100
#: How long the Redis of a killed `relay up` may take to be gone.
_LEFTOVER_S = 10.0
_INSTALL = (
    "install one (apt-get install redis-server), name it in RELAY_REDIS_SERVER or set redis.url"
)


#: What every start and stop of Redis prints at its level "warning".
_CEREMONY = re.compile(
    rb"oO0OoO0OoO0Oo|(?:Redis|Valkey) version=|Configuration loaded|Server initialized|"
    rb"Received SIGTERM|User requested shutdown|ready to exit|Memory overcommit must be enabled"
)


def is_news(line: bytes) -> bool:
    """Whether a line of the server's log is worth an operator's eye."""
    return bool(line.strip()) and _CEREMONY.search(line) is None


class PrivateRedis:
    """A Redis for one data folder: `lock`, then start `command` with `inherited`, then `state`."""

    def __init__(self, settings: Redis, folder: Path) -> None:
        self.folder = folder
        self.socket = _socket_path(folder)
        self._settings = settings
        self._server = find_server()
        self._lock = -1

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def inherited(self) -> tuple[int, ...]:
        """Descriptors that the Redis process must inherit: the lock."""
        return (self._lock,)

    @property
    def command(self) -> list[str]:
        """The command line; the log goes to standard output.

        `torn_tail.py` makes the data fit to be read, then becomes the server.
        """
        memory = self._settings.max_memory or default_max_memory()
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "daemonize": "no",
            "logfile": "",
            "loglevel": "warning",
            "protected-mode": "yes",
            "save": "",
            "appendonly": "yes",
            "appendfsync": self._settings.fsync,
            "auto-aof-rewrite-min-size": "1gb",
            "maxmemory": str(memory),
            "maxmemory-policy": "noeviction",
            "hash-max-listpack-value": "1024",
            # A histogram a command, kept 80 times a message, that nobody reads.
            "latency-tracking": "no",
        }
        launcher = Path(torn_tail.__file__)
        prepare = [sys.executable, "-I", "-S", str(launcher), str(self.folder)]
        given = (part for k, v in options.items() for part in (f"--{k}", v))
        return [*prepare, self._server, *given]

    def lock(self) -> None:
        """Take the data folder; ConfigError where a Redis of an earlier run does not go away."""
        self._lock = os.open(self.folder / "redis.lock", os.O_RDWR | os.O_CREAT, 0o600)
        end = time.monotonic() + _LEFTOVER_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise ConfigError(
                        f"up.data_dir: a Redis of an earlier run still works in {self.folder}; "
                        "stop it, or choose another data_dir"
                    ) from None
                time.sleep(0.05)
        self.socket.unlink(missing_ok=True)

    async def state(self) -> str:
        """`absent`, `loading` or `ready`."""
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                try:
                    writer.write(b"PING\r\n")
                    answer = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return "absent"
        return "ready" if answer.startswith(b"+PONG") else "loading"


def private_url(folder: Path) -> str:
    """The URL at which the Redis of this data folder listens, whether it runs or not."""
    return f"unix://{_socket_path(folder)}"


def find_server() -> str:
    """The path of a Redis or Valkey server; ConfigError where there is none."""
    named = os.environ.get("RELAY_REDIS_SERVER", "")
    if named:
        found = shutil.which(named)
        if found is None:
            raise ConfigError(f"RELAY_REDIS_SERVER: {named} is no program that can be started")
        return found
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name, path=path)) is not None:
            return found
    raise ConfigError(f"redis.url: is empty and there is no redis-server on PATH; {_INSTALL}")


def default_max_memory() -> int:
    """Half of the memory that this process may use: the machine's or its cgroup's, in octets."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [limit for limit in map(_read_limit, _cgroup_files()) if limit]
    return min(limits) // 2


def _cgroup_files() -> list[Path]:
    """Where limits of our cgroup and those above it stand (version 2, then 1)."""
    root = Path("/sys/fs/cgroup")
    files = [root / "memory.max", root / "memory" / "memory.limit_in_bytes"]
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return files
    for line in lines:
        _, controllers, name = line.split(":", 2)
        inside = Path(name.lstrip("/"))
        for level in [inside, *inside.parents]:
            if controllers == "":
                files.append(root / level / "memory.max")
            elif "memory" in controllers.split(","):
                files.append(root / "memory" / level / "memory.limit_in_bytes")
    return files


def _read_limit(path: Path) -> int:
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0


def _socket_path(folder: Path) -> Path:
    """In the data folder; where that name is too long for a socket, in a private folder of /tmp."""
    inside = folder / "redis.sock"
    if len(os.fsencode(inside)) <= _LONGEST_SOCKET_PATH:
        return inside
    short = Path(tempfile.gettempdir()) / f"relay-{os.getuid()}"
    short.mkdir(mode=0o700, exist_ok=True)
    about = short.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise ConfigError(
            f"up.data_dir: {folder} is too long a name for a socket, and {short} is not a folder "
            "of yours alone; choose a shorter data_dir"
        )
    return short / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"
