"""A null MX (RFC 7505) refuses all mail: it fails at once, no packet leaves for the domain."""

from tests.support.system import System


async def test_null_mx_fails_the_recipient_without_a_connection(system: System) -> None:
    receipt = await system.submit(["ann@nullmx.test", "bob@nullmx.test", "ann@shop.test"])
    await system.until(
        receipt,
        {"ann@nullmx.test": "failed", "bob@nullmx.test": "failed", "ann@shop.test": "delivered"},
    )

    failed = await system.events("recipient.failed")
    assert {event.data["reason"] for event in failed} == {"null_mx"}
    assert {event.data["severity"] for event in failed} == {"permanent"}
    assert {host for host, use in system.sink.hosts().items() if use["use"]} == {"mx1.shop.test"}


async def test_null_mx_is_reported_to_the_sender(system: System) -> None:
    receipt = await system.submit(["ann@nullmx.test"], ingress="smtp", sender="me@home.test")
    await system.until(receipt, {"ann@nullmx.test": "failed"})
    (seen,) = system.sink.receipts(recipient="me@home.test", at_least=1)
    assert b"ann@nullmx.test" in system.sink.content(seen.number)
