"""Suspended queues stand still, those that come into being later too; resumed ones go on."""

from relay.store.views import QueueMatch
from tests.support.system import System


async def test_suspended_domain_waits_while_others_are_served(system: System) -> None:
    await system.store.suspend(
        QueueMatch(destination="shop.test"), reason="blocklisted", duration_s=3600
    )
    waiting = await system.submit(["ann@shop.test"])
    other = await system.submit(["ann@elsewhere.test"])
    await system.until_delivered(other)

    view = (await system.recipients(waiting))["ann@shop.test"]
    assert (view.status, view.attempt, view.step) == ("ready", 0, 0)
    assert view.waiting is not None
    assert (view.waiting.kind, view.waiting.text) == ("suspended", "suspended: blocklisted")
    assert system.sink.receipts(domain="shop.test", accepted=None) == []

    assert await system.store.resume(QueueMatch(destination="shop.test")) == 1
    await system.until_delivered(waiting)
    view = (await system.recipients(waiting))["ann@shop.test"]
    assert (view.attempt, view.step) == (1, 0)
    assert system.sink.counts() == {"ann@shop.test": 1, "ann@elsewhere.test": 1}


async def test_suspension_covers_queues_that_come_later_and_ends_by_itself(
    system: System,
) -> None:
    first = await system.submit(["tempfail+1@shop.test"])
    await system.until_event("recipient.deferred")
    suspension = await system.store.suspend(
        QueueMatch(tenant="default"), reason="holidays", duration_s=3600
    )
    assert suspension.queues == 1
    later = await system.submit(["ann@elsewhere.test"])
    foreign = await system.submit(["ann@shop.test"], tenant="other")
    await system.until_delivered(foreign)

    queue = await system.queue("elsewhere.test")
    assert queue.suspended is not None
    assert (queue.ready, queue.claimed) == (1, 0)

    await system.shift_clock(3601)
    await system.until_delivered(first, later)
    assert system.sink.counts() == {
        "tempfail+1@shop.test": 1,
        "ann@elsewhere.test": 1,
        "ann@shop.test": 1,
    }


async def test_deferred_mail_that_becomes_due_while_suspended_waits(system: System) -> None:
    receipt = await system.submit(["tempfail+1@shop.test"])
    await system.until_event("recipient.deferred")
    await system.store.suspend(QueueMatch(), reason="everything", duration_s=3600)
    await system.until(receipt, {"tempfail+1@shop.test": "ready"})
    assert system.sink.counts() == {}
    await system.store.resume(QueueMatch())
    await system.until_delivered(receipt)
