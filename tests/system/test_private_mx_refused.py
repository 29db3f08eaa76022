"""Live mail is not led to this machine or the network behind it by a stranger's DNS."""

import pytest

from tests.system.conftest import Start

#: A live worker that asks the simulated DNS: every MX host there has a loopback address.
LIVE = {
    "RELAY_DELIVERY_MODE": "live",
    "RELAY_DNS_NAMESERVERS": "{dns}",
    "RELAY_DELIVERY_SMTP_PORT": "{smtp_port}",
}


async def test_live_mail_to_a_loopback_mx_fails_without_a_connection(start: Start) -> None:
    system = await start(**LIVE)
    receipt = await system.submit(["ann@shop.test"])
    await system.until(receipt, {"ann@shop.test": "failed"})
    (failed,) = await system.events("recipient.failed")
    assert failed.data["reason"] == "no_usable_host"
    assert "shop.test has the address 127." in failed.data["text"]
    assert "is loopback (delivery.allow_private is off)" in failed.data["text"]
    assert not any(host["use"] for host in system.sink.hosts().values())


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "192.168.1.1", "100.64.0.1"])
async def test_live_mail_to_a_private_mx_fails(start: Start, address: str) -> None:
    system = await start(workers=0, **LIVE)
    system.sink.set_dns("shop.test", "MX", "10 inside.shop.test.")
    system.sink.set_dns("inside.shop.test", "A", address)
    system.start_worker()
    receipt = await system.submit(["ann@shop.test"])
    await system.until(receipt, {"ann@shop.test": "failed"})
    (failed,) = await system.events("recipient.failed")
    assert failed.data["reason"] == "no_usable_host"
    assert address in failed.data["text"]


async def test_operator_may_allow_private_addresses(start: Start) -> None:
    system = await start(**LIVE, RELAY_DELIVERY_ALLOW_PRIVATE="true")
    receipt = await system.submit(["ann@shop.test"])
    await system.until_delivered(receipt)
    assert system.sink.counts() == {"ann@shop.test": 1}


async def test_sink_mode_leaves_loopback_for_nobody(start: Start) -> None:
    system = await start(workers=0)
    system.sink.set_dns("shop.test", "MX", "10 outside.shop.test.")
    system.sink.set_dns("outside.shop.test", "A", "192.0.2.1")
    system.start_worker()
    receipt = await system.submit(["ann@shop.test"])
    waiting = await system.until_waiting(receipt, "ann@shop.test", "no_usable_host")
    assert "192.0.2.1" in waiting.text
