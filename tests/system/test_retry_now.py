"""Deferred mail is tried at once when an operator says so."""

import pytest

from relay.model.errors import StateConflict
from relay.store.views import QueueMatch
from tests.system.conftest import Start

SLOW = {"RELAY_RETRY_TRANSACTIONAL": "2h*", "RELAY_RETRY_FIRST_AFTER_RCPT": "2h"}


async def test_flush_tries_all_deferred_mail_of_the_queues(start: Start) -> None:
    system = await start(**SLOW)
    addresses = [f"tempfail+1+r{n}@shop.test" for n in range(5)]
    receipts = [await system.submit([address]) for address in addresses]
    other = await system.submit(["tempfail+1@elsewhere.test"])
    await system.until_event("recipient.deferred", 6)

    assert await system.store.flush(QueueMatch(destination="shop.test")) == 5
    await system.until_delivered(*receipts)
    assert system.sink.counts() == dict.fromkeys(addresses, 1)
    assert (await system.recipients(other))["tempfail+1@elsewhere.test"].status == "deferred"


async def test_retry_tries_one_recipient_and_keeps_the_schedule_of_the_others(
    start: Start,
) -> None:
    system = await start(**SLOW)
    receipt = await system.submit(["tempfail+1+a@shop.test", "tempfail+1+b@shop.test"])
    await system.until_event("recipient.deferred", 2)
    views = await system.recipients(receipt)
    assert await system.store.retry(views["tempfail+1+a@shop.test"].id) == 1
    await system.until(
        receipt, {"tempfail+1+a@shop.test": "delivered", "tempfail+1+b@shop.test": "deferred"}
    )
    with pytest.raises(StateConflict, match="delivered"):
        await system.store.retry(views["tempfail+1+a@shop.test"].id)
