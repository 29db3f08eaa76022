"""F8: one dead domain with a long queue among live ones.

Its hosts drop every packet. Live mail must not notice, and the dead hosts are dialled a few times
in the five minutes that the store's clock is moved through.
"""

import asyncio
from pathlib import Path

import msgspec

from tests.chaos.figures import delivered, percentile, submit, waits_in_queue
from tests.support.system import UNSHAPED, System, running_system

DEAD = "blackhole.test"
#: The most dials in five minutes: two hosts for each of a few sessions in a row, then probes.
DIALS = 20


class Size(msgspec.Struct, frozen=True):
    """Messages for the dead domain, live domains and messages for each."""

    dead: int
    live: int
    each: int
    within_s: float
    workers: int = 2


SHORT = Size(dead=500, live=50, each=4, within_s=30)
LONG = Size(dead=50_000, live=100, each=50, within_s=60)


async def run(folder: Path, size: Size) -> str:
    """Live mail alone, then beside the dead domain's; the figures."""
    settings = {"RELAY_FILES_SHAPING": UNSHAPED, "RELAY_TIMEOUTS_CONNECT": "300ms"}
    async with running_system(folder, workers=0, **settings) as system:
        system.expects("site.breaker")
        for _ in range(size.workers):
            system.start_worker()
        await live_mail(system, size, "warm.test")
        alone = await live_mail(system, size, "alone.test")
        await submit(system, [f"r{n}@{DEAD}" for n in range(size.dead)])
        beside = await live_mail(system, size, "beside.test")
        for _ in range(30):
            await until_dead_rests(system)
            await system.shift_clock(10)
        await until_dead_rests(system)

        queue = await system.queue(DEAD)
        assert (queue.ready, queue.retry, queue.deferred) == (size.dead, 0, 0)
        assert await system.events("recipient.deferred", "recipient.failed") == []
        dials = sum(line["event"] == "session.failed" for line in system.log_lines())
        assert dials <= DIALS, f"{dials} dials"
        assert not system.complaints()
        before, after = (percentile(waits, 0.95) for waits in (alone, beside))
        return (
            f"F8   a dead domain with {size.dead:,} queued beside {size.live} live ones: live mail "
            f"p95 {after * 1000:.0f} ms in the queue, alone {before * 1000:.0f} ms; "
            f"{dials} dials to its hosts in 5 min"
        )


async def live_mail(system: System, size: Size, suffix: str) -> list[float]:
    """Mail for live domains, a message each at a time; the seconds that each was in the queue."""
    for number in range(size.each):
        wanted = await delivered(system) + size.live
        await submit(system, [f"r{number}@number{n}.{suffix}" for n in range(size.live)])
        async with asyncio.timeout(size.within_s):
            while await delivered(system) < wanted:
                await asyncio.sleep(0.05)
    waits = await waits_in_queue(system, suffix)
    assert len(waits) == size.live * size.each
    return waits


async def until_dead_rests(system: System) -> None:
    """Wait until no session is being opened to the dead hosts, nor is to be."""
    wire, prefix = system.store.wire, system.store.p
    async with asyncio.timeout(30):
        while True:
            lane = (await system.queue(DEAD)).lane
            until = await wire.call("HGET", f"{prefix}ln:{lane}", "pu") if lane else None
            sessions = await wire.call("SCARD", f"{prefix}ls:{lane}")
            if not sessions and until and float(until) / 1000 > await system.store.now():
                return
            await asyncio.sleep(0.05)
