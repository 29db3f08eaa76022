"""F9: DNS failing in every way it knows, domain by domain, beside domains that are well.

What heals is delivered once; what stays broken keeps its mail ready and says so; only what DNS
denies for good fails; and the workers do not grow by any of it.
"""

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import psutil

from tests.chaos.figures import submit
from tests.support.ledger import balance
from tests.support.system import UNSHAPED, System, running_system

WELL = ("", "slowdns200ms", "truncate", "manymx1000", "cname", "nomx", "deadv6", "flapdns")
#: Broken for the first questions of each type, at the domain and at its hosts.
HEALING = ("servfail2", "dnstimeout2", "lamedns2", "garbagedns2", "wrongid2", "notcp2")
BROKEN = ("servfail", "dnstimeout", "lamedns", "garbagedns", "wrongid", "notcp", "cnameloop")
DENIED = ("nxdomain", "nullmx", "noaddress")
#: Longer than any pause between look-ups.
LONGEST_PAUSE_S = 1000
GROWTH_OCTETS = 40 << 20


class Size(msgspec.Struct, frozen=True):
    """Domains of each kind, and how often the broken ones are looked up again after the others."""

    domains: int
    rounds: int
    within_s: float


SHORT = Size(domains=2, rounds=1, within_s=60)
LONG = Size(domains=100, rounds=30, within_s=300)


async def run(folder: Path, size: Size) -> str:
    """A message to each domain; the clock is moved on until all has come to its end."""
    settings = {
        "RELAY_FILES_SHAPING": UNSHAPED,
        "RELAY_DNS_TIMEOUT": "300ms",
        "RELAY_DNS_LIFETIME": "1s",
        "RELAY_DNS_NEGATIVE_TTL": "100ms",
        "RELAY_DNS_MIN_TTL": "100ms",
    }
    async with running_system(folder, workers=2, **settings) as system:
        system.expects("site.breaker")
        broken = addresses(BROKEN, size)
        await submit(system, broken)
        fine = addresses(WELL + HEALING, size)
        denied = addresses(DENIED, size)
        await submit(system, [*fine, *denied])
        async with asyncio.timeout(size.within_s):
            while await ended(system) < len(fine) + len(denied):
                await system.shift_clock(LONGEST_PAUSE_S)
                await asyncio.sleep(0.5)
        before = resident_octets(system)
        for _ in range(size.rounds):
            await system.shift_clock(LONGEST_PAUSE_S)
            await asyncio.sleep(1.0)
        grown = resident_octets(system) - before

        ledger = await balance(system)
        ends = {address: ends for (_, address), ends in ledger.ends.items()}
        assert ends == {address: ["delivered"] for address in fine} | {
            address: ["failed"] for address in denied
        }
        assert Counter(path for _, path in ledger.copies.elements()) == Counter(fine)
        assert await system.events("recipient.deferred", "recipient.uncertain") == []
        states = (await system.store.counters())["states"]
        assert states["ready"] == sum(states.values()) == len(broken)
        assert grown < GROWTH_OCTETS
        assert not system.complaints()
        return (
            f"F9   {len(fine) + len(denied) + len(broken):,} domains, DNS failing in "
            f"{len(HEALING + BROKEN + DENIED)} ways: {len(fine):,} delivered, {len(denied):,} "
            f"denied for good, {len(broken):,} wait unharmed; workers grew by {grown / 1e6:.1f} MB"
        )


def addresses(words: tuple[str, ...], size: Size) -> list[str]:
    """A recipient for each domain of each kind."""
    labels = [f"{word}." if word else "" for word in words]
    return [f"ann@{label}number{n}.test" for label in labels for n in range(size.domains)]


async def ended(system: System) -> int:
    """Recipients that have come to their end so far."""
    counts = (await system.store.counters())["recipients"]
    return sum(count for (outcome, _), count in counts.items() if outcome != "deferred")


def resident_octets(system: System) -> int:
    """Resident memory of all workers."""
    return sum(psutil.Process(worker.pid).memory_info().rss for worker in system.workers)
