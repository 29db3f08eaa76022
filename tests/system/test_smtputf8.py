"""Mail that needs SMTPUTF8 or 8BITMIME goes to a host that offers it, or fails when none does."""

import pytest

from tests.system.conftest import Start


@pytest.mark.client_row("C62", "C63")
async def test_mail_that_needs_an_extension_looks_for_a_host_that_has_it(start: Start) -> None:
    system = await start(RELAY_DELIVERY_WITHOUT_8BITMIME="convert-or-refuse")
    system.sink.set_dns("either.test", "MX", "10 mx1.no8bitmime.test.", "20 mx2.shop.test.")
    text, signed = "a t\u00e4b and more", b"DKIM-Signature: v=1; d=elsewhere.test\r\n"
    sure = await system.submit(["ann@no8bitmime.test"], text=text)
    either = await system.submit(["ann@either.test"], text=text, headers=signed)
    neither = await system.submit(["bob@no8bitmime.test"], text=text, headers=signed)
    raw = "X-Thing: t\u00e4b\r\n".encode()
    header = await system.submit(["eve@no8bitmime.test"], headers=raw, accepts_smtputf8=False)
    system.sink.set_dns("mixed.test", "MX", "10 mx1.nosmtputf8.test.", "20 mx1.shop.test.")
    mixed = await system.submit(["jörg@mixed.test"])
    plain = await system.submit(["ann@bücher.nosmtputf8.test"])
    nowhere = await system.submit(["jörg@nosmtputf8.test"])
    await system.until_delivered(mixed, plain)
    await system.until(nowhere, {"jörg@nosmtputf8.test": "failed"})

    (seen,) = system.sink.receipts(recipient="jörg@mixed.test")
    assert seen.host == "mx1.shop.test"
    assert "SMTPUTF8" in seen.mail_parameters
    assert system.sink.counts("nosmtputf8.test") == {}
    (sent,) = system.sink.receipts(recipient="ann@xn--bcher-kva.nosmtputf8.test")
    assert "SMTPUTF8" not in sent.mail_parameters
    (view,) = (await system.recipients(mixed)).values()
    assert (view.attempt, view.step) == (1, 0)
    await system.until_delivered(sure, either)
    await system.until(neither, {"bob@no8bitmime.test": "failed"})
    await system.until(header, {"eve@no8bitmime.test": "failed"})
    (seen,) = system.sink.receipts(recipient="ann@no8bitmime.test")
    assert seen.flags == () and b"a t=C3=A4b and more" in system.sink.content(seen.number)
    (seen,) = system.sink.receipts(recipient="ann@either.test")
    assert seen.host == "mx2.shop.test" and "BODY=8BITMIME" in seen.mail_parameters
    failed = {one.data["address"]: one.data for one in await system.events("recipient.failed")}
    assert {address: data["reason"] for address, data in failed.items()} == {
        "jörg@nosmtputf8.test": "smtputf8_unsupported",
        "eve@no8bitmime.test": "smtputf8_unsupported",
        "bob@no8bitmime.test": "feature_unsupported",
    }
    assert all("not offer" in data["text"] for data in failed.values())
    assert system.sink.receipts(accepted=False) == []
