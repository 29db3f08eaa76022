"""Content made 7-bit: another reader finds the same parts in it, with the same octets."""

import contextlib
import email
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.smtp.content import BLOCK_OCTETS, has_8bit_header
from relay.smtp.seven_bit import DEPTH, PARTS, CannotConvert, to_7bit
from tests.support.mime_parts import assert_same_parts

HEADER = b"From: a@b.test\r\nSubject: hi\r\n there\r\n"
MIME = HEADER + b"MIME-Version: 1.0\r\n"
TEXT = "Grüße,\r\n\r\n--\r\n.\r\nFrom here =3D on \r\n\tÄ" + "0ö" * 9 + "x" * 200 + "\r\n"


def converted(content: bytes, **more: bool) -> bytes:
    """The converted content, which means what it meant and is not changed again."""
    made = to_7bit(content, **more)
    assert made.isascii()
    assert_same_parts(content, made)
    assert to_7bit(made, **more) == made
    assert made.count(b"\n") == made.count(b"\r") == made.count(b"\r\n")
    return made


# -- generated messages ----------------------------------------------------------------------

_LINES = ["", ".", "--", "--b0", "--b1--x", "From me", "x=3D ", "text\t", "ünïcödé", "日本語" * 20]
_LINES += ["x" * 300, "--b0--", "Content-Type: text/plain", " ", "ä" * 400, "é"]
_TEXTS = st.lists(st.sampled_from(_LINES), max_size=6).map("\r\n".join)
_BODIES = st.one_of(
    _TEXTS.map(str.encode),
    _TEXTS.map(lambda text: text.encode("latin-1", "replace")),
    st.binary(max_size=200).map(lambda octets: re.sub(rb"[\r\n]", b"\r\n", octets)),
)
_LABELS = st.sampled_from(["", "8bit", "7bit", "Binary", " 8BIT (really)", "8Bit"])
_TYPES = ["", "text/plain", "text/plain; charset=utf-8", "text/html; charset=iso-8859-1"]
_TYPES += ["application/pdf", "image/png; name=x"]


def labelled(kind: str, label: str, body: bytes, more: str = "") -> bytes:
    fields = [f"Content-Type: {kind}"] * bool(kind) + [more] * bool(more)
    fields += [f"Content-Transfer-Encoding: {label}"] * bool(label)
    return "".join(f"{field}\r\n" for field in fields).encode() + b"\r\n" + body


_LEAVES = st.builds(labelled, st.sampled_from(_TYPES), _LABELS, _BODIES)


def _multipart(
    parts: list[bytes], kind: str, label: str, around: tuple[bytes, bytes], name: str, is_open: bool
) -> bytes:
    body = around[0] + b"\r\n" if around[0] else b""
    body += b"".join(b"--%b\r\n%b\r\n" % (name.encode(), part) for part in parts)
    if not is_open:
        body += f"--{name}--\r\n".encode() + around[1]
    return labelled(f'multipart/{kind};\r\n boundary="{name}"', label, body)


def _composites(parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.builds(
            _multipart,
            st.lists(parts, min_size=1, max_size=3),
            st.sampled_from(["mixed", "alternative", "digest", "related", "signed"]),
            _LABELS,
            st.tuples(_BODIES, _BODIES),
            st.sampled_from(["b0", "b1", "b1 x", "=_(b)+?", "B0"]),
            st.booleans(),
        ),
        st.builds(labelled, st.just("message/rfc822"), _LABELS, parts),
        st.builds(labelled, st.just("message/global"), _LABELS, parts),
    )


_ENTITIES = st.recursive(_LEAVES, _composites, max_leaves=6)
_MESSAGES = st.builds(
    lambda header, entity: header + entity, st.sampled_from([HEADER, MIME]), _ENTITIES
)


@given(_MESSAGES)
def test_whatever_is_converted_means_what_it_meant(content: bytes) -> None:
    with contextlib.suppress(CannotConvert):
        converted(content)


