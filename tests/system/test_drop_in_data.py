"""The receiver closes in the middle of the content: nothing was delivered, nothing is uncertain.

The content is larger than what the sockets hold: the final dot cannot have left.
"""

from tests.support.system import System

LARGE = "\r\n".join(["x" * 900] * 9000)


async def test_other_host_takes_the_mail_in_the_same_attempt(system: System) -> None:
    address = "drop-in-data+1@shop.test"
    receipt = await system.submit([address, "ann@shop.test"], text=LARGE)
    await system.until_delivered(receipt)

    (seen,) = system.sink.receipts(accepted=None)
    assert seen.host == "mx2.shop.test"
    assert set(seen.forward_paths) == {address, "ann@shop.test"}
    views = (await system.recipients(receipt)).values()
    assert {(view.attempt, view.step) for view in views} == {(1, 0)}
    assert set(await system.event_counts()) == {"message.accepted", "recipient.delivered"}


async def test_mail_that_every_host_drops_is_deferred_and_tried_again(system: System) -> None:
    address = "drop-in-data+2@shop.test"
    receipt = await system.submit([address], text=LARGE)
    await system.until_delivered(receipt)

    (deferred,) = await system.events("recipient.deferred")
    assert deferred.data["reason"] == "connection_lost"
    assert deferred.data["scope"] == "connection"
    assert (await system.recipients(receipt))[address].attempt == 2
    assert await system.events("recipient.uncertain") == []
    assert system.sink.counts() == {address: 1}


async def test_content_that_left_whole_with_its_dot_is_uncertain(system: System) -> None:
    receipt = await system.submit(["drop-in-data+1@shop.test"])
    await system.until_delivered(receipt)
    assert len(await system.events("recipient.uncertain")) == 1
