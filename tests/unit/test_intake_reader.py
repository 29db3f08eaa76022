"""Incoming reports of all shapes are read for what they are, and hostile ones for nothing."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.delivery.dsn import Reported, Subject, compose_report
from relay.delivery.intake import parts
from relay.delivery.intake.parts import DEPTH, OCTETS, PARTS, leaves_of
from relay.delivery.intake.reader import read_report
from relay.delivery.intake.report import Kind, Report, ReportedRecipient
from relay.delivery.intake.status import RECIPIENTS, address_of

FOLDER = Path(__file__).parent / "data" / "reports"
TOKEN = "b-token@bounces.example.org"


def expected() -> dict[str, str]:
    lines = (FOLDER / "expected.txt").read_text("utf-8").splitlines()
    rows = [line.split(maxsplit=3) for line in lines if not line.startswith("#")]
    return {name: f"{kind} {form} {recipients}" for name, kind, form, recipients in rows}


EXPECTED = expected()


def fixture(name: str) -> bytes:
    return (FOLDER / f"{name}.eml").read_bytes().replace(b"\n", b"\r\n")


def summary(report: Report) -> str:
    recipients = ", ".join(map(_shown, report.recipients))
    return f"{report.kind} {report.form or '-'} {recipients or '-'}"


def _shown(item: ReportedRecipient) -> str:
    other = "" if item.original in ("", item.address) else f" (to {item.original})"
    return f"{item.address} {item.status or '-'}{other}"


@pytest.mark.parametrize("name", EXPECTED)
def test_report_is_read_for_what_it_is(name: str) -> None:
    assert summary(read_report(fixture(name))) == EXPECTED[name]


def test_report_is_read_alike_with_bare_line_feeds() -> None:
    wrong = [
        name
        for name in EXPECTED
        if summary(read_report((FOLDER / f"{name}.eml").read_bytes())) != EXPECTED[name]
    ]
    assert wrong == []


def test_fixtures_are_at_least_60_shapes_of_every_kind(tell: Callable[[object], None]) -> None:
    assert {path.stem for path in FOLDER.glob("*.eml")} == set(EXPECTED)
    kinds = Counter(read_report(fixture(name)).kind for name in EXPECTED)
    assert len(EXPECTED) >= 60
    assert set(kinds) == set(Kind)
    said = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    tell(f"incoming reports: {len(EXPECTED)} shapes ({said})")


def test_fixtures_name_only_documentation_domains_as_recipients() -> None:
    for name in EXPECTED:
        for item in read_report(fixture(name)).recipients:
            assert item.address.rpartition(".")[2] in ("example", "net", "test"), name


@pytest.mark.parametrize("name", ["qmail", "exim", "arf-rfc5965", "arf-redacted", "jmrp", "icloud"])
def test_our_reverse_path_is_found_in_what_was_returned(name: str) -> None:
    assert TOKEN in read_report(fixture(name)).clues


def test_words_of_the_last_server_are_kept_as_the_diagnostic() -> None:
    report = read_report(fixture("gmail-not-found"))
    assert report.reporter == "googlemail.com"
    assert report.recipients[0].diagnostic.startswith("550-5.1.1 The email account")
    assert report.recipients[0].remote.startswith("gmail-smtp-in.l.google.com.")
    assert read_report(fixture("qmail-remote")).recipients[0].diagnostic == "552 5.2.2 mailbox full"


def test_message_id_of_what_was_returned_is_kept() -> None:
    assert read_report(fixture("sendmail-report")).message_ids == ("<01K6V@relay.example.org>",)


@pytest.mark.parametrize(("action", "kind"), [("failed", Kind.BOUNCE), ("delayed", Kind.DELAY)])
def test_report_that_relay_writes_is_read_back(action: str, kind: Kind) -> None:
    said = Reported("ann@example.net", action, "5.1.1", "No such mailbox.", "mx", "550 5.1.1 no")
    subject = Subject(
        queue_id="01KQ",
        reverse_path="news@example.org",
        message_id="<1@relay>",
        created=1.8e9,
        content=b"Subject: hi\r\n\r\nhello\r\n",
    )
    _, content = compose_report("relay.example.org", subject, [said], now=1.8e9)
    report = read_report(content)
    assert (report.kind, report.form, report.reporter) == (kind, "dsn", "relay.example.org")
    item = report.recipients[0]
    assert (item.address, item.status, item.diagnostic) == (
        "ann@example.net",
        "5.1.1",
        "550 5.1.1 no",
    )


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("rfc822; ann@example.net", "ann@example.net"),
        ("rfc822;<ann@example.net>", "ann@example.net"),
        ("RFC822; ann+2Bnews@example.net", "ann+news@example.net"),
        ("rfc822; ann+40home@example.net", "ann@home@example.net"),
        ("utf-8; \\x{430}nn@example.net", "аnn@example.net"),
        ("utf-8; \\x{D800}nn@example.net", "?nn@example.net"),
        ("utf-8; \\x{FFFFFF}nn@example.net", "?nn@example.net"),
        ("LOCAL; ann", ""),
        ("", ""),
    ],
)
def test_address_of_a_typed_field_is_undone(value: str, address: str) -> None:
    assert address_of(value) == address


# ── hostile messages


def nested(depth: int) -> bytes:
    text = b""
    for level in range(depth):
        text += b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)
    return text + b"\r\nhello\r\n"


def test_parts_are_not_followed_deeper_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    split = parts._sections

    def counted(body: bytes, boundary: str):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        return split(body, boundary)

    monkeypatch.setattr(parts, "_sections", counted)
    assert read_report(nested(2000)).kind is Kind.UNKNOWN
    assert calls == DEPTH


def test_line_of_a_longer_boundary_is_none_of_a_shorter_one() -> None:
    head = b"Content-Type: multipart/mixed; boundary=b1\r\n\r\n"
    content = head + b"--b1\r\n\r\none\r\n--b10\r\ntwo\r\n--b1--"
    assert [part.text for part in leaves_of(content)[1]] == ["one\n--b10\ntwo"]


def test_parts_are_not_taken_beyond_the_bound() -> None:
    body = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 10_000
    assert len(leaves_of(body)[1]) == PARTS


def test_recipients_are_not_taken_beyond_the_bound() -> None:
    block = b"\r\nFinal-Recipient: rfc822; a@b.test\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    content = (
        b"Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\n"
        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n" + block * 1000
    )
    assert len(read_report(content).recipients) == RECIPIENTS


def test_only_the_beginning_of_a_huge_message_is_looked_at() -> None:
    report = fixture("postfix-user-unknown")
    filler = b"X" * 70 + b"\r\n"
    assert read_report(report + filler * (OCTETS // 72)).kind is Kind.BOUNCE
    hidden = b"Subject: hello\r\n\r\n" + filler * (OCTETS // 72) + report
    assert read_report(hidden).kind is Kind.UNKNOWN


def test_encoded_word_of_no_charset_is_left_as_it_is() -> None:
    fields = parts.fields_of("Subject: =?ut\ufffdf-8?B?aGk=?= =?utf-8?B?aGk=?=".encode())
    assert fields.get("subject").startswith("=?ut")


def test_encoded_words_are_read_unless_there_are_too_many() -> None:
    few = parts.fields_of(b"Subject: " + b"=?utf-8?B?aGk=?= " * 3)
    many = parts.fields_of(b"Subject: " + b"=?utf-8?B?" * 1000)
    assert few.get("subject") == "hihihi"
    assert many.get("subject").startswith("=?utf-8?B?=?utf-8?B?")