@given(_MESSAGES, st.data())
def test_damaged_messages_are_converted_right_or_not_at_all(
    content: bytes, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(start + 20, len(content))))
    middle = data.draw(st.sampled_from([b"", b"\r\n", b"--b0\r\n", b"\r\n--b1--\r\n", b": ", b"x"]))
    damaged = re.sub(rb"\r?\n|\r", b"\r\n", content[:start] + middle + content[end:])
    with contextlib.suppress(CannotConvert):
        converted(damaged)


# -- each rule by itself -----------------------------------------------------------------------


def multipart(*parts: bytes, kind: str = "mixed") -> bytes:
    return _multipart(list(parts), kind, "8bit", (b"", b""), "=_b", is_open=False)


def labels(content: bytes) -> list[str | None]:
    return [part["Content-Transfer-Encoding"] for part in email.message_from_bytes(content).walk()]


def test_text_becomes_quoted_printable_and_other_content_base64() -> None:
    text = labelled("text/plain; charset=utf-8", "8bit", TEXT.encode())
    image = labelled("image/png", "binary", bytes(range(13, 256)).replace(b"\r", b""))
    made = converted(MIME + multipart(text, image))
    assert labels(made) == ["7bit", "quoted-printable", "base64"]
    assert b"\r\nGr=C3=BC=C3=9Fe,\r\n" in made and b"From here =3D3D on=20\r\n" in made
    assert max(map(len, made.split(b"\r\n"))) <= 76


def test_text_that_is_mostly_beyond_ascii_becomes_base64() -> None:
    made = converted(MIME + labelled("text/plain; charset=utf-8", "8bit", "日本語\r\n".encode()))
    assert labels(made) == ["base64"] and made.endswith(b"\r\n\r\n5pel5pys6KqeDQo=\r\n")


def test_parts_of_messages_within_are_converted_and_what_holds_them_is_not_encoded() -> None:
    inner = MIME + multipart(labelled("text/plain", "8bit", TEXT.encode()), kind="alternative")
    inner = inner.replace(b"=_b", b"=_a")
    made = converted(MIME + multipart(labelled("message/rfc822", "8bit", inner)))
    assert labels(made) == ["7bit", "7bit", "7bit", "quoted-printable"]


def test_digest_holds_messages_where_no_type_is_said() -> None:
    inner = b"\r\n" + HEADER + b"\r\n" + TEXT.encode()
    made = converted(MIME + multipart(inner, kind="digest"))
    assert labels(made) == ["7bit", None, "quoted-printable"]


def test_what_is_7bit_stays_as_it_is_but_for_a_label_that_says_more() -> None:
    kept = labelled("text/plain", "quoted-printable", b"=C3=BC \r\nFrom\r\n")
    said = labelled("text/html", "BINARY", b"<p>\r\n")
    text = labelled("text/plain", "8bit", TEXT.encode())
    made = converted(MIME + multipart(kept, said, text))
    assert kept in made and said.replace(b"BINARY", b"7bit") in made


def test_signed_part_that_is_7bit_stays_octet_for_octet_beside_one_that_is_converted() -> None:
    signed = multipart(labelled("text/plain", "8bit", b"signed \r\n"), kind="signed")
    signed = signed.replace(b"=_b", b"=_s")
    text = labelled("text/plain", "8bit", TEXT.encode())
    assert signed in converted(MIME + multipart(signed, text))


def test_message_without_mime_fields_gets_them_with_the_charset_that_it_shows() -> None:
    for octets, charset in ((TEXT.encode(), "utf-8"), (b"Gr\xfc\xdfe\r\n", "unknown-8bit")):
        message = email.message_from_bytes(converted(HEADER + b"\r\n" + octets))
        assert message["MIME-Version"] == "1.0"
        assert message["Content-Type"] == f"text/plain; charset={charset}"


def test_message_global_is_encoded_whole_as_its_kind_may_be() -> None:
    inner = "Subject: Grüße\r\nContent-Transfer-Encoding: 8bit\r\n\r\nhello\r\n".encode()
    made = converted(MIME + labelled("message/global", "8bit", inner))
    assert (
        b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSubject: Gr=C3=BC=C3=9Fe\r\n"
        in made
    )


