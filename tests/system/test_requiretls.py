"""Mail that is to travel under TLS all the way (RFC 8689) goes so, or not at all."""

from tests.system.conftest import Start

VERIFIED = """
[[routes]]
domain = "keepstls.test"
tls = "verified"

[[routes]]
domain = "forgets.test"
tls = "verified"
"""


async def test_mail_with_requiretls_goes_only_to_verified_hosts_that_keep_it(start: Start) -> None:
    system = await start(RELAY_CONFIG=VERIFIED)
    addresses = ["ann@keepstls.test", "ann@forgets.test", "ann@other.keepstls.test"]
    receipts = [
        await system.submit([one], requires_tls=True, ingress="smtp", sender="me@home.test")
        for one in addresses
    ]
    plain = await system.submit(["bob@keepstls.test"])
    await system.until_delivered(receipts[0], plain)
    for receipt, address in zip(receipts[1:], addresses[1:], strict=True):
        await system.until(receipt, {address: "failed"})

    (kept,) = system.sink.receipts(recipient="ann@keepstls.test")
    assert "REQUIRETLS" in kept.mail_parameters
    (other,) = system.sink.receipts(recipient="bob@keepstls.test")
    assert "REQUIRETLS" not in other.mail_parameters
    failed = {
        event.data["address"]: event.data for event in await system.events("recipient.failed")
    }
    assert {data["reason"] for data in failed.values()} == {"tls_required"}
    assert "does not offer REQUIRETLS" in failed["ann@forgets.test"]["text"]
    assert "does not prove its name" in failed["ann@other.keepstls.test"]["text"]
    reports = system.sink.receipts(recipient="me@home.test", at_least=2)
    for report in reports:
        content = system.sink.content(report.number)
        assert b"Status: 5.7.30" in content
        assert b"\r\nhello\r\n" not in content
    assert system.sink.counts() == {
        "ann@keepstls.test": 1,
        "bob@keepstls.test": 1,
        "me@home.test": 2,
    }
