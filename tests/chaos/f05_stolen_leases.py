"""F5: leases stolen from workers whose transactions are at DATA: exactly one dot each.

One holder is paused, as a virtual machine is, the other is cut off from Redis. A third worker takes
their mail over. The servers have answered 354 by the time that the two come back.
"""

import asyncio
import signal
import time
from pathlib import Path

import msgspec

from tests.chaos.figures import submit
from tests.support.ledger import balance, until_all_ended
from tests.support.lossy_proxy import lossy_proxy
from tests.support.system import UNSHAPED, WAIT_S, System, running_system
from tests.system.test_redis_restarted import ABSENCE

#: The thieves' own connections go by then.
IDLE = "500ms"


class Size(msgspec.Struct, frozen=True):
    """Transactions at DATA, the lease, how long the servers take to answer DATA."""

    messages: int
    lease_s: float
    answer_s: float


SHORT = Size(messages=100, lease_s=2, answer_s=4)
LONG = Size(messages=800, lease_s=15, answer_s=25)


async def run(folder: Path, size: Size) -> str:
    """Steal from both, and let them come back; the figures."""
    extra = {
        "RELAY_FILES_SHAPING": UNSHAPED,
        "RELAY_WORKER_LEASE": f"{size.lease_s:g}s",
        "RELAY_WORKER_IDLE_SESSION": IDLE,
        "RELAY_WORKER_MAX_SESSIONS": str(2 * size.messages),
    }
    way = folder / "cut.sock"
    async with running_system(folder, workers=0, **extra) as system:
        system.expects(*ABSENCE, "lease.")
        async with lossy_proxy(way, system.redis.socket) as proxy:
            slow = system.sink.add_fault("*", "DATA", "delay", delay=f"{size.answer_s:g}s")
            half = size.messages // 2
            paused = system.start_worker()
            await at_data(system, "paused", half)
            paused.send_signal(signal.SIGSTOP)
            cut = system.start_worker(RELAY_REDIS_URL=f"unix://{way}")
            await at_data(system, "cut", size.messages - half)
            proxy.cut()
            answered_at = time.monotonic() + size.answer_s
            system.sink.remove_fault(slow.id)

            thief = system.start_worker()
            await until_all_ended(system, within_s=120)
            await asyncio.sleep(answered_at - time.monotonic())
            paused.send_signal(signal.SIGCONT)
            proxy.mend()
            await until_disconnected(system)
            ledger = await balance(system)
            assert len(await system.events("worker.lost")) == 2

            # Both are of use again.
            assert await asyncio.to_thread(system.stop_worker, thief) == 0
            await system.until_delivered(*[await system.submit([f"x@{n}.test"]) for n in range(9)])
            assert (paused.poll(), cut.poll()) == (None, None)
    assert len(ledger.copies) == len(ledger.ends) == ledger.accepted == size.messages
    assert not ledger.doubled, f"{len(ledger.doubled)} of {size.messages} got two dots"
    assert (ledger.uncertain, ledger.duplicates) == (set(), set())
    assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
    return (
        f"F5   {size.messages} transactions at DATA, their leases stolen from a paused worker and "
        f"from one cut off from Redis: {ledger.copies.total()} dots, one each, nothing uncertain"
    )


async def at_data(system: System, name: str, count: int) -> None:
    """Submit, and wait until so many more servers were told DATA."""
    before = fired(system)
    await submit(system, [f"r@{name}{number}.onemx.test" for number in range(count)])
    async with asyncio.timeout(WAIT_S):
        while await asyncio.to_thread(fired, system) < before + count:
            await asyncio.sleep(0.02)


def fired(system: System) -> int:
    """How often a server was told DATA and did not answer yet."""
    return sum(fault.fired for fault in system.sink.faults())


async def until_disconnected(system: System) -> None:
    """Wait until nobody has a connection to the simulated internet."""
    async with asyncio.timeout(WAIT_S):
        while (await asyncio.to_thread(system.sink.status))["connections"]:
            await asyncio.sleep(0.1)
