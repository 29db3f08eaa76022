"""Held mail stays until it is released, wherever it was when the word came."""

from tests.support.system import System
from tests.system.conftest import Start


async def test_ready_mail_is_held_and_released(start: Start) -> None:
    system = await start(workers=0)
    receipt = await system.submit(["ann@shop.test", "bob@shop.test"])
    assert await system.store.hold(f"{receipt.id}.1", "looks like spam", actor="eve") == 1
    system.start_worker()
    await system.until(receipt, {"ann@shop.test": "held", "bob@shop.test": "delivered"})
    (held,) = await system.events("recipient.held")
    assert (held.data["text"], held.data["actor"]) == ("looks like spam", "eve")
    queue = await system.queue("shop.test")
    assert (queue.held, queue.ready) == (1, 0)

    assert await system.store.release(receipt.id) == 1
    await system.until_delivered(receipt)
    assert system.sink.counts() == {"ann@shop.test": 1, "bob@shop.test": 1}
    assert len(await system.events("recipient.released")) == 1


async def test_mail_held_while_deferred_is_not_tried_when_due(system: System) -> None:
    receipt = await system.submit(["tempfail+1@shop.test", "tempfail+1+b@shop.test"])
    await system.until_event("recipient.deferred", 2)
    await system.store.hold(f"{receipt.id}.1")
    await system.until(
        receipt, {"tempfail+1@shop.test": "held", "tempfail+1+b@shop.test": "delivered"}
    )
    await system.store.release(receipt.id)
    await system.until_delivered(receipt)


async def test_mail_held_while_claimed_is_held_if_the_attempt_does_not_end_it(
    system: System,
) -> None:
    system.sink.add_fault("shop.test", "MAIL", "delay", delay="1s", count=1)
    receipt = await system.submit(["tempfail+1@shop.test", "ann@shop.test"])
    await system.until(receipt, {"ann@shop.test": "claimed"})
    assert await system.store.hold(receipt.id) == 2
    await system.until(receipt, {"tempfail+1@shop.test": "held", "ann@shop.test": "delivered"})
