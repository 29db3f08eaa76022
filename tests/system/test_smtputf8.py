"""An address that needs SMTPUTF8 goes to a host that offers it, or fails when none does."""

import pytest

from tests.support.system import System


@pytest.mark.client_row("C63")
async def test_address_that_needs_smtputf8_looks_for_a_host_that_has_it(system: System) -> None:
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
    (failed,) = await system.events("recipient.failed")
    assert failed.data["reason"] == "smtputf8_unsupported"
    assert "not offer" in failed.data["text"]
    assert system.sink.receipts(accepted=False) == []
