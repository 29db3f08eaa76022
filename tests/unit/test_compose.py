"""Composed messages, read back by Python's `email` as the oracle; injection through any field."""

import email
import email.header
import email.policy
import email.utils
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.ingress.compose import compose
from relay.ingress.field_value import encoded_words, unstructured
from relay.ingress.message import Attachment, Mailbox, Message
from relay.model.errors import SubmissionRefused

NOW = 1795237006.0
#: What a person may write: no control characters, no halves of surrogate pairs.
WORDS = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=300
)


def made(**fields: Any) -> bytes:
    """The octets of a message; From, To and text have defaults."""
    given_fields = {
        "from_": "news@example.org",
        "to": ["ann@gmail.test"],
        "text": "hello",
        **fields,
    }
    return compose(Message(**given_fields), hostname="relay.example", now=NOW).content


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert part.defects == []
    return message


def refusals(**fields: Any) -> dict[str, str]:
    """Code by field of what is refused."""
    with pytest.raises(SubmissionRefused) as refused:
        made(**fields)
    return {finding.field: finding.code for finding in refused.value.findings}


def test_plain_message_has_the_fields_in_order_and_crlf_only() -> None:
    content = made(subject="hi", text="line 1\nline 2")
    assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r")
    message = parsed(content)
    assert message.keys()[:5] == ["From", "To", "Subject", "Date", "Message-ID"]
    assert message["from"] == "news@example.org"
    assert message["date"].datetime == datetime.fromtimestamp(NOW, UTC)
    assert content.endswith(b"\r\n\r\nline 1\r\nline 2\r\n")


@given(WORDS)
def test_any_subject_is_read_back_and_keeps_its_lines_short(subject: str) -> None:
    content = made(subject=subject)
    header = content.partition(b"\r\n\r\n")[0]
    assert max(map(len, header.split(b"\r\n"))) <= 998
    assert header.isascii()
    assert parsed(content)["subject"] == subject


@given(WORDS)
def test_any_display_name_is_read_back(name: str) -> None:
    # Python's newer parser splits adjacent encoded words in a phrase; the older one is right.
    old = email.message_from_bytes(made(from_=Mailbox("news@example.org", name)))
    phrase, address = email.utils.parseaddr(str(old["from"]))
    shown = str(email.header.make_header(email.header.decode_header(phrase)))
    assert shown.split() == name.split()
    assert address == "news@example.org"


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=2000))
def test_any_text_is_read_back(text: str) -> None:
    content = made(text=text)
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    raw = parsed(content).get_payload(decode=True)
    assert isinstance(raw, bytes)
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    expected = lines if lines.endswith("\n") else lines + "\n"
    assert raw.decode().replace("\r\n", "\n") == expected


@given(
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cn", "Co")), max_size=120)
)
def test_any_file_name_is_read_back(name: str) -> None:
    name = name.strip()
    if not name.isprintable():
        return
    content = made(attachments=[Attachment(filename=name, content=b"\0\1" * 50)])
    assert max(map(len, content.split(b"\r\n"))) <= 78
    (part,) = parsed(content).iter_attachments()
    # Not `get_filename`, which strips < > and quotes that belong to the name.
    assert part["content-disposition"].params.get("filename", "") == name
    assert part.get_content() == b"\0\1" * 50


def test_text_html_inline_image_and_file_are_nested_as_readers_expect() -> None:
    message = parsed(
        made(
            text="t",
            html='<img src="cid:logo@x">',
            attachments=[
                Attachment(filename="a.pdf", content=b"pdf", content_type="application/pdf"),
                Attachment(
                    filename="l.png", content=b"png", content_type="image/png", content_id="logo@x"
                ),
            ],
        )
    )
    kinds = [part.get_content_type() for part in message.walk()]
    assert kinds == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "application/pdf",
    ]
    body = message.get_body(("html",))
    assert body is not None and body.get_content().strip() == '<img src="cid:logo@x">'


def test_mostly_foreign_text_is_base64_and_mostly_latin_quoted_printable() -> None:
    assert b"Transfer-Encoding: base64" in made(text="привет, мир")
    assert b"Transfer-Encoding: quoted-printable" in made(text="a very long café, " * 9)
    assert b"Transfer-Encoding: 7bit" in made(text="plain")
    assert b"Transfer-Encoding: quoted-printable" in made(text="x" * 2000)


def test_many_recipients_are_folded_between_mailboxes() -> None:
    to = [f"Recipient number {number} <user{number}@example.test>" for number in range(50)]
    content = made(to=to)
    assert max(map(len, content.split(b"\r\n"))) <= 78
    assert len(parsed(content)["to"].addresses) == 50


