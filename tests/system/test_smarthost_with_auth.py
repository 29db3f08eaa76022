"""A smarthost that wants a login: only after TLS, by STARTTLS or from the start."""

import pytest

from tests.system.conftest import Start

BY_STARTTLS = """
[[routes]]
domain = "*"
name = "out"
smarthost = "smtp://relay:secret@smarthost.test:{smtp_port}"
tls = "verified"
"""
BY_SMTPS = """
[[routes]]
domain = "*"
name = "out"
smarthost = "smtps://relay:secret@smarthost.test:{smtps_port}"
tls = "verified"
"""


@pytest.mark.parametrize("routes", [BY_STARTTLS, BY_SMTPS], ids=["starttls", "smtps"])
async def test_mail_leaves_authenticated_over_verified_tls(start: Start, routes: str) -> None:
    system = await start(RELAY_CONFIG=routes)
    receipt = await system.submit(["ann@alpha.test", "ann@beta.test"])
    await system.until_delivered(receipt)

    (seen,) = system.sink.receipts()
    assert set(seen.forward_paths) == {"ann@alpha.test", "ann@beta.test"}
    assert (seen.host, seen.auth_user) == ("smarthost.test", "relay")
    assert seen.tls == "TLSv1.3"
    delivered = await system.events("recipient.delivered")
    assert [event.data["tls"]["verified"] for event in delivered] == [True, True]


async def test_password_stays_out_of_events_and_logs(start: Start) -> None:
    system = await start(RELAY_CONFIG=BY_STARTTLS)
    receipt = await system.submit(["reject@shop.test", "ann@shop.test"])
    await system.until(receipt, {"reject@shop.test": "failed", "ann@shop.test": "delivered"})
    (failed,) = await system.events("recipient.failed")
    assert "AUTH" in failed.data["dialogue"]
    told = [failed.data["dialogue"], system.worker_log.read_text()]
    # "secret", and "\0relay\0secret" in base64
    assert not any(word in text for text in told for word in ("secret", "AHJlbGF5AHNlY3JldA"))
