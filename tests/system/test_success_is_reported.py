"""Mail by SMTP that asks for reports: hosts that offer DSN are told, for others we write them."""

import email
import email.policy
import smtplib
from email.message import EmailMessage
from pathlib import Path

from relay.model.dsn import Dsn, RecipientDsn
from tests.support.lmtp_server import LmtpServer
from tests.support.system import System
from tests.system.conftest import Start

BODY = "Subject: hi\r\n\r\nbody\r\n"


async def test_sender_gets_the_reports_that_he_asked_for_and_no_others(start: Start) -> None:
    system = await start()
    port = system.start_smtpd()
    asked = {
        "ann@shop.test": "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Ann+2B1@old.test",
        "bob@shop.test": "NOTIFY=FAILURE,DELAY",
        "reject+a@shop.test": "NOTIFY=SUCCESS,FAILURE",
        "reject+b@shop.test": "NOTIFY=NEVER",
        "reject+c@shop.test": "NOTIFY=SUCCESS",
        "cai@dsn.test": "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Cai@old.test",
    }
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("me.test")
        assert client.has_extn("dsn")
        assert client.mail("me@home.test", ["RET=FULL", "ENVID=QQ+2B17"])[0] == 250
        for address, parameters in asked.items():
            assert client.rcpt(address, parameters.split())[0] == 250
        assert client.data(BODY)[0] == 250
    await system.until_event("recipient.failed", 3)
    await system.until_event("recipient.delivered", 5)

    seen = system.sink.receipts(recipient="me@home.test", at_least=2, timeout_s=30)
    reports = {}
    for receipt in seen:
        assert receipt.reverse_path == ""
        report = email.message_from_bytes(
            system.sink.content(receipt.number), policy=email.policy.default
        )
        assert isinstance(report, EmailMessage)
        _, machine, original = report.iter_parts()
        message, about = machine.get_payload()
        assert message["Original-Envelope-Id"] == "QQ+17"
        reports[about["Final-Recipient"]] = (about, original.get_content_type())
    assert set(reports) == {"rfc822; ann@shop.test", "rfc822; reject+a@shop.test"}
    relayed, kind = reports["rfc822; ann@shop.test"]
    assert (relayed["Action"], kind) == ("relayed", "text/rfc822-headers")
    assert relayed["Original-Recipient"] == "rfc822; Ann+1@old.test"
    assert relayed["Status"].startswith("2.")
    failed, kind = reports["rfc822; reject+a@shop.test"]
    assert (failed["Action"], kind) == ("failed", "message/rfc822")
    assert failed["Status"].startswith("5.")
    assert system.sink.counts() == {
        "ann@shop.test": 1,
        "bob@shop.test": 1,
        "cai@dsn.test": 1,
        "me@home.test": 2,
    }
    (passed_on,) = system.sink.receipts(recipient="cai@dsn.test")
    assert passed_on.mail_parameters.split()[-2:] == ["RET=FULL", "ENVID=QQ+2B17"]
    assert passed_on.recipient_parameters == (asked["cai@dsn.test"],)
    report_goes_to_a_sender_beyond_ascii(system, port)


def report_goes_to_a_sender_beyond_ascii(system: System, port: int) -> None:
    address = "reject+jörg@shop.test"
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("me.test")
        assert client.mail("müller@home.test", ["SMTPUTF8", "BODY=8BITMIME"])[0] == 250
        assert client.rcpt(address, ["ORCPT=utf-8;j\\x{F6}rg@old.test"])[0] == 250
        assert client.data("Subject: grüße\r\n\r\nbody\r\n".encode())[0] == 250
    (receipt,) = system.sink.receipts(recipient="müller@home.test", at_least=1, timeout_s=30)
    assert receipt.reverse_path == "" and receipt.flags == ()
    assert "SMTPUTF8" in receipt.mail_parameters
    content = system.sink.content(receipt.number)
    for line in (
        "To: müller@home.test",
        "Content-Type: message/global-delivery-status",
        f"Final-Recipient: utf-8; {address}",
        "Original-Recipient: utf-8; jörg@old.test",
        "Content-Type: message/global-headers",
        "Subject: grüße",
    ):
        assert f"\r\n{line}\r\n".encode() in content


async def test_mailbox_by_lmtp_is_reported_as_delivered(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    async with LmtpServer().running(path):
        routes = f'[[routes]]\ndomain = "box.test"\nsmarthost = "lmtp://{path}"\n'
        system = await start(RELAY_CONFIG=routes)
        to = ["ann@box.test", "unknown@box.test", "bob@box.test"]
        asked = tuple(RecipientDsn(letters) for letters in ("SF", "SF", "F"))
        dsn = Dsn(recipients=asked)
        await system.submit(to, ingress="smtp", sender="me@home.test", dsn=dsn)
        await system.until_event("recipient.delivered", 4)
    seen = system.sink.receipts(recipient="me@home.test", at_least=2, timeout_s=30)
    contents = sorted(system.sink.content(receipt.number) for receipt in seen)
    (delivered,) = [content for content in contents if b"\r\nAction: delivered\r\n" in content]
    (failed,) = [content for content in contents if b"\r\nAction: failed\r\n" in content]
    assert b"ann@box.test" in delivered and b"unknown@box.test" in failed
    assert not any(b"bob@box.test" in content for content in contents)
