"""Whole messages of any fields, read back by Python's `email`: each field, each part, each line."""

import email
import email.header
import email.policy
import email.utils
import re
import secrets
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.ingress.compose import compose
from relay.ingress.media_type import guess_media_type
from relay.ingress.message import Attachment, Mailbox, Message, mailbox_list
from relay.model.errors import SubmissionRefused

NOW = 1795237006.0

_TEXT = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs", "Cn", "Co"))
#: Words of any script between single blanks: a reader may join or fold blanks as it likes.
LINES = st.lists(st.text(_TEXT, min_size=1, max_size=60), max_size=12).map(" ".join)
BODIES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=900)
ADDRESSES = st.from_regex(r"[a-z0-9+_-]{1,20}@[a-z0-9]{1,12}\.test", fullmatch=True)
MAILBOXES = st.builds(Mailbox, ADDRESSES, LINES) | ADDRESSES
NAMES = st.text(_TEXT, min_size=1, max_size=90).filter(str.isprintable)
TYPES = st.sampled_from(["", "application/pdf", "text/plain; charset=utf-8", "image/png"])
TOKENS = st.from_regex(r"[A-Za-z0-9.]{1,40}", fullmatch=True)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    files = draw(st.lists(st.tuples(NAMES, st.binary(max_size=200), TYPES), max_size=4))
    ids = draw(st.lists(TOKENS, unique=True, min_size=len(files), max_size=len(files)))
    shown = draw(st.lists(st.booleans(), min_size=len(files), max_size=len(files)))
    text, html = draw(st.none() | BODIES), draw(st.none() | BODIES)
    return Message(
        from_=draw(MAILBOXES),
        to=draw(st.lists(MAILBOXES, min_size=1, max_size=6)),
        cc=draw(st.none() | st.lists(MAILBOXES, min_size=1, max_size=3)),
        bcc=draw(st.none() | st.just("hidden@secret.example")),
        reply_to=draw(st.none() | MAILBOXES),
        subject=draw(LINES),
        text=text,
        html="<p>" if text is html is None else html,
        headers=draw(
            st.dictionaries(
                st.from_regex(r"X-[A-Za-z]{1,58}", fullmatch=True).filter(
                    lambda name: not name.lower().startswith("x-relay-")
                ),
                LINES,
                max_size=3,
            ).filter(lambda given: len({name.lower() for name in given}) == len(given))
        ),
        attachments=[
            Attachment(
                filename=name, content=content, content_type=kind, content_id=id if inline else ""
            )
            for (name, content, kind), id, inline in zip(files, ids, shown, strict=True)
        ],
    )


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert part.defects == []
    return message


def mailboxes_of(content: bytes, name: str) -> list[tuple[str, str]]:
    """Names and addresses of a field.

    Python's newer parser splits adjacent encoded words in a phrase; the older one is right.
    """
    values = [str(value) for value in email.message_from_bytes(content).get_all(name, [])]
    return [
        (str(email.header.make_header(email.header.decode_header(phrase))), address)
        for phrase, address in email.utils.getaddresses(values)
    ]


def meant(given: Any) -> list[tuple[str, str]]:
    return [
        (item.name, item.email) if isinstance(item, Mailbox) else ("", item)
        for item in mailbox_list(given)
    ]


def decoded(part: Any) -> bytes:
    raw = part.get_payload(decode=True)
    assert isinstance(raw, bytes)
    return raw


def name_of(part: Any) -> str | None:
    """The file name; `get_filename` strips < > and quotes that belong to it."""
    disposition = part["content-disposition"]
    name = None if disposition is None else disposition.params["filename"]
    assert name is None or isinstance(name, str)
    return name


def lines_of(text: str) -> bytes:
    """A text as it is to arrive: with an end to its last line, CRLF throughout."""
    return (text if text.endswith("\n") else text + "\n").replace("\n", "\r\n").encode()


def check_wire(content: bytes) -> None:
    """What every server and reader may rely on (RFC 5322 §2.1.1, RFC 2047 §2)."""
    assert content.isascii()
    assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    header = content.partition(b"\r\n\r\n")[0].decode()
    for line in header.split("\r\n"):
        assert line.strip(), "a folded line that is blank"
        words = re.findall(r"=\?utf-8\?[qb]\?[^?]*\?=", line)
        assert all(len(word) <= 75 for word in words)
        assert len(line) <= 76 or not words
        # What is longer than 78 has nowhere to be folded.
        assert len(line) <= 78 or " " not in line.lstrip(" ").partition(": ")[2]


