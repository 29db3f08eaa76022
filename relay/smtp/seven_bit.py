"""Content made 7-bit for hosts that do not offer 8BITMIME (RFC 6152 §3, RFC 2045 §6).

    content = to_7bit(content)      # each part means what it meant; CannotConvert: it stays 8-bit

Rules of this file
- A part with 8-bit octets is encoded: text as quoted-printable or base64, all else as base64.
  Whatever is 7-bit already stays octet for octet, but for a label that says 8bit or binary.
- What holds parts is never encoded (RFC 2045 §6.4), nor what a signature covers (RFC 1847).
- Where two readers might disagree about what the parts are, nothing is changed at all.
- Sections of the content are copied once, in pieces of bounded size; the rest is positions.
"""

import codecs
import re
from collections.abc import Iterator
from email.errors import MessageError
from email.message import Message

import msgspec

from relay.smtp.content import BLOCK_OCTETS
from relay.smtp.header_block import HeaderBlock, scan
from relay.smtp.transfer_encoding import base64_lines, is_mostly_8bit, quoted_printable

#: More levels and parts than any mail has: each costs, and somebody else chose how many there are.
DEPTH, PARTS = 30, 1000
#: Signatures over header and body, which no longer hold for converted content.
_SIGNATURES = frozenset({"dkim-signature", "arc-message-signature"})
#: Of composite types only these may be looked into, and of `message/…` only these be encoded.
_SEALED = frozenset({"multipart/signed", "multipart/encrypted"})
_GLOBAL = frozenset(
    "message/global" + rest
    for rest in ("", "-headers", "-delivery-status", "-disposition-notification")
)
_ENCODING = "content-transfer-encoding"
_PLAIN = frozenset({"7bit", "8bit", "binary"})
_MARKS = bytes(range(128)) + b"?" * 128
#: A multipart without a boundary: nobody knows its parts.
_MALFORMED = ("multipart/malformed", "")
_TYPE = re.compile(r"[!#-'*+.0-9^-z|~-]+/[!#-'*+.0-9^-z|~-]+")
_COLON = ord(":")
_BLANK_LINE = re.compile(rb"\n[ \t]+(?:\r|\Z)")
_COMMENT = re.compile(r"\([^()]*\)")


class CannotConvert(Exception):
    """Raised where content cannot be made 7-bit, or must not be; the text says why."""


def to_7bit(content: bytes, *, may_break_signatures: bool = False) -> bytes:
    """The content, which has CRLF line ends, with each 8-bit part encoded.

    CannotConvert where a signature (DKIM, ARC) covers it, unless it `may_break_signatures`; where
    8-bit octets stand in header fields or in a signed or encrypted part; where it is malformed.
    """
    return b"".join(_Conversion(content, may_break_signatures=may_break_signatures).pieces())


class _Entity(msgspec.Struct, frozen=True):
    """A message or part: its fields, and where its body lies. `is_8bit`: somewhere within.

    `has_body`: an empty line ends the fields, whatever follows.
    """

    block: HeaderBlock
    start: int
    body_at: int
    end: int
    kind: str
    boundary: str
    encoding: str
    has_body: bool
    is_8bit: bool
    is_message: bool

    @property
    def names(self) -> list[str]:
        return self.block.names

    @property
    def is_clear(self) -> bool:
        """Whether all readers agree what it is, and how it is encoded: not at all."""
        is_endless = self.kind.startswith("multipart/") and not self.boundary
        is_twice = max(map(self.names.count, ("content-type", _ENCODING))) > 1
        if self.block.is_cut or is_endless or is_twice or self.encoding not in _PLAIN:
            return False
        # A blank before the colon is no field to some readers, a blank line the end of the fields.
        fields = self.block.fields
        return all(field.octets[len(field.name)] == _COLON for field in fields) and not any(
            map(_BLANK_LINE.search, (field.octets for field in fields))
        )

    @property
    def is_open(self) -> bool:
        """Whether labels in it may be changed."""
        return self.is_clear and self.kind not in _SEALED and self.has_body


