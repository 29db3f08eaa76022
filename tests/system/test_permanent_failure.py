"""A permanent refusal ends the recipient; the sender is told where his door promises it."""

import email
import email.policy

import pytest

from tests.support.system import System


@pytest.mark.parametrize("keyword", ["reject", "reject-data", "reject-dot"])
async def test_refused_recipient_fails_at_once_and_for_good(system: System, keyword: str) -> None:
    address = f"{keyword}@shop.test"
    receipt = await system.submit([address])
    views = await system.until(receipt, {address: "failed"})

    assert views[address].attempt == 1
    (failed,) = await system.events("recipient.failed")
    assert failed.data["reply"]["code"] in (550, 554)
    assert failed.data["severity"] == "permanent"
    assert "< 5" in failed.data["dialogue"]
    assert system.sink.counts() == {}
    assert await system.event_counts() == {"message.accepted": 1, "recipient.failed": 1}


async def test_sender_by_smtp_gets_a_report(system: System) -> None:
    receipt = await system.submit(
        ["reject@shop.test", "ann@shop.test"], ingress="smtp", sender="me@home.test"
    )
    await system.until(receipt, {"reject@shop.test": "failed", "ann@shop.test": "delivered"})

    (seen,) = system.sink.receipts(recipient="me@home.test", at_least=1)
    assert seen.reverse_path == ""
    report = email.message_from_bytes(system.sink.content(seen.number), policy=email.policy.default)
    assert report.get_content_type() == "multipart/report"
    assert report["To"] == "me@home.test"
    assert report["Auto-Submitted"] == "auto-replied"
    text, machine, original = report.iter_parts()
    assert "reject@shop.test" in text.get_content()
    assert "ann@shop.test" not in text.get_content()
    about_message, about_recipient = machine.get_payload()
    assert about_message["Reporting-MTA"] == "dns; relay.example"
    assert about_recipient["Final-Recipient"] == "rfc822; reject@shop.test"
    assert about_recipient["Action"] == "failed"
    assert about_recipient["Status"] == "5.1.1"
    assert about_recipient["Diagnostic-Code"].startswith("smtp; 550 5.1.1")
    assert "Subject: message 1" in original.get_content()


async def test_message_that_the_server_was_not_offered_has_no_reply_of_it(system: System) -> None:
    """It announces SIZE 200: that is our judgement, and nobody's words."""
    address = "ann@size200.test"
    receipt = await system.submit([address], ingress="smtp", sender="me@home.test", text="x" * 300)
    view = (await system.until(receipt, {address: "failed"}))[address]
    assert view.reply is None and view.text.startswith("It was not sent: message of ")
    (failed,) = await system.events("recipient.failed")
    assert (failed.data["reason"], failed.data["reply"]) == ("message_too_large", None)
    assert system.sink.receipts(accepted=None, domain="size200.test") == []

    (seen,) = system.sink.receipts(recipient="me@home.test", at_least=1)
    report = system.sink.content(seen.number)
    assert b"Diagnostic-Code: X-Relay; It was not sent: message of " in report
    assert b"Status: 5.3.4" in report
    assert b"Remote-MTA" not in report and b"smtp;" not in report


async def test_null_reverse_path_gets_no_report(system: System) -> None:
    receipt = await system.submit(["reject@shop.test"], ingress="smtp", sender="")
    await system.until(receipt, {"reject@shop.test": "failed"})
    assert (await system.event_counts())["message.accepted"] == 1


async def test_report_that_fails_is_not_reported(system: System) -> None:
    receipt = await system.submit(["reject@shop.test"], ingress="smtp", sender="reject@home.test")
    await system.until(receipt, {"reject@shop.test": "failed"})
    await system.until_event("recipient.failed", address="reject@home.test")
    assert (await system.event_counts())["message.accepted"] == 2


async def test_sender_by_api_gets_an_event_instead_of_a_report(system: System) -> None:
    receipt = await system.submit(["reject@shop.test"], sender="me@home.test")
    await system.until(receipt, {"reject@shop.test": "failed"})
    assert (await system.event_counts())["message.accepted"] == 1
