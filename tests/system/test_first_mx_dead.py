"""The best MX host refuses connections: the next one gets the mail in the same attempt."""

from tests.support.system import System


async def test_second_host_takes_the_mail_in_the_same_attempt(system: System) -> None:
    receipt = await system.submit(["ann@firstdead.test", "bob@firstdead.test"])
    await system.until_delivered(receipt)

    (seen,) = system.sink.receipts(domain="firstdead.test")
    assert seen.host == "mx2.firstdead.test"
    views = (await system.recipients(receipt)).values()
    assert {(view.attempt, view.step) for view in views} == {(1, 0)}
    delivered = await system.events("recipient.delivered")
    assert {event.data["remote"]["host"] for event in delivered} == {"mx2.firstdead.test"}
    assert await system.events("recipient.deferred", "site.suspended") == []


async def test_host_that_greets_with_a_refusal_gives_way_to_the_next(system: System) -> None:
    system.sink.add_fault("mx1.shop.test", "greeting", "5xx")
    receipt = await system.submit(["ann@shop.test"])
    await system.until_delivered(receipt)
    (seen,) = system.sink.receipts()
    assert seen.host == "mx2.shop.test"
    assert (await system.recipients(receipt))["ann@shop.test"].attempt == 1
