"""What must be true of everything that the doors took, whatever broke meanwhile."""

import asyncio

from relay.store.audit import audit
from tests.chaos.machine import GRACE_S, Machine
from tests.chaos.producers import Producers
from tests.support.ledger import Ledger, balance, until_all_ended
from tests.support.system import System


async def until_settled(machine: Machine) -> None:
    """Let the leases of the dead run out, and all mail come to its end."""
    system = machine.system
    machine.end_supervisor()
    await system.until_leased()
    await _until_restart_known(system)
    # After a restart of Redis nothing is taken back before that.
    await system.shift_clock(GRACE_S)
    await until_all_ended(system, within_s=150)


async def _until_restart_known(system: System) -> None:
    """Wait until a worker has noted which run of Redis this is: what was shifted before is in vain.

    That is when the time begins in which nothing is taken back.
    """
    wire = system.store.wire
    async with asyncio.timeout(30):
        while True:
            run = await wire.call("HGET", f"{system.store.p}meta", "run_id")
            if run and b"run_id:" + run in await wire.call("INFO", "server"):
                return
            await asyncio.sleep(0.1)


async def account(system: System, producers: Producers) -> Ledger:
    """Nothing taken is lost, each ended once, and each copy too many is among those reported."""
    ledger = await balance(system)
    assert producers.taken
    assert not producers.refused, producers.refused[:10]
    lost = set(producers.taken) - {path for _, path in ledger.copies}
    assert not lost, f"{len(lost)} lost: {sorted(lost)[:10]}"
    hidden = unreported(ledger)
    assert not hidden, f"{len(hidden)} unreported: {sorted(hidden)[:10]}"
    assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
    assert ledger.accepted == len(ledger.ends)
    assert not await breaches(system)
    return ledger


async def breaches(system: System) -> set[str]:
    """What is wrong in the store, twice in a row: it is at work."""
    first = set(await audit(system.store))
    if not first:
        return first
    await asyncio.sleep(1)
    return first & set(await audit(system.store))


def unreported(ledger: Ledger) -> set[str]:
    """Addresses that got more than one copy of a message, and no event says that they might.

    By address: what came by HTTP has a Message-ID that is not made of its queue-id.
    """
    reported = {path for _, path in ledger.uncertain | ledger.duplicates}
    return {path for _, path in ledger.doubled} - reported


def figures(producers: Producers, ledger: Ledger) -> str:
    """What it came to."""
    return (
        f"{len(producers.taken):,} messages taken, 0 lost, {len(ledger.doubled)} arrived twice, "
        f"all of them among the {len(ledger.uncertain | ledger.duplicates)} reported"
    )
