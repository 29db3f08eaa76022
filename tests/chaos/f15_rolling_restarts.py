"""F15: workers are told to stop, one after another, while mail comes and goes.

Each finishes what is on the wire, gives back the rest and ends by itself; nothing is lost, nothing
arrives twice, and nothing is so much as uncertain.
"""

import asyncio
import time
from pathlib import Path

import msgspec

from tests.chaos.traffic import traffic
from tests.support import processes
from tests.support.ledger import balance, until_all_ended
from tests.support.system import UNSHAPED, running_system

WORKERS = 2
#: `up.drain`, and what a process may take beside it.
DRAIN_S, MARGIN_S = 30, 30


class Size(msgspec.Struct, frozen=True):
    """Restarts, and the pause between two."""

    restarts: int
    pause_s: float


SHORT = Size(restarts=2, pause_s=0.2)
LONG = Size(restarts=20, pause_s=2)


async def run(folder: Path, size: Size) -> str:
    """Restart so often under traffic; the figures."""
    extra = {"RELAY_FILES_SHAPING": UNSHAPED, "RELAY_UP_DRAIN": f"{DRAIN_S}s"}
    drains: list[float] = []
    async with running_system(folder, workers=WORKERS, **extra) as system:
        await system.until_leased()
        async with traffic(system) as mail:
            for _ in range(size.restarts):
                system.start_worker()
                await system.until_leased()
                await asyncio.sleep(size.pause_s)
                oldest, began = system.workers.pop(0), time.monotonic()
                within_s = DRAIN_S + MARGIN_S
                assert await asyncio.to_thread(processes.stop, oldest, within_s=within_s) == 0
                drains.append(time.monotonic() - began)
        await until_all_ended(system, within_s=60)
        ledger = await balance(system)
        mail.check(ledger)
        assert not ledger.doubled
        assert (
            await system.events("recipient.uncertain", "recipient.duplicate", "worker.lost") == []
        )
        assert not system.complaints()
    return (
        f"F15  {size.restarts} workers told to stop under traffic, {len(mail.taken):,} messages: "
        f"0 lost, 0 twice, 0 uncertain; the slowest ended after {max(drains):.1f} s"
    )
