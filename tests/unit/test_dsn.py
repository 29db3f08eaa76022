"""Reports are read back as they were meant, whatever is said in them."""

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import msgspec
import pytest
from flufl.bounce import all_failures
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.dsn import Reported, Subject, compose_report
from relay.smtp.content import normalize

NOW = 1795237007.0
SUBJECT = Subject(
    queue_id="01J",
    reverse_path="me@home.test",
    message_id="<1@home.test>",
    created=1795237006.0,
    content=b"Subject: hi\r\n\r\nbody\r\n",
)


def octets(subject: Subject, *recipients: Reported, **more: int) -> bytes:
    _, content = compose_report("relay.example", subject, recipients, now=NOW, **more)
    assert content.count(b"\n") == content.count(b"\r\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    return content


def read(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert all(not part.defects for part in message.walk())
    assert message["Content-Transfer-Encoding"] == ("7bit" if content.isascii() else "8bit")
    return message


def reported(**more: Any) -> Reported:
    values = {"address": "ann@x.test", "action": "failed", "status": "5.0.0", "text": "No."}
    return Reported(**values | more)


def composed(*, subject: Subject = SUBJECT, **more: Any) -> EmailMessage:
    return read(octets(subject, reported(**more)))


def about(**more: Any) -> Subject:
    return msgspec.structs.replace(SUBJECT, **more)


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


def test_path_of_a_socket_is_told_to_nobody() -> None:
    report = composed(diagnostic="550 5.1.1 nobody", remote="/run/lmtp")
    assert b"/run" not in report.as_bytes()


def test_report_without_a_word_of_a_server_gives_none() -> None:
    text, machine, _ = composed(text="It was not sent: too large.").iter_parts()
    _, about = machine.get_payload()
    assert about["Diagnostic-Code"] == "X-Relay; It was not sent: too large."
    assert about["Remote-MTA"] is None
    assert "receiving server said" not in text.get_content()


@pytest.mark.parametrize(
    ("action", "title"),
    [
        ("failed", "Undelivered Mail Returned to Sender"),
        ("delayed", "Delayed Mail (still being retried)"),
        ("relayed", "Successful Mail Delivery Report"),
        ("delivered", "Successful Mail Delivery Report"),
    ],
)
def test_report_says_what_happened_in_words_and_to_machines(action: str, title: str) -> None:
    report = composed(action=action)
    _, machine, _ = report.iter_parts()
    assert report["Subject"] == title
    assert machine.get_payload()[1]["Action"] == action
    assert (report["To"], report["Auto-Submitted"]) == ("me@home.test", "auto-replied")
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"


def test_envelope_id_and_original_recipient_come_back_decoded() -> None:
    _, machine, _ = composed(
        subject=about(envid="QQ+2B17+20a"), orcpt="rfc822;Ann+2B1@old.test"
    ).iter_parts()
    about_message, about_recipient = machine.get_payload()
    assert about_message["Original-Envelope-Id"] == "QQ+17 a"
    assert about_recipient["Original-Recipient"] == "rfc822; Ann+1@old.test"
    assert about_recipient["Final-Recipient"] == "rfc822; ann@x.test"


def test_what_was_not_given_is_not_told() -> None:
    _, machine, _ = composed().iter_parts()
    about_message, about_recipient = machine.get_payload()
    assert set(about_message.keys()) == {"Reporting-MTA", "Arrival-Date"}
    assert set(about_recipient.keys()) == {
        "Final-Recipient",
        "Action",
        "Status",
        "Diagnostic-Code",
    }


def test_times_of_the_attempt_and_of_the_end_are_told() -> None:
    _, machine, _ = composed(action="delayed", last_attempt=NOW, retry_until=NOW + 1).iter_parts()
    _, about_recipient = machine.get_payload()
    assert about_recipient["Last-Attempt-Date"] == "Sat, 21 Nov 2026 04:56:47 +0000"
    assert about_recipient["Will-Retry-Until"] == "Sat, 21 Nov 2026 04:56:48 +0000"


@pytest.mark.parametrize(
    ("ret", "action", "limit", "kind"),
    [
        ("FULL", "failed", 1000, "message/rfc822"),
        ("FULL", "failed", 10, "text/rfc822-headers"),
        ("FULL", "delayed", 1000, "text/rfc822-headers"),
        ("FULL", "relayed", 1000, "text/rfc822-headers"),
        ("HDRS", "failed", 1000, "text/rfc822-headers"),
        ("", "failed", 1000, "text/rfc822-headers"),
    ],
)
def test_message_comes_back_whole_only_where_asked_for_failed_and_small(
    ret: str, action: str, limit: int, kind: str
) -> None:
    content = octets(about(ret=ret), reported(action=action), full_octets=limit)
    *_, original = read(content).iter_parts()
    assert original.get_content_type() == kind
    assert (b"\r\nbody\r\n" in content) is (kind == "message/rfc822")
    assert b"Subject: hi" in content


def test_message_of_octets_comes_back_octet_by_octet() -> None:
    message = b"Subject: hi\r\n\r\n" + bytes(range(128, 256)) + b"\r\n..\r\n--=_\r\n"
    assert message in octets(about(ret="FULL", content=message), reported())


@pytest.mark.parametrize(
    ("ret", "kind"), [("FULL", "message/global"), ("", "message/global-headers")]
)
def test_addresses_and_headers_beyond_ascii_are_told_as_they_are(ret: str, kind: str) -> None:
    # RFC 6533 §3, §4: message/global-delivery-status with addresses of type utf-8.
    message = "Subject: grüße\r\n\r\nbody\r\n".encode()
    subject = about(reverse_path="müller@home.test", content=message, ret=ret)
    content = octets(
        subject,
        reported(address="jörg@x.test", orcpt=r"utf-8;j\x{F6}rg+2B@y.test"),
        reported(address="ann@x.test"),
    )
    assert "To: müller@home.test\r\n".encode() in content
    _, machine, original = read(content).iter_parts()
    assert machine.get_content_type() == "message/global-delivery-status"
    assert original.get_content_type() == kind
    for line in (
        "Original-Recipient: utf-8; jörg+@y.test",
        "Final-Recipient: utf-8; jörg@x.test",
        "Final-Recipient: rfc822; ann@x.test",
    ):
        assert f"\r\n{line}\r\n".encode() in content


def test_header_in_no_known_charset_comes_back_as_it_was() -> None:
    content = octets(about(content=b"Subject: gr\xfc\xdfe\r\n\r\nbody\r\n"), reported())
    *_, original = read(content).iter_parts()
    assert original.get_content_type() == "text/rfc822-headers"
    assert b"Subject: gr\xfc\xdfe\r\n" in content


WORDS = st.one_of(st.text(max_size=40), st.text("aé ;\r\n", min_size=500, max_size=600))
ADDRESSES = st.from_regex(r"[a-z0-9+_-]{1,20}@[a-z]{1,9}\.test", fullmatch=True)


@given(
    st.lists(st.tuples(ADDRESSES, WORDS, WORDS), min_size=1, max_size=5, unique_by=lambda t: t[0]),
    st.sampled_from(["failed", "delayed"]),
    st.binary(max_size=300),
)
def test_any_report_is_read_back_by_two_readers(
    recipients: list[tuple[str, str, str]], action: str, body: bytes
) -> None:
    status = "5.1.1" if action == "failed" else "4.2.2"
    told = [
        reported(address=address, action=action, status=status, text=text, diagnostic=said)
        for address, text, said in recipients
    ]
    content = octets(about(content=b"Subject: hi\r\n\r\n" + normalize(body)), *told)
    _, machine, _ = read(content).iter_parts()
    _, *blocks = machine.get_payload()
    finals = [block["Final-Recipient"] for block in blocks]
    assert finals == [f"rfc822; {address}" for address, _, _ in recipients]
    assert {(block["Action"], block["Status"]) for block in blocks} == {(action, status)}
    temporary, permanent = all_failures(email.message_from_bytes(content))
    found, others = (permanent, temporary) if action == "failed" else (temporary, permanent)
    assert {address.decode() for address in found} == {address for address, _, _ in recipients}
    assert not others


def test_report_names_recipient_status_and_what_the_server_said() -> None:
    report = composed(diagnostic="550 5.1.1 nobody", remote="mx.x.test", status="5.1.1")
    text, machine, _ = report.iter_parts()
    _, about = machine.get_payload()
    assert about["Final-Recipient"] == "rfc822; ann@x.test"
    assert (about["Action"], about["Status"]) == ("failed", "5.1.1")
    assert about["Remote-MTA"] == "dns; mx.x.test"
    assert about["Diagnostic-Code"] == "smtp; 550 5.1.1 nobody"
    assert "said: 550 5.1.1 nobody" in text.get_content()
