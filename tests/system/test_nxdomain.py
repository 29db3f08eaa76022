"""A domain that does not exist fails its recipients at once."""

from tests.support.system import System


async def test_unknown_domain_fails_the_recipient_without_a_connection(system: System) -> None:
    receipt = await system.submit(["ann@nxdomain.test"])
    views = await system.until(receipt, {"ann@nxdomain.test": "failed"})

    (failed,) = await system.events("recipient.failed")
    assert failed.data["reason"] == "no_such_domain"
    assert "nxdomain.test" in views["ann@nxdomain.test"].text
    assert system.sink.receipts(accepted=None) == []
    assert not any(host["use"] for host in system.sink.hosts().values())


async def test_domain_whose_hosts_do_not_exist_fails_the_recipient(system: System) -> None:
    receipt = await system.submit(["ann@noaddress.test"])
    await system.until(receipt, {"ann@noaddress.test": "failed"})
    (failed,) = await system.events("recipient.failed")
    assert failed.data["reason"] == "no_usable_host"