def test_bcc_is_in_the_envelope_and_not_in_the_header() -> None:
    message = Message(from_="a@b.test", bcc="secret@x.test", text="t")
    composed = compose(message, hostname="h.test", now=NOW)
    assert [str(path) for path in composed.forward_paths] == ["secret@x.test"]
    assert b"secret" not in composed.content
    assert parsed(composed.content)["to"] == "undisclosed-recipients:;"


def test_one_click_unsubscribe_makes_both_fields() -> None:
    message = parsed(made(one_click_unsubscribe="https://example.org/u/1?a=b"))
    assert message["list-unsubscribe"] == "<https://example.org/u/1?a=b>"
    assert message["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    for url in ("http://example.org", "https://a b", "https://x>\r\nBcc: y", "https://"):
        assert "one_click_unsubscribe" in refusals(one_click_unsubscribe=url)


CONTROLS = ["\r\nBcc: x@y.z", "\n", "\r", "\0", "\x0b", "\x85", "\u2028", "\udc80"]


@pytest.mark.parametrize("control", CONTROLS)
def test_control_characters_are_refused_in_every_field(control: str) -> None:
    evil = f"a{control}b"
    cases: dict[str, dict[str, Any]] = {
        "subject": {"subject": evil},
        "from": {"from_": f"{evil} <a@b.test>"},
        "to[0]": {"to": [f"{evil}@b.test"]},
        "cc[0]": {"cc": [Mailbox("a@b.test", evil)]},
        "bcc[0]": {"bcc": [f"a@{evil}.test"]},
        "reply_to": {"reply_to": f"{evil} <a@b.test>"},
        "reverse_path": {"reverse_path": f"{evil}@b.test"},
        "headers.X-Foo": {"headers": {"X-Foo": evil}},
        "headers.List-Id": {"headers": {"List-Id": evil}},
        "headers": {"headers": {evil: "x"}},
        "attachments[0].filename": {"attachments": [Attachment(filename=evil, content=b"")]},
        "attachments[0].content_type": {
            "attachments": [Attachment(filename="", content=b"", content_type=f"a/{evil}")]
        },
        "attachments[0].content_id": {
            "attachments": [Attachment(filename="", content=b"", content_id=evil)]
        },
        "one_click_unsubscribe": {"one_click_unsubscribe": f"https://x/{evil}"},
    }
    for field, fields in cases.items():
        assert field in refusals(**fields), field


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Subject", "header_has_field"),
        ("bcc", "header_has_field"),
        ("Content-Type", "header_reserved"),
        ("Received", "header_reserved"),
        ("X-Relay-Campaign", "header_reserved"),
        ("A B", "header_name_invalid"),
        ("A:", "header_name_invalid"),
        ("", "header_name_invalid"),
        ("Ü", "header_name_invalid"),
    ],
)
def test_header_names_of_others_are_refused(name: str, code: str) -> None:
    assert refusals(headers={name: "x"}) == {f"headers.{name}": code}


def test_structured_fields_take_no_encoded_words() -> None:
    assert refusals(headers={"References": "ü"}) == {"headers.References": "header_not_ascii"}
    assert refusals(headers={"Message-ID": "x"}) == {"headers.Message-ID": "message_id_invalid"}
    message = parsed(made(headers={"Message-ID": "<mine@example.org>", "X-Text": "grüße"}))
    assert message["message-id"] == "<mine@example.org>"
    assert message["x-text"] == "grüße"


def test_every_fault_is_told_at_once() -> None:
    found = refusals(from_="news", to=["ann@", "bob@x.test"], subject="a\nb")
    assert found == {
        "from": "address_no_domain",
        "to[0]": "address_no_domain",
        "subject": "control_character",
    }


def test_message_for_nobody_or_without_content_is_refused() -> None:
    assert refusals(to=[]) == {"to": "recipients_missing"}
    assert refusals(text=None) == {"text": "content_missing"}


def test_several_addresses_in_one_string_are_not_taken_for_a_name() -> None:
    assert refusals(to="a@x.test, b <b@y.test>") == {"to": "address_list_in_string"}
    (author,) = parsed(made(from_="Doe, John <j@x.test>"))["from"].addresses
    assert author.display_name == "Doe, John"


def test_null_reverse_path_is_said_by_an_empty_text() -> None:
    message = Message(from_="a@b.test", to="x@y.test", text="t", reverse_path="")
    assert compose(message, hostname="h.test", now=NOW).reverse_path is None


@given(WORDS, st.integers(20, 76))
def test_encoded_words_stay_short_and_split_no_character(text: str, room: int) -> None:
    for word in encoded_words(text, room=room):
        assert len(word) <= 75
        assert email.header.make_header(email.header.decode_header(word))


def test_text_that_looks_like_an_encoded_word_is_encoded() -> None:
    line = unstructured("Subject", "=?utf-8?q?hi?=")
    assert "=?utf-8?q?hi?=" not in line
    assert parsed(made(subject="=?utf-8?q?hi?="))["subject"] == "=?utf-8?q?hi?="
