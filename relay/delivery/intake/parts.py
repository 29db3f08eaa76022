"""A foreign message taken apart within bounds (RFC 5322, 2045, 2046): fields, parts, decoded text.

Python's `email` reads parameters and encoded words; taking the parts apart is done here, because
its parser knows no bounds: a message may nest a thousand parts, or have a million.

Rules of this file
- Nothing raises: what cannot be read is left out.
- Work is linear in the octets that are looked at, and these are bounded.
"""

import base64
import binascii
import quopri
import re
from collections.abc import Iterator
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message

import msgspec

#: What is looked at of a message; the rest is the returned copy of ours, or an attack.
OCTETS = 512 * 1024
DEPTH = 8
PARTS = 50
FIELDS = 300
FIELD_OCTETS = 4096
HEADER_OCTETS = 64 * 1024
#: More of them in one field are left as they are: each that does not end is looked for to the end.
_ENCODED_WORDS = 50
#: Text of one part, decoded.
TEXT_OCTETS = 64 * 1024

_FIELD = re.compile(rb"([!-9;-~]{1,100})[ \t]{0,20}:[ \t]{0,20}")
_LINE_END = re.compile(rb"\r?\n")
_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_MARK_END = rb"(?:(--)|[ \t]{0,80}\r?(?:\n|$))"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Fields:
    """Header fields by lower-case name, unfolded, in their order.

    Encoded words (RFC 2047) are read of what is asked for only: each costs, and there may be many.
    """

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def get(self, name: str) -> str:
        """The first value; empty where there is none."""
        return next((_readable(value) for key, value in self.pairs if key == name), "")

    def all(self, name: str) -> list[str]:
        """Every value of the name."""
        return [_readable(value) for key, value in self.pairs if key == name]


class Part(msgspec.Struct, frozen=True):
    """A part that holds no others: its type in lower case, its fields, its octets as they came."""

    kind: str
    fields: Fields
    body: bytes

    @property
    def text(self) -> str:
        """The decoded text, without control characters."""
        return _CONTROL.sub("", _decoded(self.body, self.fields).replace("\r\n", "\n"))


def fields_of(block: bytes) -> Fields:
    """Fields of a header block, or of a block of a status part."""
    pairs: list[tuple[str, str]] = []
    name, value = "", b""
    for line in _LINE_END.split(block[:HEADER_OCTETS])[: 4 * FIELDS]:
        if line[:1] in (b" ", b"\t") and name:
            value = (value + b" " + line.strip())[:FIELD_OCTETS]
            continue
        if name:
            pairs.append((name, _text(value)))
        match = _FIELD.match(line)
        name, value = "", b""
        if match is not None and len(pairs) < FIELDS:
            name = match[1].decode("ascii").lower()
            value = line[match.end() :][:FIELD_OCTETS].rstrip()
    if name:
        pairs.append((name, _text(value)))
    return Fields(pairs)


def header_of(octets: bytes) -> tuple[Fields, bytes]:
    """The fields of a message or part, and what follows them."""
    if octets.startswith((b"\r\n", b"\n")):
        return Fields([]), octets.lstrip(b"\r\n")
    end = _END_OF_HEADER.search(octets, 0, HEADER_OCTETS)
    if end is None:
        return fields_of(octets), b""
    return fields_of(octets[: end.start()]), octets[end.end() :]


def leaves_of(content: bytes) -> tuple[Fields, list[Part]]:
    """The message's own fields, and all its parts that hold no others, in their order.

    A message within (message/rfc822) is a part, not looked into.
    """
    fields, body = header_of(content[:OCTETS])
    found: list[Part] = []
    for part in _walk(fields, body, 0):
        found.append(part)
        if len(found) >= PARTS:
            break
    return fields, found


def _walk(fields: Fields, body: bytes, depth: int) -> Iterator[Part]:
    kind, boundary = content_type(fields.get("content-type"))
    if not kind.startswith("multipart/") or not boundary or depth >= DEPTH:
        yield Part(kind, fields, body)
        return
    for section in _sections(body, boundary):
        yield from _walk(*header_of(section), depth + 1)


def _sections(body: bytes, boundary: str) -> Iterator[bytes]:
    """What lies between the lines of a boundary; without a closing one, up to the end."""
    # RFC 2046 §5.1.1: nothing but blanks follows the mark, `b1` is not the line of `b10`.
    mark = re.compile(rb"\n--" + re.escape(boundary.encode("utf-8", "replace")) + _MARK_END)
    text = b"\n" + body
    found = mark.search(text)
    for _ in range(PARTS):
        if found is None or found[1]:
            return
        begin = found.end()
        found = mark.search(text, begin - 1)
        section = text[begin : found.start() if found is not None else len(text)]
        yield section.removesuffix(b"\r")


def content_type(value: str) -> tuple[str, str]:
    """Type in lower case and boundary of a Content-Type field."""
    message = Message()
    message["content-type"] = value.replace("\n", " ").replace("\r", " ") or "text/plain"
    try:
        boundary = message.get_boundary() or ""
        return message.get_content_type(), boundary[:200]
    except (MessageError, ValueError, LookupError, TypeError, AttributeError):
        return "text/plain", ""


def _decoded(body: bytes, fields: Fields) -> str:
    octets = body[: 2 * TEXT_OCTETS]
    encoding = fields.get("content-transfer-encoding").strip().lower()
    try:
        if encoding == "base64":
            kept = re.sub(rb"[^A-Za-z0-9+/]", b"", octets)
            octets = base64.b64decode(kept[: len(kept) // 4 * 4] or b"")
        elif encoding == "quoted-printable":
            octets = quopri.decodestring(octets)
    except (binascii.Error, ValueError):
        pass
    message = Message()
    message["content-type"] = fields.get("content-type").replace("\n", " ").replace("\r", " ")
    try:
        charset = str(message.get_content_charset("utf-8"))
        return octets[:TEXT_OCTETS].decode(charset, "replace")
    except (LookupError, ValueError, TypeError, AttributeError):
        return octets[:TEXT_OCTETS].decode("utf-8", "replace")


def _text(value: bytes) -> str:
    text = value.decode("utf-8", "replace").replace("\r", " ").replace("\n", " ")
    return _CONTROL.sub("", text).strip()


def _readable(text: str) -> str:
    """A field's value with its encoded words read."""
    if "=?" in text and text.count("=?") <= _ENCODED_WORDS:
        try:
            text = str(make_header(decode_header(text)))
        except (MessageError, ValueError, LookupError, binascii.Error):
            pass
        text = _CONTROL.sub("", text.replace("\r", " ").replace("\n", " ")).strip()
    return text
