"""DKIM signatures: another implementation verifies them, whatever the message looks like.

10,000 messages are verified with RELAY_TEST_PROFILE=thorough, 1,000 otherwise.
"""

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from random import Random

import dkim
import pytest
from hypothesis import given
from hypothesis import strategies as st

import relay.smtp.content
import relay.smtp.dkim
from relay.smtp.dkim import (
    NEVER_SIGNED,
    OVERSIGNED,
    SIGNED,
    Canonicalization,
    SigningRules,
    body_hash,
    relaxed_field,
    sign,
)
from relay.smtp.dkim_key import DkimKey, make_key

MESSAGES = 10_000 if os.environ.get("RELAY_TEST_PROFILE") == "thorough" else 1_000
CASES = 10
#: Messages whose signatures were good, by case.
VERIFIED = Counter[int]()
FORMS = ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple")
RSA = make_key("example.org", "rsa2026", "rsa")
ED25519 = make_key("example.org", "ed2026", "ed25519")
RECORDS = {f"{key.name}.".encode(): key.record.encode() for key in (RSA, ED25519)}

NAMES = ["Subject", "To", "Cc", "Date", "Message-ID", "X-Thing", "List-Unsubscribe", "Received"]
NAMES += ["List-Unsubscribe-Post", "reply-to", "SENDER", "MIME-Version", "References", "X-Empty"]
WORDS = [
    "",
    " ",
    "\t",
    "a",
    "word",
    "  two  blanks ",
    "\r\n ",
    "\r\n\t",
    "ümläut",
    "=?utf-8?q?=C3?=",
]
WORDS += ["<a@b.test>", ",", ";", ":", "b=", " b= x", "x" * 70, "\t \t"]
LINES = ["", ".", "..", " ", "\t", "  ", "text", ". x", "a  b", "a\tb ", "trailing   ", "\ttab"]
LINES += ["ünïcödé", "From me", "x" * 200, " lead", "b=", "\x0b", "\x00" * 3, "-- "]


def text_of(record: bytes, timeout: float = 5) -> bytes | None:
    return RECORDS.get(record)


def verdicts(content: bytes) -> list[bool]:
    """What another implementation says of each signature."""
    message = dkim.DKIM(content)
    count = sum(name.lower() == b"dkim-signature" for name, _ in message.headers)
    return [message.verify(idx=index, dnsfunc=text_of) for index in range(count)]


def rules(form: str = "relaxed/relaxed", **more: float) -> SigningRules:
    return SigningRules(canonicalization=Canonicalization.parse(form), **more)


def a_message(random: Random) -> bytes:
    """A message as it may stand in the queue: any header, any body, with CRLF line ends."""
    fields = ["From: <ann@example.org>"] if random.random() < 0.9 else []
    for _ in range(random.choice((0, 1, 5, 12))):
        value = "".join(random.choices(WORDS, k=random.randrange(6)))
        fields.append(f"{random.choice(NAMES)}:{random.choice(('', ' '))}{folded(value)}")
    random.shuffle(fields)
    header = "".join(f"{field}\r\n" for field in fields)
    ending = random.choice(("", "\r\n", "\r\n\r\n\r\n", " \r\n", "\r\n \r\n\t\r\n"))
    body = "\r\n".join(random.choices(LINES, k=random.choice((0, 1, 3, 40)))) + ending
    if random.random() < 0.05:
        return header.encode()  # a header alone
    return f"{header}\r\n{body}".encode(random.choice(("utf-8", "latin-1")), "replace")


def folded(value: str) -> str:
    """Continuation lines that hold something: a blank one ends a header for some readers."""
    first, *others = value.split("\r\n")
    return "\r\n".join([first, *(f"{other}x" if not other.strip() else other for other in others)])


def on_the_wire(content: bytes) -> bytes:
    """What a receiver gets: the last line has its end."""
    return content if content.endswith(b"\r\n") else content + b"\r\n"