@settings(max_examples=150, deadline=None)
@given(messages())
def test_any_message_is_read_back_field_by_field_and_part_by_part(message: Message) -> None:
    composed = compose(message, hostname="relay.example", now=NOW)
    content = composed.content
    check_wire(content)
    read = parsed(content)

    for name, given_value in (
        ("from", message.from_),
        ("to", message.to),
        ("cc", message.cc),
        ("reply-to", message.reply_to),
    ):
        assert mailboxes_of(content, name) == meant(given_value), name
    assert read["subject"] == message.subject
    for name, value in message.headers.items():
        assert read[name] == value
    everyone = [*meant(message.to), *meant(message.cc), *meant(message.bcc)]
    assert [str(path) for path in composed.forward_paths] == [address for _, address in everyone]
    assert b"secret" not in content and read["bcc"] is None

    files = list(message.attachments)
    leaves = [part for part in read.walk() if not part.is_multipart()]
    for subtype, text in (("plain", message.text), ("html", message.html)):
        if text is not None:
            leaf = next(
                part
                for part in leaves
                if part.get_content_type() == f"text/{subtype}" and name_of(part) is None
            )
            assert decoded(leaf) == lines_of(text)
            leaves.remove(leaf)
    found = {(name_of(part), part["content-id"], decoded(part)) for part in leaves}
    assert found == {
        (item.filename, f"<{item.content_id}>" if item.content_id else None, item.content)
        for item in files
    }
    assert len(leaves) == len(files)
    assert {part.get_content_type() for part in leaves} == {
        (item.content_type or guess_media_type(item.filename, item.content)).partition(";")[0]
        for item in files
    }


def test_boundary_that_stands_in_a_part_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    given_tokens = iter(["00" * 15, "11" * 15])
    monkeypatch.setattr(secrets, "token_hex", lambda _=None: next(given_tokens))
    message = Message(
        from_="a@b.test",
        to="x@y.test",
        text=f"--=_{'00' * 15}\n",
        html="<p>",
        headers={"Message-ID": "<a@b.test>"},
    )
    # A message with a Message-ID of its own asks for tokens for its boundary only.
    content = compose(message, hostname="h.test", now=NOW).content
    read = parsed(content)
    assert read.get_boundary() == f"=_{'11' * 15}"
    assert [part.get_content_type() for part in read.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("report.pdf", b"%PDF", "application/pdf"),
        ("Foto.JPG", b"\xff\xd8", "image/jpeg"),
        ("a.docx", b"PK", guess_media_type("b.docx", b"")),
        ("notes.txt", b"plain", "text/plain"),
        ("notes.txt", "größer".encode(), "text/plain; charset=utf-8"),
        ("notes.txt", b"\xff\xfe", "text/plain"),
        ("backup.tar.gz", b"\x1f\x8b", "application/gzip"),
        ("letter.eml", b"From: a@b.test\n\n", "application/octet-stream"),
        ("data:text/html,x", b"", "application/octet-stream"),
        ("no-suffix", b"", "application/octet-stream"),
    ],
)
def test_content_type_follows_from_the_file_name(
    name: str, content: bytes, media_type: str
) -> None:
    assert guess_media_type(name, content) == media_type
    composed = compose(
        Message(
            from_="a@b.test",
            to="x@y.test",
            text="t",
            attachments=[Attachment(filename=name, content=content)],
        ),
        hostname="h.test",
        now=NOW,
    )
    (part,) = parsed(composed.content).iter_attachments()
    assert part.get_content_type() == media_type.partition(";")[0]
    assert part.get_payload(decode=True) == content


@pytest.mark.parametrize("name", ["<>", '"quoted"', "<a>", "a\\b.txt", 'say "hi".txt', "a;b=c.txt"])
def test_file_name_with_marks_of_the_syntax_is_read_back(name: str) -> None:
    files = [Attachment(filename=name, content=b"x")]
    message = Message(from_="a@b.test", to="x@y.test", text="t", attachments=files)
    content = compose(message, hostname="h.test", now=NOW).content
    (part,) = parsed(content).iter_attachments()
    assert name_of(part) == name


def test_attachment_from_a_path_has_its_name_and_octets(tmp_path: Path) -> None:
    path = tmp_path / "größe.png"
    path.write_bytes(b"\x89PNG")
    made = Attachment.from_path(path, content_id="logo")
    assert (made.filename, made.content, made.content_id) == ("größe.png", b"\x89PNG", "logo")
    assert Attachment.from_path(str(path), filename="a.bin").filename == "a.bin"
    with pytest.raises(FileNotFoundError):
        Attachment.from_path(tmp_path / "none")


def refused(**fields: Any) -> dict[str, str]:
    whole: dict[str, Any] = {"from_": "a@b.test", "to": "x@y.test", "text": "t", **fields}
    with pytest.raises(SubmissionRefused) as error:
        compose(Message(**whole), hostname="h.test", now=NOW)
    return {finding.field: finding.code for finding in error.value.findings}


def test_value_that_fits_on_no_line_is_refused_with_its_field() -> None:
    far = "https://example.org/" + "a" * 1000
    assert refused(one_click_unsubscribe=far) == {"one_click_unsubscribe": "line_too_long"}
    assert refused(headers={"List-Id": "a" * 998}) == {"headers.List-Id": "line_too_long"}
    many = " ".join(f"<{number}@example.org>" for number in range(200))
    content = compose(
        Message(from_="a@b.test", to="x@y.test", text="t", headers={"References": many}),
        hostname="h.test",
        now=NOW,
    ).content
    check_wire(content)
    assert parsed(content)["references"].replace("\r\n", "") == many


def test_two_files_of_one_content_id_are_refused() -> None:
    files = [Attachment(filename="a.png", content=b"", content_id="logo")] * 2
    assert refused(html="<p>", attachments=files) == {
        "attachments[1].content_id": "content_id_twice"
    }
