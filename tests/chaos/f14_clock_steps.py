"""F14: wall clocks are set forth and back under load: the workers' by hours, Redis' by one.

Steady clocks go on, as they do when a real one is set. Nothing is given up for lost, nothing
expires, what waits for its retry waits as long as it should, and nobody asks Redis more often.
"""

import asyncio
from pathlib import Path

import msgspec

from tests.chaos.f05_stolen_leases import until_disconnected
from tests.chaos.figures import submit
from tests.chaos.traffic import traffic
from tests.support.ledger import balance
from tests.support.redis_server import RedisServer
from tests.support.system import UNSHAPED, System, running_system
from tests.support.wall_clock import WallClock

HOUR_S = 3600
#: Workers' clocks are off by more than mail lives: one that was believed would expire all of it.
WORKERS_S = 3 * HOUR_S
#: Mail that is accepted before a worker has noticed a step of Redis' clock lives that much shorter.
EXPIRY = "2h"
#: A site whose rate binds: its sessions wait for moments of the store's clock.
SHAPING = (
    UNSHAPED
    + """
[provider.rated]
match = [{ domain_suffix = "rated.test" }]
message_rate = "20/s"
"""
)
#: What a receiver says that wants its mail later, and how late that may be.
LATER, LATER_S = "450 4.7.1 Try again in 600 seconds", 600 + 120
#: How much more often than before Redis may be asked while nothing happens.
CALLS_GROW, CALLS_SPARE = 2, 40


class Size(msgspec.Struct, frozen=True):
    """How often each clock is set forth and back, the pause after each, mail for the rated site."""

    rounds: int
    pause_s: float
    rated: int


SHORT = Size(rounds=1, pause_s=1.2, rated=20)
LONG = Size(rounds=5, pause_s=3, rated=600)


async def run(folder: Path, size: Size) -> str:
    """Set the clocks; the figures."""
    redis_clock, ahead, behind = (
        WallClock(folder / f"{name}.clock") for name in ("redis", "ahead", "behind")
    )
    redis = RedisServer(folder, inside=redis_clock.in_c())
    extra = {"RELAY_FILES_SHAPING": SHAPING, "RELAY_RETRY_EXPIRE_TRANSACTIONAL": EXPIRY}
    async with running_system(folder, workers=0, redis=redis, **extra) as system:
        # Celery's own wait at Redis lasts until pushed where the clock went back: it connects anew.
        system.expects("store.clock_set", "consumer: Connection to broker lost")
        for clock in (ahead, behind):
            system.start_worker(inside=clock.in_python())
        await system.until_leased()
        before = await calls(system, size.pause_s)
        system.sink.add_fault("later.test", "RCPT", "reply", reply=LATER, count=1)
        later = await system.submit(["ann@later.test"])
        await system.until(later, {"ann@later.test": "deferred"})
        await submit(system, [f"r{n}@rated.test" for n in range(size.rated)])
        async with traffic(system) as mail:
            for _ in range(size.rounds):
                ahead.put(WORKERS_S)
                behind.put(-WORKERS_S)
                await asyncio.sleep(size.pause_s)
                for to in (HOUR_S, 0, -HOUR_S, 0):
                    redis_clock.put(to)
                    await asyncio.sleep(size.pause_s)
                ahead.put(0)
                behind.put(0)
                await asyncio.sleep(size.pause_s)
        redis_clock.put(HOUR_S)
        ahead.put(WORKERS_S)
        behind.put(-WORKERS_S)
        await until_all_but_one_ended(system)
        await until_disconnected(system)
        after = await calls(system, size.pause_s)
        assert after <= CALLS_GROW * before + CALLS_SPARE, (before, after)

        (view,) = (await system.recipients(later)).values()
        assert (view.status, view.attempt) == ("deferred", 1)
        await system.shift_clock(LATER_S)
        await system.until_delivered(later)
        ledger = await balance(system)
        assert await system.events("worker.lost", "recipient.expired") == []
        assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
        assert ledger.accepted == len(ledger.ends) == len(mail.taken) + size.rated + 1
        assert set(ledger.copies) == set(ledger.ends) and not ledger.doubled
        assert (ledger.uncertain, ledger.duplicates) == (set(), set())
        assert not system.complaints()
    return (
        f"F14  {4 * size.rounds + 1} steps of an hour of Redis' clock, workers' off by hours, "
        f"under load: {ledger.accepted:,} messages delivered once each, nothing expired, uncertain "
        f"or retried early, no lease lost; calls of Redis at rest: {before} before, {after} after"
    )


async def until_all_but_one_ended(system: System) -> None:
    """Wait until only the deferred one is left."""
    async with asyncio.timeout(60):
        while True:
            states = (await system.store.counters())["states"]
            if not any(states.get(name) for name in ("staged", "ready", "claimed")):
                return
            await asyncio.sleep(0.1)


async def calls(system: System, for_s: float) -> int:
    """How many functions Redis was asked to run in a while in which nothing happens."""
    counts = []
    for _ in range(2):
        info = (await system.store.wire.call("INFO", "commandstats")).decode()
        line = next(line for line in info.splitlines() if line.startswith("cmdstat_fcall:"))
        counts.append(int(line.partition("calls=")[2].partition(",")[0]))
        await asyncio.sleep(for_s if len(counts) == 1 else 0)
    return counts[1] - counts[0]
