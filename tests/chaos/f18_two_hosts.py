"""F18: workers on two hosts, one of which is cut off under load, and back.

The host that is cut off has all the connections that the ceiling of the site allows. The other one
may have them when the lease is over, no sooner. Cut off from Redis alone, the first still reaches
the receiver: it must have ended its connections by then. Cut off from everything, it cannot tell
the receiver that it is gone: what stands there then is nobody's.
"""

import asyncio
import subprocess
import time
from pathlib import Path

import msgspec

from tests.chaos.figures import submit
from tests.support.hosts import STORE, WAN_B, Host, TwoHosts, two_hosts, why_not
from tests.support.ledger import balance, until_all_ended
from tests.support.system import UNSHAPED, System

CEILING = 5
SHAPING = UNSHAPED.replace("max_connections = 20", f"max_connections = {CEILING}")


class Size(msgspec.Struct, frozen=True):
    """Messages for each cut, the lease of the workers, how often they are made, which ones."""

    messages: int
    lease_s: float
    rounds: int
    cuts: tuple[str, ...]


SHORT = Size(messages=500, lease_s=3, rounds=1, cuts=("store",))
LONG = Size(messages=4_000, lease_s=15, rounds=3, cuts=("store", "network"))


async def run(folder: Path, size: Size) -> str:
    """Cut host b off again and again, with mail for one site all the time; the figures."""
    if reason := why_not():
        return f"F18  skipped: {reason}"
    extra = {"RELAY_FILES_SHAPING": SHAPING, "RELAY_WORKER_LEASE": f"{size.lease_s:g}s"}
    async with two_hosts(folder, **extra) as (hosts, system):
        b = hosts.start_worker(system, hosts.b)
        told = [
            await Cut(hosts, system, what, f"{what}{number}").run(size)
            for number in range(size.rounds)
            for what in size.cuts
        ]
        ledger = await balance(system)
        assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
        assert set(ledger.copies) == set(ledger.ends) and ledger.accepted == len(ledger.ends)
        assert ledger.doubled <= ledger.uncertain | ledger.duplicates
        assert b.poll() is None
        summary = (
            f"F18  Two hosts, {len(ledger.ends):,} recipients, a ceiling of {CEILING}: 0 lost, "
            f"{len(ledger.doubled)} twice, all of them reported"
        )
        return "\n".join([summary, *told])


class Cut(msgspec.Struct, frozen=True):
    """Host b is cut off from `what`, the store or the whole network."""

    hosts: TwoHosts
    system: System
    what: str
    name: str

    async def run(self, size: Size) -> str:
        """Host b has the mail, loses it to host a, comes back and gets what a leaves."""
        hosts, system = self.hosts, self.system
        addresses = [f"r{number}@{self.domain}" for number in range(size.messages)]
        lost = len(await system.events("worker.lost"))
        await submit(system, addresses)
        await self.until_delivering(hosts.b)
        a = hosts.start_worker(system, hosts.a)
        await self.until_established("10.77.3.1", CEILING)
        await asyncio.to_thread(self.pull)
        began = time.monotonic()
        await system.until_event("worker.lost", lost + 1, within_s=60)
        returned_s = time.monotonic() - began
        await self.until_delivering(hosts.a)
        await self.until_established("10.77.2.1", CEILING)
        await asyncio.to_thread(self.mend)
        await self.hand_back(a)
        await until_all_ended(system, within_s=300)
        return (
            f"     b without {self.what}: its mail was the other's after {returned_s:.1f} s, "
            f"the receiver had at most {await self.peak()} connections"
        )

    @property
    def domain(self) -> str:
        """A domain of its own, with one host."""
        return f"{self.name}.onemx.slowdot50ms.test"

    def pull(self) -> None:
        """Take the cables out where host b hears nothing of it."""
        self.hosts.a.unplug(STORE)
        if self.what == "network":
            self.hosts.internet.unplug(WAN_B)

    def mend(self) -> None:
        """Put them in again."""
        self.hosts.a.plug(STORE)
        if self.what == "network":
            self.hosts.internet.plug(WAN_B)

    async def hand_back(self, a: "subprocess.Popen[bytes]") -> None:
        """Host a leaves in good order; host b goes on by itself."""
        assert await asyncio.to_thread(self.system.stop_worker, a) == 0
        self.system.workers.remove(a)
        await self.until_delivering(self.hosts.b)

    async def until_delivering(self, host: Host) -> None:
        """Wait until a host has delivered something from now on."""
        log = self.system.folder / f"{host.name}.log"
        before = _deliveries(log)
        async with asyncio.timeout(60):
            while _deliveries(log) == before:
                await asyncio.sleep(0.05)

    async def until_established(self, address: str, count: int) -> None:
        """Wait until so many connections from an address stand at the receiver."""
        async with asyncio.timeout(60):
            while (await asyncio.to_thread(self.hosts.connections))[address] < count:
                await asyncio.sleep(0.05)

    async def peak(self) -> int:
        """The most connections that the receiver had; what a vanished host left is not live."""
        uses = await asyncio.to_thread(self.system.sink.hosts)
        peak = int(uses[f"mx1.{self.domain}"]["use"]["peak"])
        assert peak <= CEILING * (2 if self.what == "network" else 1)
        return peak


def _deliveries(log: Path) -> int:
    return log.read_text().count('"event":"recipient.delivered"') if log.exists() else 0
