"""10,000 messages to 200 domains: each recipient is accounted for on both sides."""

import asyncio

from relay.store.views import QueueMatch
from tests.support.ledger import balance, submit_all, until_all_ended
from tests.support.system import UNSHAPED
from tests.system.conftest import Start

MESSAGES = 10_000
DOMAINS = 200


def address(number: int) -> str:
    """Most are ordinary; one in 50 is refused, one in 25 is deferred once."""
    keyword = {0: "reject", 1: "tempfail+1", 2: "tempfail+1"}.get(number % 49, "reader")
    return f"{keyword}+r{number}@domain{number % DOMAINS}.test"


async def test_each_of_ten_thousand_recipients_is_accounted_for(start: Start) -> None:
    system = await start(workers=2, RELAY_FILES_SHAPING=UNSHAPED)
    drafts = (system.draft([address(number)]) for number in range(MESSAGES))
    submissions = [system.submitter.prepare(draft).submission for draft in drafts]
    await submit_all(system, submissions)
    await until_all_ended(system, within_s=60)

    ledger = await balance(system)
    assert ledger.accepted == MESSAGES
    expected = {
        (item.queue_id, str(item.forward_paths[0])): [
            "failed" if str(item.forward_paths[0]).startswith("reject") else "delivered"
        ]
        for item in submissions
    }
    assert ledger.ends == expected
    delivered = {name for name, ends in expected.items() if ends == ["delivered"]}
    assert set(ledger.copies) == delivered
    assert (ledger.doubled, ledger.uncertain, ledger.duplicates) == (set(), set(), set())
    assert len({seen.host for seen in system.sink.receipts(limit=MESSAGES)}) == DOMAINS
    counters = await system.store.counters()
    assert counters["oldest"] is None
    assert await system.store.queues(QueueMatch()) == []
    # Busy ones outlive a moment of emptiness, no more.
    async with asyncio.timeout(30):
        while (await system.store.counters())["queues"]:
            await asyncio.sleep(0.1)
