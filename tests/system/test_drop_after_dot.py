"""The receiver closes after the final dot without a reply: it may have the mail, or not.

`lose-reply@` keeps what it got, `drop-after-dot@` does not: from our side both look the same.
"""

import pytest

from tests.support.system import System
from tests.system.conftest import Start


@pytest.mark.parametrize(("keyword", "copies"), [("lose-reply", 2), ("drop-after-dot", 1)])
async def test_retry_sends_again_and_says_that_it_may_be_twice(
    system: System, keyword: str, copies: int
) -> None:
    address = f"{keyword}+1@shop.test"
    receipt = await system.submit([address])
    await system.until_delivered(receipt)

    (uncertain,) = await system.events("recipient.uncertain")
    assert (uncertain.data["address"], uncertain.data["policy"]) == (address, "retry")
    assert (await system.recipients(receipt))[address].attempt == 2
    assert system.sink.counts() == {address: copies}
    assert system.sink.status()["counters"]["duplicates"] == copies - 1


async def test_every_recipient_of_the_transaction_is_uncertain(system: System) -> None:
    addresses = ["lose-reply+1@shop.test", "ann@shop.test", "bob@shop.test"]
    receipt = await system.submit(addresses)
    await system.until_delivered(receipt)
    uncertain = await system.events("recipient.uncertain")
    assert {event.data["address"] for event in uncertain} == set(addresses)
    assert system.sink.counts() == dict.fromkeys(addresses, 2)


async def test_refused_recipient_of_the_transaction_is_not_uncertain(system: System) -> None:
    receipt = await system.submit(["lose-reply+1@shop.test", "reject@shop.test"])
    await system.until(
        receipt, {"lose-reply+1@shop.test": "delivered", "reject@shop.test": "failed"}
    )
    (uncertain,) = await system.events("recipient.uncertain")
    assert uncertain.data["address"] == "lose-reply+1@shop.test"


async def test_hold_waits_for_an_operator(start: Start) -> None:
    system = await start(RELAY_WORKER_UNCERTAIN_TRANSACTIONAL="hold")
    address = "lose-reply+1@shop.test"
    receipt = await system.submit([address])
    views = await system.until(receipt, {address: "held"})
    assert views[address].reason == "uncertain"
    assert await system.event_counts(address) == {"recipient.uncertain": 1, "recipient.held": 1}
    assert system.sink.counts() == {address: 1}

    assert await system.store.release(receipt.id) == 1
    await system.until_delivered(receipt)
    assert system.sink.counts() == {address: 2}


async def test_assume_delivered_never_sends_twice(start: Start) -> None:
    system = await start(RELAY_WORKER_UNCERTAIN_TRANSACTIONAL="assume-delivered")
    address = "lose-reply@shop.test"
    receipt = await system.submit([address])
    await system.until_delivered(receipt)
    assert await system.event_counts(address) == {
        "recipient.uncertain": 1,
        "recipient.delivered": 1,
    }
    assert system.sink.counts() == {address: 1}


async def test_policy_follows_the_class_of_the_mail(start: Start) -> None:
    system = await start(RELAY_WORKER_UNCERTAIN_BULK="hold")
    bulk = await system.submit(
        ["lose-reply+1+bulk@shop.test"], headers=b"List-Unsubscribe: <mailto:u@example.org>\r\n"
    )
    other = await system.submit(["lose-reply+1+other@shop.test"])
    await system.until(bulk, {"lose-reply+1+bulk@shop.test": "held"})
    await system.until_delivered(other)
