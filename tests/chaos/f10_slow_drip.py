"""F10: servers that drip, as many as there are places and more, beside ones that live.

Some drip from the greeting on, the others only once they are asked for a recipient, with mail in
hand. The places of a worker stay bounded, and mail to everyone else goes meanwhile. In the long
form also a server that is lively but slow: its 50 recipients together take no longer than an
attempt may.
"""

from pathlib import Path

import msgspec

from tests.chaos.figures import connections, percentile, waits_in_queue
from tests.support.system import UNSHAPED, running_system

DRIP_S = 5


class Size(msgspec.Struct, frozen=True):
    """How many dripping servers of each kind, places of a worker, live domains, mail for each.

    `attempt_s`: the longest that an attempt may take at a lively, slow server; 0: not asked.
    """

    drips: int
    places: int
    live: int
    each: int
    within_s: float
    attempt_s: float = 0.0


SHORT = Size(drips=12, places=20, live=30, each=3, within_s=60)
LONG = Size(drips=250, places=500, live=100, each=50, within_s=300, attempt_s=20.0)


async def run(folder: Path, size: Size) -> str:
    """The figures of what a size asks for."""
    figures = await beside_drips(folder, size)
    if size.attempt_s:
        took_s = await longest_attempt(folder / "lively", size.attempt_s)
        assert abs(took_s - size.attempt_s) <= 5
        figures += f"; an attempt that may take {size.attempt_s:.0f} s took {took_s:.1f} s"
    return figures


async def longest_attempt(folder: Path, attempt_s: float) -> float:
    """Seconds that the attempt of 50 recipients took whose server answers each after a second."""
    folder.mkdir()
    async with running_system(folder, RELAY_TIMEOUTS_ATTEMPT=f"{attempt_s}s") as system:
        system.sink.add_fault("*.lively.test", "RCPT", "delay", delay="1s")
        domain = "nopipelining.onemx.lively.test"
        await system.submit([f"r{n}@{domain}" for n in range(50)])
        events = await system.until_event("recipient.deferred", 50, within_s=attempt_s + 60)
        assert {event.data["reason"] for event in events} == {"timeout"}
        return max(float(event.data["delays"]["envelope"]) for event in events)


async def beside_drips(folder: Path, size: Size) -> str:
    """Drips first, so that they take every place that silent peers may have; then all live mail."""
    settings = {
        "RELAY_FILES_SHAPING": UNSHAPED,
        "RELAY_WORKER_MAX_SESSIONS": str(size.places),
    }
    async with running_system(folder, workers=0, **settings) as system:
        system.expects("site.breaker")
        system.sink.add_fault("*.late.test", "RCPT", "split", delay=f"{DRIP_S}s")
        dripping = [f"ann@drip{DRIP_S}.onemx.number{n}.test" for n in range(size.drips)]
        dripping += [f"ann@onemx.number{n}.late.test" for n in range(size.drips)]
        slow = [await system.submit([address]) for address in dripping]
        system.start_worker()
        await system.until_connected(size.places // 2)
        live = [f"r{n}@number{n % size.live}.test" for n in range(size.live * size.each)]
        async with connections(system) as open_now:
            receipts = [await system.submit([address]) for address in live]
            await system.until_delivered(*receipts, within_s=size.within_s)

        views = [view for one in slow for view in (await system.recipients(one)).values()]
        assert {view.status for view in views} <= {"ready", "claimed"}
        assert {view.step for view in views} == {0}
        assert await system.events("recipient.deferred", "recipient.uncertain") == []
        assert system.sink.counts() == dict.fromkeys(live, 1)
        assert open_now.highest <= size.places
        assert not system.complaints()
        waits = await waits_in_queue(system)
        return (
            f"F10  {2 * size.drips} dripping servers, {size.places} places: {len(live):,} messages "
            f"to {size.live} live domains delivered meanwhile, p95 {percentile(waits, 0.95):.1f} s "
            f"in the queue; at most {open_now.highest:.0f} connections"
        )
