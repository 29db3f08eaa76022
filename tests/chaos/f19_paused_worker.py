"""F19: a worker stands still, as in a virtual machine that is paused, and goes on, under load.

What it held is others' when it comes back. It may have a dot on its way at either moment: nothing
is lost, and whoever got two copies is among those reported.
"""

import asyncio
import signal
from pathlib import Path

import msgspec

from tests.chaos.traffic import DOMAINS, traffic
from tests.support.ledger import balance, until_all_ended
from tests.support.system import UNSHAPED, running_system

WORKERS = 2
#: Less than one worker needs for all domains: both are at work.
SESSIONS = DOMAINS * 6 // 10


class Size(msgspec.Struct, frozen=True):
    """Pauses (each worker in turn), how long each is, the lease."""

    pauses: int
    pause_s: float
    lease_s: float


SHORT = Size(pauses=1, pause_s=2.5, lease_s=1.5)
LONG = Size(pauses=2, pause_s=60, lease_s=15)


async def run(folder: Path, size: Size) -> str:
    """Pause so often; the figures."""
    extra = {
        "RELAY_FILES_SHAPING": UNSHAPED,
        "RELAY_WORKER_LEASE": f"{size.lease_s:g}s",
        "RELAY_WORKER_MAX_SESSIONS": str(SESSIONS),
    }
    async with running_system(folder, workers=WORKERS, **extra) as system:
        system.expects("lease.")
        await system.until_leased()
        async with traffic(system) as mail:
            for number in range(size.pauses):
                await asyncio.sleep(1)
                worker = system.workers[number % WORKERS]
                worker.send_signal(signal.SIGSTOP)
                await asyncio.sleep(size.pause_s)
                await system.until_event("worker.lost", number + 1)
                worker.send_signal(signal.SIGCONT)
                await system.until_leased()
            await asyncio.sleep(1)
        await until_all_ended(system, within_s=60)
        assert [worker.poll() for worker in system.workers] == [None] * WORKERS
        # Late outcomes are told by now: they were settled before the worker's end.
        for worker in system.workers:
            assert await asyncio.to_thread(system.stop_worker, worker) == 0
        ledger = await balance(system)
        mail.check(ledger)
        assert not system.complaints()
    return (
        f"F19  {size.pauses} times a worker stood still for {size.pause_s:g} s under load, lease "
        f"{size.lease_s:g} s: {len(mail.taken):,} messages, 0 lost, {len(ledger.doubled)} twice, "
        f"all reported ({len(ledger.uncertain)} as uncertain, {len(ledger.duplicates)} as "
        f"duplicates)"
    )