def test_text_around_the_parts_that_nobody_is_shown_loses_its_8bit_octets() -> None:
    text = labelled("text/plain", "8bit", TEXT.encode())
    around = (b"f\xc3\xbcr alte Leser", b"\xff\r\n")
    made = to_7bit(MIME + _multipart([text], "mixed", "", around, "=_b", is_open=False))
    assert b"\r\nf??r alte Leser\r\n--=_b\r\n" in made and made.endswith(b"--=_b--\r\n?\r\n")


UTF8 = TEXT.encode()
PART = labelled("text/plain", "8bit", UTF8)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (MIME + b"X-Thing: \xc3\xbc\r\n" + PART, "header fields"),
        (MIME + multipart(b"X-Thing: \xc3\xbc\r\n\r\nplain\r\n"), "header fields"),
        (MIME + labelled("message/rfc822", "8bit", b"Subject: \xff\r\n\r\nx\r\n"), "header fields"),
        (MIME + multipart(PART, kind="signed"), "multipart/signed must not"),
        (MIME + multipart(PART, kind="encrypted"), "multipart/encrypted must not"),
        (MIME + labelled("Multipart/SIGNED (x); boundary=b", "", b"\xff"), "multipart/signed must"),
        (b"DKIM-Signature: v=1\r\n" + MIME + PART, "a signature covers"),
        (b"ARC-Message-Signature: i=1\r\n" + MIME + PART, "a signature covers"),
        (MIME + labelled("message/partial; id=1", "8bit", UTF8), "message/partial has no encoding"),
        (MIME + labelled("text/plain", "base64", UTF8), "malformed"),
        (MIME + labelled("text/plain", "x-uuencode", UTF8), "malformed"),
        (MIME + labelled("message/rfc822", "base64", UTF8), "malformed"),
        (MIME + labelled("multipart/mixed", "8bit", UTF8), "malformed"),
        (MIME + labelled("multipart/mixed; boundary=b", "8bit", UTF8), "malformed"),
        (MIME + labelled("text", "8bit", UTF8, "Content-Type: text/html"), "malformed"),
        (MIME + labelled("text/x", "8bit", UTF8, "Content-transfer-encoding: 7bit"), "malformed"),
        (MIME + labelled("text/plain", "8bit", UTF8, "X-Thing : x"), "malformed"),
        (MIME + labelled("text/plain", "8bit", UTF8, "X-Thing: x\r\n\t"), "malformed"),
        (MIME + multipart(b"--=_b\r\n" + PART), "malformed"),
        (MIME + multipart(b"no field\r\n" + PART), "malformed"),
        (MIME + b"".join([b"Content-Type: message/rfc822\r\n\r\n"] * (DEPTH + 1)) + PART, "many"),
        (MIME + multipart(*[b"\r\n"] * PARTS, PART), "many parts"),
    ],
)  # fmt: skip
def test_what_must_not_or_cannot_be_changed_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(CannotConvert, match=why):
        to_7bit(content)


def test_content_that_a_signature_covers_is_converted_where_that_is_wanted() -> None:
    content = b"DKIM-Signature: v=1\r\n" + MIME + PART
    assert labels(converted(content, may_break_signatures=True)) == ["quoted-printable"]


@pytest.mark.parametrize("kind", ["text/plain", "application/zip"])
def test_large_content_is_converted_in_blocks(kind: str) -> None:
    line = (TEXT * 12).encode()
    body = line * (20 * BLOCK_OCTETS // len(line)) + b"\xff" * 3 * BLOCK_OCTETS
    content = MIME + labelled(kind, "8bit", body + b"\r\n")
    tracemalloc.start()
    made = to_7bit(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert email.message_from_bytes(made).get_payload(decode=True) == body + b"\r\n"
    # The body, what it is made of, and that in one piece; no more than blocks besides.
    assert peak < len(body) + 2 * len(made) + 40 * BLOCK_OCTETS
    assert max(map(len, made.split(b"\r\n"))) <= 76


@pytest.mark.parametrize(
    ("content", "is_8bit"),
    [
        (b"A: b\r\n\r\n\xff", False),
        (b"A: \xff\r\n\r\n", True),
        (b"A: \xff\r\n", True),
        (b"\r\n\xff", False),
    ],
)
def test_8bit_header_is_told_from_an_8bit_body(content: bytes, is_8bit: bool) -> None:
    assert has_8bit_header(content) is is_8bit