@pytest.mark.parametrize("case", range(CASES))
def test_dkim_signatures_of_generated_messages_are_verified_by_another_implementation(
    case: int, tell: Callable[[object], None]
) -> None:
    random = Random(case)
    for number in range(MESSAGES // CASES):
        content = a_message(random)
        signed = sign(content, [RSA, ED25519], rules(random.choice(FORMS)), now=time.time())
        assert verdicts(on_the_wire(signed + content)) == [True, True], (case, number, content)
        VERIFIED[case] += 1
    if case == CASES - 1:
        messages = VERIFIED.total()
        tell(f"dkim: {2 * messages} signatures of {messages} generated messages verified by dkimpy")


MESSAGE = (
    b"Received: by relay.example id 1; now\r\n"
    b"From: Ann <ann@example.org>\r\nTo: bob@x.test\r\nSubject: hello\r\n"
    b"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n"
    b"List-Unsubscribe: <https://example.org/u/1>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"Feedback-ID: a:b:c\r\n\r\nhello\r\n"
)


def signed_message(key: DkimKey = ED25519, **more: float) -> bytes:
    return sign(MESSAGE, [key], rules(**more), now=time.time()) + MESSAGE


@pytest.mark.parametrize("name", OVERSIGNED)
@pytest.mark.parametrize("where", ["top", "end"])
def test_dkim_field_that_is_added_later_breaks_the_signature(name: str, where: str) -> None:
    header, _, body = signed_message().partition(b"\r\n\r\n")
    added = f"{name}: evil".encode()
    parts = (added, header) if where == "top" else (header, added)
    assert verdicts(b"\r\n".join(parts) + b"\r\n\r\n" + body) == [False]


@pytest.mark.parametrize(
    "field", [b"List-Unsubscribe", b"List-Unsubscribe-Post", b"Feedback-ID", b"Subject", b"To"]
)
def test_dkim_field_that_is_changed_or_removed_breaks_the_signature(field: bytes) -> None:
    content = signed_message()
    start = content.index(b"\r\n" + field + b": ") + 2
    end = content.index(b"\r\n", start)
    assert verdicts(content[: end - 1] + b"!" + content[end:]) == [False]
    assert verdicts(content[:start] + content[end + 2 :]) == [False]


@pytest.mark.parametrize("addition", [b"more\r\n", b".\r\n"])
def test_dkim_body_that_grows_breaks_the_signature(addition: bytes) -> None:
    with pytest.raises(dkim.ValidationError, match="body hash mismatch"):
        verdicts(signed_message() + addition)


@pytest.mark.parametrize(
    "before", [b"Received: from a by b; now\r\n", b"Received: one\r\nReceived: two\r\n"]
)
def test_dkim_signature_holds_when_servers_add_their_trace_fields(before: bytes) -> None:
    assert verdicts(before + signed_message()) == [True]


def test_dkim_repeated_fields_are_each_signed_the_last_first() -> None:
    twice = MESSAGE.replace(b"To: bob", b"List-Id: <one>\r\nList-Id: <two>\r\nTo: bob")
    content = sign(twice, [ED25519], rules(), now=time.time()) + twice
    assert content.count(b"list-id:list-id") == 1
    assert verdicts(content) == [True]
    swapped = (
        content.replace(b"<one>", b"<x>").replace(b"<two>", b"<one>").replace(b"<x>", b"<two>")
    )
    assert verdicts(swapped) == [False]


def test_dkim_signature_has_an_end_only_where_one_is_asked_for() -> None:
    assert b" x=" not in signed_message()
    content = signed_message(lifetime_s=86_400.0)
    tags = dict(part.strip().split(b"=", 1) for part in content.split(b"; ") if b"=" in part)
    assert b" x=" in content and verdicts(content) == [True]
    assert (
        int(content.split(b" x=")[1].split(b";")[0]) - int(content.split(b"\tt=")[1].split(b";")[0])
        == 86_400
    )
    assert b"DKIM-Signature: v" in tags
    long_ago = sign(MESSAGE, [ED25519], rules(lifetime_s=60.0), now=time.time() - 86_400) + MESSAGE
    with pytest.raises(dkim.ValidationError, match="x= value is past"):
        verdicts(long_ago)


def test_dkim_signature_covers_no_length_and_folds_its_lines() -> None:
    names = tuple(f"x-quite-a-long-field-name-{number}" for number in range(30))
    key = make_key(f"{'a' * 60}.{'b' * 60}.example", "s" * 60, "rsa")
    fields = sign(MESSAGE, [key], SigningRules(signed=names), now=time.time())
    assert all(len(line) <= 140 for line in fields.split(b"\r\n"))
    short = sign(MESSAGE, [RSA], SigningRules(signed=names), now=time.time())
    assert max(map(len, short.split(b"\r\n"))) <= 78
    assert b" l=" not in short and b"\tl=" not in short


def test_dkim_forms_are_those_of_the_standard() -> None:
    """RFC 6376 §3.4.5."""
    assert relaxed_field(b"A: X") == b"a:X"
    assert relaxed_field(b"B : Y\t\r\n\tZ  ") == b"b:Y Z"
    body = b" C \r\nD \t E\r\n\r\n\r\n"
    forms = {body: (b" C\r\nD E\r\n", b" C \r\nD \t E\r\n"), b"": (b"", b"\r\n")}
    forms[b"\r\n \r\n\r\n"] = (b"", b"\r\n \r\n")
    for body, (relaxed, simple) in forms.items():
        assert body_hash(body, 0, is_relaxed=True) == hashlib.sha256(relaxed).digest()
        assert body_hash(body, 0, is_relaxed=False) == hashlib.sha256(simple).digest()


def slow_form(body: bytes, is_relaxed: bool) -> bytes:
    """The standard, word by word."""
    lines = (body + b"\r\n").split(b"\r\n")
    if is_relaxed:
        lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines) or (b"" if is_relaxed else b"\r\n")


@given(st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"a", b".", b"\x00", b"\xff"])))
def test_dkim_body_in_small_blocks_is_the_body_as_a_whole(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    for octets in (2, 3, 5, 128 * 1024):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(relay.smtp.dkim, "BLOCK_OCTETS", octets)
            patch.setattr(relay.smtp.content, "BLOCK_OCTETS", octets)
            for is_relaxed in (True, False):
                expected = hashlib.sha256(slow_form(body, is_relaxed)).digest()
                assert body_hash(b"X: y\r\n\r\n" + body, 8, is_relaxed=is_relaxed) == expected


@given(st.binary())
def test_dkim_signs_whatever_comes(content: bytes) -> None:
    for form in FORMS:
        fields = sign(content, [ED25519], rules(form), now=time.time())
        assert fields.startswith(b"DKIM-Signature: v=1;") and fields.endswith(b"\r\n")


def test_dkim_lists_of_fields_do_not_overlap() -> None:
    assert not set(OVERSIGNED) & set(SIGNED)
    assert not NEVER_SIGNED & {*OVERSIGNED, *SIGNED}


@pytest.mark.parametrize("text", ["", "relaxed", "relaxed/", "none/simple", "simple/simple/simple"])
def test_dkim_unknown_canonicalization_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write simple or relaxed"):
        Canonicalization.parse(text)
