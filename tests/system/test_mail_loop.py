"""Mail never goes to ourselves: told by the name of the host, at the latest by the hops it made."""

import pytest

from tests.support.ports import free_port
from tests.system.conftest import Start

BY_ITSELF = """
[[routes]]
domain = "*"
name = "out"
smarthost = "smtp://127.0.0.1:{port}"
"""
BY_ONE_OF_OUR_NAME = """
[[routes]]
domain = ".partner.test"
name = "out"
smarthost = "smtp://plain.out.test:{smtp_port}"
"""


@pytest.mark.client_row("C10")
async def test_mx_host_that_gives_our_own_name_is_a_loop_and_fails(start: Start) -> None:
    system = await start(RELAY_DELIVERY_HOSTNAME="MX1.shop.test")
    system.expects("session.loop")
    receipt = await system.submit(
        ["ann@shop.test", "bob@shop.test"], ingress="smtp", sender="me@home.test"
    )
    await system.until(receipt, {"ann@shop.test": "failed", "bob@shop.test": "failed"})

    failed = await system.events("recipient.failed")
    assert {event.data["reason"] for event in failed} == {"routing_loop"}
    assert all("loops back to myself: mx1.shop.test" in event.data["text"] for event in failed)
    (seen,) = system.sink.receipts(recipient="me@home.test", at_least=1)
    assert b"Status: 5.4.6" in system.sink.content(seen.number)
    # Nothing was said to the host but EHLO, and the host after it was not asked.
    assert system.sink.receipts(accepted=None, domain="shop.test") == []
    assert system.sink.hosts()["mx1.shop.test"]["use"]["sessions"] == 1
    assert not system.sink.hosts().get("mx2.shop.test", {}).get("use")


async def test_backup_that_meets_itself_waits_for_the_primary(start: Start) -> None:
    system = await start(RELAY_DELIVERY_HOSTNAME="mx2.shop.test")
    system.expects("session.loop", "site.breaker")
    system.sink.add_fault("mx1.shop.test", "connect", "refuse")
    receipt = await system.submit(["ann@shop.test"])
    await system.until_waiting(receipt, "ann@shop.test", "connect_failed")
    assert await system.events("recipient.failed") == []

    system.sink.clear_faults("mx1.shop.test")
    await system.shift_clock(16)
    await system.until_delivered(receipt)
    (seen,) = system.sink.receipts()
    assert seen.host == "mx1.shop.test"


async def test_smarthost_with_our_own_name_pauses_and_never_bounces(start: Start) -> None:
    system = await start(RELAY_DELIVERY_HOSTNAME="plain.out.test", RELAY_CONFIG=BY_ONE_OF_OUR_NAME)
    system.expects("session.loop", "site.breaker")
    receipt = await system.submit(["ann@a.partner.test"])
    waiting = await system.until_waiting(receipt, "ann@a.partner.test", "routing_loop")
    assert "plain.out.test calls itself plain.out.test, as we do" in waiting.text
    assert system.sink.receipts(accepted=None) == []


async def test_mail_that_circles_unseen_ends_by_its_hops(start: Start) -> None:
    """We are our own smarthost under a port that the worker does not know of as ours."""
    port = free_port()
    system = await start(RELAY_CONFIG=BY_ITSELF.replace("{port}", str(port)))
    system.expects("message.refused")
    system.start_smtpd(port)
    await system.submit(["ann@shop.test"], ingress="smtp", sender="me@home.test")
    (failed, _) = await system.until_event("recipient.failed", 2)
    assert failed.data["address"] == "ann@shop.test"
    assert failed.data["reason"] == "routing_loop"
    assert failed.data["reply"]["code"] == 554
    assert failed.data["reply"]["enhanced"] == "5.4.6"
    # The report circles, too, and nobody is told of that; no hop was lost or taken twice.
    assert await system.event_counts() == {
        "message.accepted": 50 + 51,
        "recipient.delivered": 49 + 50,
        "recipient.failed": 2,
    }
    assert not any((await system.store.counters())["states"].values())
    assert system.sink.receipts(accepted=None) == []
