"""DNS in trouble: mail waits, ready and at no cost, says why, and goes when DNS is back."""

from tests.system.conftest import Start


async def test_mail_waits_for_dns_without_a_step_and_goes_when_it_is_back(start: Start) -> None:
    system = await start(RELAY_DNS_NEGATIVE_TTL="100ms", RELAY_DNS_MIN_TTL="100ms")
    system.sink.set_dns("shop.test", "MX", code="SERVFAIL")
    receipt = await system.submit(["ann@shop.test", "bob@fine.test"])
    await system.until(receipt, {"bob@fine.test": "delivered"})
    waiting = await system.until_waiting(receipt, "ann@shop.test", "dns_unavailable")
    assert waiting.until is not None

    system.sink.clear_dns()
    await system.shift_clock(60)
    await system.until_delivered(receipt)
    view = (await system.recipients(receipt))["ann@shop.test"]
    assert (view.attempt, view.step) == (1, 0)
    assert await system.event_counts("ann@shop.test") == {"recipient.delivered": 1}
    assert system.sink.counts() == {"ann@shop.test": 1, "bob@fine.test": 1}
