"""Reports are read back as they were meant, whatever is said in them."""

import email
import email.policy
from email.message import EmailMessage

import pytest

from relay.delivery.dsn import Reported, Subject, compose_report

SUBJECT = Subject("me@home.test", "<1@home.test>", 1795237006.0, b"Subject: hi\r\n\r\nbody\r\n")


def composed(**more: str) -> EmailMessage:
    values = {"address": "ann@x.test", "action": "failed", "status": "5.0.0", "text": "No."}
    reported = Reported(**values | more)
    _, content = compose_report("relay.example", SUBJECT, [reported], now=1795237007.0)
    assert content.count(b"\n") == content.count(b"\r\n")
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


@pytest.mark.parametrize("field", ["text", "diagnostic", "remote"])
@pytest.mark.parametrize("line_break", ["\r\n", "\n", "\r", "\u2028", "\x85"], ids=repr)
def test_words_of_others_bring_neither_lines_nor_parts(field: str, line_break: str) -> None:
    evil = f"a{line_break}Evil: yes{line_break}{line_break}--=_x{line_break}"
    report = composed(**{field: evil})
    text, machine, original = report.iter_parts()
    about_message, about_recipient = machine.get_payload()
    assert "Evil" not in report and "Evil" not in about_message and "Evil" not in about_recipient
    assert not any(line.startswith(("Evil", "--")) for line in text.get_content().splitlines())
    assert original.get_content().strip() == "Subject: hi"


def test_report_without_a_word_of_a_server_gives_none() -> None:
    text, machine, _ = composed(text="It was not sent: too large.").iter_parts()
    _, about = machine.get_payload()
    assert about["Diagnostic-Code"] == "X-Relay; It was not sent: too large."
    assert about["Remote-MTA"] is None
    assert "receiving server said" not in text.get_content()


def test_report_names_recipient_status_and_what_the_server_said() -> None:
    report = composed(diagnostic="550 5.1.1 nobody", remote="mx.x.test", status="5.1.1")
    text, machine, _ = report.iter_parts()
    _, about = machine.get_payload()
    assert about["Final-Recipient"] == "rfc822; ann@x.test"
    assert (about["Action"], about["Status"]) == ("failed", "5.1.1")
    assert about["Remote-MTA"] == "dns; mx.x.test"
    assert about["Diagnostic-Code"] == "smtp; 550 5.1.1 nobody"
    assert "said: 550 5.1.1 nobody" in text.get_content()
