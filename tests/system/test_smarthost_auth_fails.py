"""A smarthost that refuses our login: the route pauses, no mail is bounced, none is lost."""

from tests.support.system import System
from tests.system.conftest import Start
from tests.system.test_smarthost_with_auth import BY_STARTTLS


async def paused(system: System, addresses: list[str]) -> list[str]:
    """Submit one message each; wait until the route is paused; the queue-ids."""
    receipts = [await system.submit([address]) for address in addresses]
    await system.until_event("route.paused")
    for receipt in receipts:
        address = receipt.recipients[0].address
        waiting = await system.until_waiting(receipt, address, "authentication_failed")
        assert "535" in waiting.text
    return [receipt.id for receipt in receipts]


async def test_refused_login_pauses_the_route_until_it_is_mended(start: Start) -> None:
    system = await start(workers=0, RELAY_CONFIG=BY_STARTTLS)
    system.expects("site.breaker")
    system.sink.set_credentials("relay", "changed")
    system.start_worker()
    addresses = [f"ann@domain{n}.test" for n in range(5)]
    ids = await paused(system, addresses)
    assert system.sink.receipts(accepted=None) == []
    assert set(await system.event_counts()) == {"message.accepted", "route.paused"}

    system.sink.set_credentials("relay", "secret")
    await system.shift_clock(16)
    for queue_id in ids:
        await system.until_view(
            queue_id, lambda views: {view.status for view in views.values()} == {"delivered"}
        )
    (resumed,) = await system.until_event("route.resumed")
    (paused_event,) = await system.events("route.paused")
    assert resumed.data == {**paused_event.data, "reason": "", "text": "", "until": None}
    assert resumed.data["site"].startswith(f"{resumed.data['host']}:")
    assert resumed.data["account"] and not resumed.data["source"]
    assert system.sink.counts() == dict.fromkeys(addresses, 1)
    assert await system.events("recipient.failed", "recipient.deferred") == []


async def test_paused_route_does_not_hold_direct_mail_back(start: Start) -> None:
    system = await start(
        workers=0, RELAY_CONFIG=BY_STARTTLS.replace('domain = "*"', 'domain = ".partner.test"')
    )
    system.expects("site.breaker")
    system.sink.set_credentials("relay", "changed")
    system.start_worker()
    await paused(system, ["ann@a.partner.test"])
    direct = await system.submit(["ann@shop.test"])
    await system.until_delivered(direct)