class _Conversion:
    """One walk through a message; what it gives joins to the converted content."""

    def __init__(self, content: bytes, *, may_break_signatures: bool) -> None:
        self._content = content
        self._view = memoryview(content)
        self._may_break_signatures = may_break_signatures
        self._parts = 0

    def pieces(self) -> Iterator[bytes | memoryview]:
        entity = self._entity(0, len(self._content), "text/plain", is_message=True)
        if not self._may_break_signatures and not _SIGNATURES.isdisjoint(entity.names):
            raise CannotConvert("a signature covers the content")
        yield from self._convert(entity, 0)

    def _convert(self, entity: _Entity, depth: int) -> Iterator[bytes | memoryview]:
        self._parts += 1
        if entity.is_8bit:
            self._check(entity, depth)
        elif not entity.is_open or depth > DEPTH or self._parts > PARTS:
            yield self._view[entity.start : entity.end]
            return
        if entity.boundary:
            yield from self._multipart(entity, depth)
        elif entity.kind == "message/rfc822":
            yield from self._header(entity, "7bit")
            inner = self._entity(entity.body_at, entity.end, "text/plain", is_message=True)
            yield from self._convert(inner, depth + 1)
        elif entity.is_8bit:
            yield from self._leaf(entity)
        else:
            yield from self._header(entity, "7bit")
            yield self._view[entity.body_at : entity.end]

    def _check(self, entity: _Entity, depth: int) -> None:
        """CannotConvert unless it is clear how the 8-bit octets within can be encoded."""
        if not self._is_ascii(entity.start, entity.body_at):
            raise CannotConvert("8-bit octets stand in header fields")
        kind = entity.kind
        if kind in _SEALED:
            raise CannotConvert(f"{kind} must not be changed")
        if depth > DEPTH or self._parts > PARTS:
            raise CannotConvert("it has too many parts")
        if not entity.is_clear:
            raise CannotConvert("its MIME structure is malformed")
        if kind.startswith("message/") and kind != "message/rfc822" and kind not in _GLOBAL:
            raise CannotConvert(f"{kind} has no encoding")

    def _multipart(self, entity: _Entity, depth: int) -> Iterator[bytes | memoryview]:
        """The header, each section behind its delimiter line, and what lies around them."""
        yield from self._header(entity, "7bit")
        inner = "message/rfc822" if entity.kind == "multipart/digest" else "text/plain"
        at, is_part, has_parts = entity.body_at, False, False
        for found in self._delimiters(entity):
            begin = max(found.start(), at)
            if is_part and entity.is_8bit and found.start() < at:
                raise CannotConvert("its MIME structure is malformed")  # two delimiters in a row
            if is_part:
                yield from self._section(at, begin, inner, depth)
            else:
                yield from self._unread(at, begin)
            at = min(found.end() + 2, entity.end)
            yield self._view[begin:at]
            is_part = found[1] is None
            if not is_part:
                break
            has_parts = True
        if entity.is_8bit and not has_parts:
            raise CannotConvert("its MIME structure is malformed")
        if is_part:  # nothing closes the last part; the end of the content's last line does
            end = entity.end - 2 * self._ends_with_content(entity)
            yield from self._section(at, max(end, at), inner, depth)
            at = max(end, at)
        yield from self._unread(at, entity.end)

    def _delimiters(self, entity: _Entity) -> Iterator[re.Match[bytes]]:
        """Delimiter lines of the boundary (RFC 2046 §5.1.1), the closing one too.

        The CRLF before a line belongs to it; the first may be the one that ends the header.
        """
        mark = rb"\r\n--" + re.escape(entity.boundary.encode()) + rb"(--)?[ \t]*(?=\r\n|\Z)"
        return re.compile(mark).finditer(self._content, entity.body_at - 2, entity.end)

    def _section(self, start: int, end: int, kind: str, depth: int) -> Iterator[bytes | memoryview]:
        yield from self._convert(self._entity(start, end, kind, is_message=False), depth + 1)

    def _unread(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        """What no reader shows: the text before the first delimiter and after the last one."""
        if self._is_ascii(start, end):
            yield self._view[start:end]
        else:
            yield self._content[start:end].translate(_MARKS)

    def _leaf(self, entity: _Entity) -> Iterator[bytes | memoryview]:
        body = self._content[entity.body_at : entity.end]
        is_text = entity.kind.startswith("text/") or entity.kind in _GLOBAL
        if is_text and not is_mostly_8bit(body):
            yield from self._header(entity, "quoted-printable")
            yield from quoted_printable(body)
            return
        yield from self._header(entity, "base64")
        yield from base64_lines(body)

    def _header(self, entity: _Entity, encoding: str) -> Iterator[bytes | memoryview]:
        """The fields as they stand, but for the one that says how the body is encoded."""
        said = f"Content-Transfer-Encoding: {encoding}".encode()
        for field in entity.block.fields:
            is_said = field.name == _ENCODING and encoding != entity.encoding
            yield (said if is_said else field.octets) + b"\r\n"
        if encoding != "7bit" and _ENCODING not in entity.names:
            yield said + b"\r\n"
        if encoding != "7bit" and "content-type" not in entity.names:
            charset = "utf-8" if self._is_utf8(entity) else "unknown-8bit"  # RFC 1428 §3
            yield f"Content-Type: text/plain; charset={charset}\r\n".encode()
        if entity.is_message and entity.is_8bit and "mime-version" not in entity.names:
            yield b"MIME-Version: 1.0\r\n"
        yield b"\r\n"

    def _is_utf8(self, entity: _Entity) -> bool:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for at in range(entity.body_at, entity.end, BLOCK_OCTETS):
                decoder.decode(self._view[at : min(at + BLOCK_OCTETS, entity.end)])
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        return True

    def _entity(self, start: int, end: int, kind: str, *, is_message: bool) -> _Entity:
        body_at, has_body = self._body_at(start, end)
        block = scan(self._content[start:body_at])
        given = block.first("content-type")
        read = (kind, "") if given is None else _content_type(given)
        return _Entity(
            block=block,
            start=start,
            body_at=body_at,
            end=end,
            kind=read[0],
            boundary=read[1],
            encoding=_COMMENT.sub("", block.first(_ENCODING) or "7bit").strip().lower(),
            has_body=has_body,
            is_8bit=not self._is_ascii(start, end),
            is_message=is_message,
        )

    def _body_at(self, start: int, end: int) -> tuple[int, bool]:
        """Where the body begins, behind the empty line; the end where there is no such line."""
        if self._content.startswith(b"\r\n", start, end):
            return start + 2, True
        found = self._content.find(b"\r\n\r\n", start, end)
        return (found + 4, True) if found >= 0 else (end, False)

    def _ends_with_content(self, entity: _Entity) -> bool:
        return entity.end == len(self._content) and self._content.endswith(b"\r\n")

    def _is_ascii(self, start: int, end: int) -> bool:
        content, step = self._content, BLOCK_OCTETS
        return all(content[at : min(at + step, end)].isascii() for at in range(start, end, step))


def _content_type(value: str) -> tuple[str, str]:
    """Type in lower case, and the boundary of a multipart."""
    message = Message()
    message["content-type"] = value.replace("\r", " ").replace("\n", " ")
    try:
        kind = message.get_content_type().partition("(")[0].strip()
        is_multipart = kind.startswith("multipart/")
        boundary = (message.get_boundary() or "") if is_multipart else ""
    except (MessageError, ValueError, LookupError, TypeError, AttributeError):
        return _MALFORMED
    return (kind, boundary) if _TYPE.fullmatch(kind) is not None else _MALFORMED
