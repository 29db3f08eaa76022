"""A connection is closed after so many messages and opened anew: by our rule, or the receiver's."""

from collections import Counter

import pytest

from tests.support.system import UNSHAPED
from tests.system.conftest import Start


async def test_our_limit_opens_a_new_connection(start: Start) -> None:
    shaping = UNSHAPED.replace("mails_per_connection = 1000", "mails_per_connection = 3")
    system = await start(workers=0, RELAY_FILES_SHAPING=shaping)
    receipts = [await system.submit([f"reader{n}@shop.test"]) for n in range(10)]
    system.start_worker()
    await system.until_delivered(*receipts)

    mails = Counter(one.session for one in system.sink.receipts())
    assert sorted(mails.values()) == [1, 3, 3, 3]
    assert await system.events("recipient.deferred") == []


@pytest.mark.parametrize("domain", ["mails3.test", "nopipelining.mails3.test"])
@pytest.mark.client_row("C92")
async def test_receivers_limit_costs_no_attempt(start: Start, domain: str) -> None:
    system = await start(workers=0, RELAY_FILES_SHAPING=UNSHAPED)
    addresses = [f"reader{n}@{domain}" for n in range(10)]
    receipts = [await system.submit([address]) for address in addresses]
    system.start_worker()
    await system.until_delivered(*receipts)

    seen = system.sink.receipts()
    assert max(Counter(one.session for one in seen).values()) == 3
    assert {one.host for one in seen} == {f"mx1.{domain}"}
    assert system.sink.counts() == dict.fromkeys(addresses, 1)
    views = [view for one in receipts for view in (await system.recipients(one)).values()]
    assert {(view.attempt, view.step) for view in views} == {(1, 0)}
    assert await system.events("recipient.deferred", "recipient.uncertain") == []
