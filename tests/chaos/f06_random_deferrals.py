"""F6: many workers, receivers that say "later" at random: each message arrives exactly once.

After python-slimta's test of ten queue managers on one store (100 messages, half of the
recipients refused at random).
"""

from collections import Counter
from pathlib import Path

import msgspec

from tests.chaos.figures import submit
from tests.support.ledger import balance, until_all_ended
from tests.support.system import UNSHAPED, running_system

DOMAINS = 50
#: How often a 4yz is given, by command.
SHARES = {"MAIL": 0.05, "RCPT": 0.5, "DATA": 0.05, "end-of-data": 0.1}


class Size(msgspec.Struct, frozen=True):
    """Workers and messages."""

    workers: int
    messages: int
    within_s: float


SHORT = Size(workers=3, messages=400, within_s=90)
LONG = Size(workers=10, messages=10_000, within_s=300)


async def run(folder: Path, size: Size) -> str:
    """Deliver through the deferrals, on a schedule of moments; the figures."""
    settings = {
        "RELAY_FILES_SHAPING": UNSHAPED,
        "RELAY_RETRY_TRANSACTIONAL": "200ms*",
        "RELAY_RETRY_FIRST_AFTER_RCPT": "200ms",
    }
    async with running_system(folder, workers=0, **settings) as system:
        for command, share in SHARES.items():
            system.sink.add_fault("*", command, "4xx", probability=share)
        for _ in range(size.workers):
            system.start_worker()
        addresses = [f"r{n}@number{n % DOMAINS}.test" for n in range(size.messages)]
        await submit(system, addresses)
        await until_all_ended(system, within_s=size.within_s)

        ledger = await balance(system)
        assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
        assert len(ledger.ends) == size.messages
        assert Counter(path for _, path in ledger.copies.elements()) == Counter(addresses)
        assert (ledger.uncertain, ledger.duplicates) == (set(), set())
        counters = await system.store.counters()
        assert counters["oldest"] is None and not any(counters["states"].values())
        deferred = len(await system.events("recipient.deferred"))
        assert deferred >= size.messages * SHARES["RCPT"] / 2
        assert not system.complaints()
        return (
            f"F6   {size.workers} workers, {size.messages:,} messages, {deferred:,} times 4yz: "
            f"{len(ledger.copies):,} arrived, each exactly once"
        )
