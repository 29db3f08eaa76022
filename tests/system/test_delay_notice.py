"""Mail that is late: its sender is told once, and it goes on being tried."""

from tests.system.conftest import Start

HOUR = 3600.0


async def test_sender_by_smtp_is_told_once_that_his_mail_is_late(start: Start) -> None:
    system = await start(RELAY_RETRY_TRANSACTIONAL="1h*", RELAY_RETRY_FIRST_AFTER_RCPT="1h")
    address = "tempfail+2@shop.test"
    receipt = await system.submit([address, "ann@shop.test"], ingress="smtp", sender="me@home.test")
    await system.until(receipt, {address: "deferred", "ann@shop.test": "delivered"})
    await system.shift_clock(4 * HOUR + 1)

    (delayed,) = await system.until_event("recipient.delayed")
    assert delayed.data["address"] == address
    (seen,) = system.sink.receipts(recipient="me@home.test", at_least=1)
    assert seen.reverse_path == ""
    content = system.sink.content(seen.number)
    assert b"Action: delayed" in content
    assert address.encode() in content
    assert b"ann@shop.test" not in content

    await system.until_event("recipient.deferred", 2)
    await system.shift_clock(4 * HOUR + 1)
    await system.until_delivered(receipt)
    assert len(await system.events("recipient.delayed")) == 1
    assert system.sink.counts() == {address: 1, "ann@shop.test": 1, "me@home.test": 1}


async def test_other_doors_get_no_notice(start: Start) -> None:
    system = await start(RELAY_RETRY_TRANSACTIONAL="1h*", RELAY_RETRY_FIRST_AFTER_RCPT="1h")
    receipt = await system.submit(["tempfail+1@shop.test"], sender="me@home.test")
    await system.until(receipt, {"tempfail+1@shop.test": "deferred"})
    await system.shift_clock(4 * HOUR + 1)
    await system.until_delivered(receipt)
    assert system.sink.counts() == {"tempfail+1@shop.test": 1}
