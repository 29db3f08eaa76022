"""A real Redis master, its replicas and three sentinels that choose a new master in seconds."""

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import redis

from relay.store.server import find_server
from tests.support import processes
from tests.support.ports import free_ports
from tests.support.redis_server import RedisServer

NAME = "mymaster"
WAIT_S = 30.0
#: Below a second, the time between two of its PINGs, a sentinel takes each new master for dead.
_SENTINEL = """
port {port}
bind 127.0.0.1
dir "{folder}"
sentinel myid {id}
sentinel monitor {name} 127.0.0.1 {master} 2
sentinel down-after-milliseconds {name} 1500
sentinel failover-timeout {name} 1500
sentinel parallel-syncs {name} 5
"""


class ReplicaSet:
    """`url` names the sentinels; `fail_over` kills the master, which comes back as a replica."""

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 2,
        options: tuple[str, ...] = (),
        password: str = "",
        sentinel_password: str = "",
    ) -> None:
        ports = free_ports(1 + replicas + 3)
        self._ports, self._sentinel_ports = ports[: 1 + replicas], ports[1 + replicas :]
        self._password, self._sentinel_password = password, sentinel_password
        self._options = options
        self._folder = folder
        self._servers = {port: self._server(port, self._ports[0]) for port in self._ports}
        self._sentinels: list[subprocess.Popen[bytes]] = []
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._sentinel_ports)
        login = f":{quote(password, safe='')}@" if password else ""
        more = f"?sentinel_password={quote(sentinel_password)}" if sentinel_password else ""
        self.url = f"redis+sentinel://{login}{hosts}/{NAME}{more}"

    def _server(self, port: int, master: int) -> RedisServer:
        role = () if port == master else ("--replicaof", f"127.0.0.1 {master}")
        options = (
            *("--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"),
            *("--repl-ping-replica-period", "1", *role, *self._options),
        )
        folder = self._folder / f"redis-{port}"
        return RedisServer(folder, options=options, password=self._password)

    def start(self) -> None:
        """Start all of it and wait until the sentinels could replace the master."""
        for server in self._servers.values():
            server.start()
        for number in range(3):
            self.start_sentinel(number)
        self.until_whole()

    def start_sentinel(self, number: int) -> None:
        """One more of the three sentinels."""
        port, file = self._sentinel_ports[number], self._folder / f"sentinel-{number}.conf"
        if not file.exists():
            text = _SENTINEL.format(
                port=port,
                folder=self._folder,
                id=self._id(number),
                name=NAME,
                master=self._ports[0],
            )
            # What they would find out within seconds.
            for replica in self._ports[1:]:
                text += f"sentinel known-replica {NAME} 127.0.0.1 {replica}\n"
            for other in {0, 1, 2} - {number}:
                at = f"127.0.0.1 {self._sentinel_ports[other]} {self._id(other)}"
                text += f"sentinel known-sentinel {NAME} {at}\n"
            if self._password:
                text += f'sentinel auth-pass {NAME} "{self._password}"\n'
            if self._sentinel_password:
                word = self._sentinel_password
                text += f"requirepass {word}\nsentinel sentinel-pass {word}\n"
            file.write_text(text)
        log = self._folder / f"sentinel-{number}.log"
        self._sentinels.append(processes.start([find_server(), file, "--sentinel"], log=log))

    @staticmethod
    def _id(number: int) -> str:
        return f"{number + 1:040x}"

    # -- looking -----------------------------------------------------------------------------

    @property
    def master_port(self) -> int:
        """Where all living sentinels say that the master is."""
        said = set()
        for port in self._sentinel_ports:
            password = self._sentinel_password or None
            with (
                contextlib.suppress(redis.RedisError, TypeError),
                redis.Redis(port=port, password=password, socket_timeout=1) as sentinel,
            ):
                said.add(int(sentinel.sentinel_get_master_addr_by_name(NAME)[1]))
        assert len(said) == 1, f"the sentinels call {said or 'nobody'} the master"
        return said.pop()

    @property
    def epoch(self) -> int:
        """In how many elections the sentinels have chosen a master."""
        password = self._sentinel_password or None
        with redis.Redis(port=self._sentinel_ports[0], password=password) as sentinel:
            return int(sentinel.sentinel_master(NAME)["config-epoch"])

    @property
    def master(self) -> RedisServer:
        """The server that is the master now."""
        return self._servers[self.master_port]

    def client(self) -> redis.Redis:
        """A plain client of the master."""
        return self.master.client()

    def replicas(self) -> list[RedisServer]:
        """All the others."""
        master = self.master_port
        return [server for port, server in self._servers.items() if port != master]

    def until_whole(self) -> None:
        """Wait until all replicas follow the master and all sentinels know of it."""
        self._until(self._is_whole, "the replica set is whole")

    def _is_whole(self) -> bool:
        with self.client() as client:
            about = client.info("replication")
        following = [
            about[f"slave{n}"]["state"] == "online" for n in range(about["connected_slaves"])
        ]
        return about["role"] == "master" and following == [True] * (len(self._ports) - 1)

    def _until(self, claim: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            try:
                if claim():
                    return
            except (redis.RedisError, AssertionError):
                pass
            time.sleep(0.05)
        raise AssertionError(f"not within {WAIT_S:g} s: {what}")

    # -- breaking ----------------------------------------------------------------------------

    def kill_master(self, *, behind_s: float = 0.0) -> int:
        """kill -9 of the master; its port. Of its last moment the replicas hear nothing."""
        port = self.master_port
        if behind_s:
            for server in self.replicas():
                with server.client() as replica:
                    replica.replicaof("127.0.0.1", "1")  # nobody there
            time.sleep(behind_s)
        self._servers[port].kill()
        return port

    def until_replaced(self, port: int) -> None:
        """Wait until all sentinels say that another server than this one is the master."""

        def is_replaced() -> bool:
            if self.master_port == port:
                return False
            with self.client() as client:
                return bool(client.role()[0] == b"master")

        self._until(is_replaced, "there is a new master")

    def rejoin(self, port: int) -> None:
        """Start a server again, as a replica of the master that has replaced it."""
        master = self.master_port
        assert master != port, "a second master would come of it"
        self._servers[port] = self._server(port, master)
        self._servers[port].start()
        # What the sentinels do ten seconds later where a server was away when they chose.
        for server in self.replicas():
            with server.client() as replica:
                if replica.role()[0] == b"slave":
                    replica.replicaof("127.0.0.1", master)

    def fail_over(self) -> None:
        """Kill the master; return when another has its part and it is back as a replica."""
        port = self.kill_master()
        self.until_replaced(port)
        self.rejoin(port)

    def stop(self) -> None:
        """End all of it."""
        for sentinel in self._sentinels:
            processes.kill(sentinel)
        for server in self._servers.values():
            server.stop()
