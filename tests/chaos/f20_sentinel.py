"""F20: kill -9 of Redis' master, again and again, while mail comes and goes; a replica takes over.

With `redis.replicas = 2`, all replicas, nothing that was answered 250 or 202 is lost, and each copy
too many is among those reported; with 1 the same holds as long as only dead masters are replaced.
With 0 what the last moment before a failover cost is counted.
"""

import asyncio
import random
import statistics
import time
from pathlib import Path

import msgspec

from tests.chaos.account import breaches, unreported
from tests.chaos.machine import GRACE_S
from tests.chaos.producers import Producers
from tests.support.ledger import Ledger, balance, until_all_ended
from tests.support.replica_set import ReplicaSet
from tests.support.system import UNSHAPED, running_system

#: How far replicas are behind when the master dies: on one machine it would be microseconds.
BEHIND_S = 0.2


class Size(msgspec.Struct, frozen=True):
    """Failovers with each of these settings, the mean pause before one, the seed of chance."""

    failovers: int
    settings: tuple[int, ...]
    pause_s: float = 1.0
    seed: int = 1


SHORT = Size(failovers=1, settings=(2,))
LONG = Size(failovers=8, settings=(2, 1, 0))


async def run(folder: Path, size: Size) -> str:
    """Fail over so often; the figures."""
    return "\n".join([await _with(folder / str(n), n, size) for n in size.settings])


async def _with(folder: Path, copies: int, size: Size) -> str:
    """The same with `redis.replicas` set to so many copies."""
    folder.mkdir()
    # Without min-replicas-to-write: what is not lost is due to relay's own waiting.
    replica_set = ReplicaSet(folder)
    chance, absences = random.Random(size.seed), []

    async def fail_over() -> None:
        for _ in range(size.failovers):
            await asyncio.sleep(size.pause_s * chance.uniform(0.5, 1.5))
            absences.append(await asyncio.to_thread(_fail_over, replica_set))

    async with running_system(
        folder,
        workers=2,
        redis=replica_set,
        RELAY_REDIS_REPLICAS=str(copies),
        RELAY_FILES_SHAPING=UNSHAPED,
    ) as system:
        smtp = await asyncio.to_thread(system.start_smtpd)
        producers = Producers(smtp, await asyncio.to_thread(system.start_http))
        await producers.run_while(fail_over())
        # What a connection took with it, hints and claims, is handed out again in time.
        await system.until_leased()
        await system.shift_clock(GRACE_S)
        await until_all_ended(system, within_s=60)
        ledger = await balance(system)
        faults = await breaches(system)
        assert not faults, faults
        is_safe = copies == 2 or (copies == 1 and replica_set.epoch == size.failovers)
    return _account(ledger, set(producers.taken), copies, is_safe, absences)


def _fail_over(replica_set: ReplicaSet) -> float:
    """Kill the master and wait until all is well again; how long there was none."""
    began = time.monotonic()
    port = replica_set.kill_master(behind_s=BEHIND_S)
    replica_set.until_replaced(port)
    absence = time.monotonic() - began
    replica_set.rejoin(port)
    replica_set.until_whole()
    return absence


def _account(
    ledger: Ledger, taken: set[str], copies: int, is_safe: bool, absences: list[float]
) -> str:
    arrived = {path for _, path in ledger.copies}
    lost = taken - arrived
    hidden = unreported(ledger)
    assert taken
    if is_safe:
        assert not lost, f"{len(lost)} lost: {sorted(lost)[:10]}"
        assert not hidden, f"{len(hidden)} unreported: {sorted(hidden)[:10]}"
    # What the store knows of ended once each, whatever it has forgotten.
    assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
    assert ledger.accepted == len(ledger.ends)
    return (
        f"F20  redis.replicas = {copies}: {len(absences)} kills -9 of the master, a new one after "
        f"{statistics.median(absences):.1f} s: {len(taken):,} messages taken, {len(lost)} lost, "
        f"{len(ledger.doubled)} arrived twice, {len(ledger.doubled) - len(hidden)} of them "
        f"reported ({len(ledger.uncertain)} as uncertain, {len(ledger.duplicates)} as duplicates)"
    )
