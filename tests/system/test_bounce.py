"""Mail that an operator bounces fails, and its sender is told where his door promises it."""

import email
import email.policy
import json
from email.message import EmailMessage

import pytest

from tests.support.doors import relay
from tests.support.system import System
from tests.system.conftest import Start

SLOW_RETRIES = {"RELAY_RETRY_FIRST_AFTER_RCPT": "1h", "RELAY_RETRY_TRANSACTIONAL": "1h*"}


def report_to(system: System, address: str) -> tuple[EmailMessage, EmailMessage]:
    """The one report that came: its text, and what it says to machines of its one recipient."""
    (seen,) = system.sink.receipts(recipient=address, at_least=1)
    assert seen.reverse_path == ""
    report = email.message_from_bytes(system.sink.content(seen.number), policy=email.policy.default)
    text, machine, _ = report.iter_parts()
    _, about = machine.get_payload()
    return text, about


async def test_sender_is_told_of_a_bounce_with_the_operators_reason(start: Start) -> None:
    system = await start(**SLOW_RETRIES)
    api = f"http://127.0.0.1:{system.start_http()}"
    receipt = await system.submit(
        ["tempfail@shop.test", "ann@shop.test"], ingress="smtp", sender="me@home.test"
    )
    await system.until(receipt, {"tempfail@shop.test": "deferred", "ann@shop.test": "delivered"})
    said = ("--reason", "this address is gone", "--json")
    run = relay("message", "bounce", f"{receipt.id}.1", "--yes", *said, api=api)
    assert run.code == 0 and json.loads(run.out)["changed"] == 1, run
    # The command's end is the end of the recipient, too.
    view = (await system.recipients(receipt))["tempfail@shop.test"]
    assert (view.status, view.text) == ("failed", "this address is gone")

    text, about = report_to(system, "me@home.test")
    assert "this address is gone" in text.get_content()
    assert "451 4.3.0" in text.get_content()
    assert about["Final-Recipient"] == "rfc822; tempfail@shop.test"
    assert (about["Action"], about["Status"]) == ("failed", "5.0.0")
    assert about["Diagnostic-Code"].startswith("smtp; 451 4.3.0")
    (failed,) = await system.events("recipient.failed")
    assert (failed.data["actor"], failed.data["reply"]["code"]) == ("http", 451)
    assert system.sink.counts() == {"ann@shop.test": 1, "me@home.test": 1}


async def test_bounce_whose_door_died_is_told_by_a_worker(start: Start) -> None:
    system = await start(**SLOW_RETRIES)
    receipt = await system.submit(["tempfail@shop.test"], ingress="smtp", sender="me@home.test")
    await system.until(receipt, {"tempfail@shop.test": "deferred"})
    await system.store.bounce(receipt.id, "enough")
    await system.until(receipt, {"tempfail@shop.test": "failed"})
    text, _ = report_to(system, "me@home.test")
    assert "enough" in text.get_content()


async def test_mail_bounced_while_claimed_fails_with_a_report(system: System) -> None:
    address = "slow+5s@shop.test"
    receipt = await system.submit([address], ingress="smtp", sender="me@home.test")
    await system.until(receipt, {address: "claimed"})
    assert await system.store.bounce(receipt.id, "enough") == 1
    await system.until(receipt, {address: "failed"})
    report_to(system, "me@home.test")
    assert system.sink.counts() == {"me@home.test": 1}


@pytest.mark.parametrize(("ingress", "sender"), [("smtp", ""), ("http", "me@home.test")])
async def test_nobody_is_told_where_no_report_is_due(
    start: Start, ingress: str, sender: str
) -> None:
    system = await start(workers=0)
    receipt = await system.submit(["ann@shop.test"], ingress=ingress, sender=sender)
    api = f"http://127.0.0.1:{system.start_http()}"
    run = relay("message", "bounce", receipt.id, "--yes", api=api)
    assert run.out == "bounce: 1 recipient\n"
    assert (await system.event_counts()) == {"message.accepted": 1, "recipient.failed": 1}
    assert (await system.recipients(receipt))["ann@shop.test"].status == "failed"
