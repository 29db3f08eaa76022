"""Several hosts on one machine: network namespaces joined by cables (veth pairs) of the test's own.

A host lives as long as its holder, a process that dies with the test, so nothing is left behind.
There is no way out of these networks: no route leads to the machine's own.

The simulated internet stays on loopback addresses of its host. To the others these addresses are
the internet: what they send to 127.0.0.0/8 goes over a cable to that host.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from relay.sim.client import SinkClient, SinkError
from tests.support import processes
from tests.support.redis_server import RedisServer
from tests.support.system import WAIT_S, System

Answer = TypeVar("Answer")

_CLONE_NEWNET = 0x40000000
_HOLDER = "print(flush=True); __import__('time').sleep(3600)"


def why_not() -> str:
    """Why this machine cannot have hosts of a test's own; empty: it can."""
    if os.geteuid() != 0:
        return "network namespaces are made by root only: run the tests as root"
    for command in ("ip", "unshare", "nsenter"):
        if shutil.which(command) is None:
            return f"the command {command} is missing (Debian: iproute2, util-linux)"
    probe = subprocess.run(
        ["unshare", "--net", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no network namespace can be made here: {probe.stderr}" if probe.returncode else ""


class Host:
    """A network namespace; `host.inside` goes before a command that is to run in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-c", _HOLDER],
            stdout=subprocess.PIPE,
            preexec_fn=processes.die_with_parent,  # noqa: PLW1509
        )
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        self._namespace = f"/proc/{self._holder.pid}/ns/net"
        self._visitors: ThreadPoolExecutor | None = None
        self.ip("link", "set", "lo", "up")

    @property
    def inside(self) -> tuple[str, ...]:
        """What goes before a command that is to run on this host."""
        return ("nsenter", f"--net={self._namespace}")

    def run(self, *command: str) -> None:
        """Run a short command on this host."""
        subprocess.run([*self.inside, *command], check=True, capture_output=True, text=True)

    def ip(self, *arguments: str) -> None:
        """Run `ip` on this host."""
        self.run("ip", *arguments)

    def visit(self, act: Callable[[], Answer]) -> Answer:
        """Call a function in a thread whose sockets belong to this host."""
        if self._visitors is None:
            self._visitors = ThreadPoolExecutor(1, initializer=self._move_in)
        return self._visitors.submit(act).result()

    def _move_in(self) -> None:
        with Path(self._namespace).open("rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter the host {self.name}")

    def cable(self, other: "Host", device: str, ours: str, theirs: str) -> None:
        """Join two hosts: a device of this name on each, with these addresses of a /30 network."""
        holder = str(other._holder.pid)
        self.ip("link", "add", device, "type", "veth", "peer", "name", device, "netns", holder)
        for host, address in ((self, ours), (other, theirs)):
            host.ip("address", "add", f"{address}/30", "dev", device)
            host.ip("link", "set", device, "up")

    def play_internet(self) -> None:
        """Answer on loopback addresses to those who come by cable."""
        self._let_loopback_pass()

    def reach_internet(self, gateway: str) -> None:
        """Send what goes to loopback addresses to the host that plays the internet."""
        self._let_loopback_pass()
        self.ip("route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
        self.ip("address", "del", "127.0.0.1/8", "dev", "lo")
        self.ip("route", "add", "127.0.0.0/8", "via", gateway)

    def _let_loopback_pass(self) -> None:
        self.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")

    def unplug(self, device: str) -> None:
        """Take a cable out at our end; who is at the other end merely hears nothing any more."""
        self.ip("link", "set", device, "down")

    def plug(self, device: str) -> None:
        """Put it in again."""
        self.ip("link", "set", device, "up")

    def end(self) -> None:
        """The host is gone, and what still runs on it has no network."""
        if self._visitors is not None:
            self._visitors.shutdown()
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


class HostedSink(SinkClient):
    """A client of the simulated internet of another host."""

    def __init__(self, host: Host, address: str) -> None:
        super().__init__(address)
        self._host = host

    def _request(self, method: str, target: str, body: bytes, wait_s: float) -> bytes:
        ask = super()._request
        return self._host.visit(lambda: ask(method, target, body, wait_s))


#: The cables: between the hosts of the relay; from each of them to the internet.
STORE, WAN_A, WAN_B = "store", "wan-a", "wan-b"
_REDIS_PORT, _DNS, _CONTROL = 6379, "127.0.0.1:53", "127.0.0.1:8455"


class TwoHosts:
    """Redis and a worker on host a, a worker on host b, the internet on a third."""

    def __init__(self, folder: Path) -> None:
        self.a, self.b, self.internet = Host("a"), Host("b"), Host("internet")
        self.hosts = (self.a, self.b, self.internet)
        self.a.cable(self.b, STORE, "10.77.1.1", "10.77.1.2")
        self.a.cable(self.internet, WAN_A, "10.77.2.1", "10.77.2.2")
        self.b.cable(self.internet, WAN_B, "10.77.3.1", "10.77.3.2")
        self.internet.play_internet()
        self.a.reach_internet("10.77.2.2")
        self.b.reach_internet("10.77.3.2")
        network = ("--port", str(_REDIS_PORT), "--bind", "10.77.1.1", "--protected-mode", "no")
        self.redis = RedisServer(folder, options=network, inside=self.a.inside)
        self._sink: subprocess.Popen[bytes] | None = None

    def start_internet(self, folder: Path) -> HostedSink:
        """The simulated internet, on its host."""
        environment = {
            "RELAY_SINK_DNS": _DNS,
            "RELAY_SINK_SMTP": "127.0.0.1:25",
            "RELAY_SINK_CONTROL": _CONTROL,
        }
        command = [*self.internet.inside, *processes.python("relay.cli.main", "sink")]
        log = folder / "sink.log"
        self._sink = processes.start(command, log=log, environment=environment)
        sink = HostedSink(self.internet, _CONTROL)
        end = time.monotonic() + WAIT_S
        while True:
            try:
                sink.status()
                return sink
            except SinkError:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.05)

    def start_worker(self, system: System, host: Host) -> "subprocess.Popen[bytes]":
        """A worker on one of the two; its log is named after the host."""
        url = f"redis://10.77.1.1:{_REDIS_PORT}/0"
        log = f"{host.name}.log"
        return system.start_worker(log=log, inside=host.inside, RELAY_REDIS_URL=url)

    def connections(self) -> Counter[str]:
        """Established SMTP connections by the address that they come from, as the kernel has it."""
        return self.internet.visit(_established)

    def end(self) -> None:
        """Nothing of it is left."""
        if self._sink is not None:
            processes.kill(self._sink)
        self.redis.stop()
        for host in self.hosts:
            host.end()


def _established() -> Counter[str]:
    """Local port 25, state 1 of this thread's /proc/net/tcp."""
    found: Counter[str] = Counter()
    for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(":0019") and fields[3] == "01":
            octets = bytes.fromhex(fields[2].partition(":")[0])
            found[".".join(map(str, reversed(octets)))] += 1
    return found


@contextlib.asynccontextmanager
async def two_hosts(folder: Path, **extra: str) -> AsyncIterator[tuple[TwoHosts, System]]:
    """Two hosts that deliver to a third in live mode, without workers as yet.

    `extra` as in `running_system`.
    """
    hosts = TwoHosts(folder)
    try:
        hosts.redis.start()
        live = {
            "RELAY_DELIVERY_MODE": "live",
            "RELAY_DELIVERY_ALLOW_PRIVATE": "true",
            "RELAY_DNS_NAMESERVERS": _DNS,
        }
        sink = await asyncio.to_thread(hosts.start_internet, folder)
        system = System(folder, hosts.redis, sink, {**live, **extra})
        try:
            await system.connect()
            yield hosts, system
        finally:
            system.stop_processes()
            await system.store.close()
    finally:
        hosts.end()
