"""A receiver takes only some recipients at once: the rest go in the next transaction, at once."""

import pytest

from tests.support.system import System
from tests.system.conftest import Start


@pytest.mark.client_row("C71")
async def test_recipients_over_the_receivers_limit_go_at_once_in_further_transactions(
    system: System,
) -> None:
    addresses = [f"reader{n}@rcpts10.test" for n in range(25)]
    receipt = await system.submit(addresses)
    await system.until_delivered(receipt)

    seen = system.sink.receipts()
    assert [len(one.forward_paths) for one in seen] == [10, 10, 5]
    assert len({one.session for one in seen}) == 1
    assert {refusal.reply for one in seen for refusal in one.refused} == {
        "452 4.5.3 Too many recipients"
    }
    views = (await system.recipients(receipt)).values()
    assert {(view.attempt, view.step) for view in views} == {(1, 0)}
    assert set(await system.event_counts()) == {"message.accepted", "recipient.delivered"}


@pytest.mark.parametrize("code", ["452 4.5.3", "552 5.5.3"])
@pytest.mark.client_row("C72")
async def test_first_recipient_refused_as_one_too_many_is_deferred_not_looped(
    system: System, code: str
) -> None:
    system.sink.add_fault(
        "shop.test", "RCPT", "reply", reply=f"{code} Too many recipients", count=2
    )
    receipt = await system.submit(["ann@shop.test", "bob@shop.test"])
    await system.until_delivered(receipt)
    assert len(await system.events("recipient.deferred")) == 1
    assert system.sink.counts() == {"ann@shop.test": 1, "bob@shop.test": 1}


async def test_our_own_limit_splits_before_the_receiver_must(start: Start) -> None:
    system = await start(RELAY_FILES_SHAPING='["default"]\nrecipients_per_transaction = 4\n')
    receipt = await system.submit([f"reader{n}@shop.test" for n in range(10)])
    await system.until_delivered(receipt)
    assert [len(one.forward_paths) for one in system.sink.receipts()] == [4, 4, 2]
