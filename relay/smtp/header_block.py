"""The header block of a message as it stands on the wire (RFC 5322 §2.2), scanned and edited.

Fields are never re-folded or re-encoded: what a signature covers stays as it was. The body is
not looked at. A line that is no field ends the block, as in Postfix: the rest is body.
"""

import re
from collections.abc import Container, Iterator

import msgspec

_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")


class Field(msgspec.Struct, frozen=True):
    """One field: its lower-case name and its octets as they stand, without the last CRLF."""

    name: str
    octets: bytes

    @property
    def value(self) -> str:
        """The value unfolded, without surrounding blanks; undecodable octets are replaced."""
        value = self.octets.partition(b":")[2].replace(b"\r\n", b"")
        return value.decode("utf-8", "replace").strip(" \t")


class HeaderBlock(msgspec.Struct, frozen=True):
    """The fields of a message in order, and where the rest begins.

    `content[body_at:]` begins with the empty line, if there is one. `is_cut` says that a line
    which is no field ended the block, so that an empty line must be put between.
    """

    fields: tuple[Field, ...]
    body_at: int
    is_cut: bool = False

    @property
    def names(self) -> list[str]:
        return [field.name for field in self.fields]

    def first(self, name: str) -> str | None:
        """The value of the first field of this (lower-case) name."""
        return next(self.values(name), None)

    def values(self, name: str) -> Iterator[str]:
        """The values of all fields of this (lower-case) name, in order."""
        return (field.value for field in self.fields if field.name == name)


def scan(content: bytes) -> HeaderBlock:
    """Scan the header block of content that has CRLF line ends."""
    if content.startswith(b"\r\n"):
        return HeaderBlock((), 0)
    end = content.find(b"\r\n\r\n")
    if end < 0:
        end = len(content) - 2 if content.endswith(b"\r\n") else len(content)
    fields: list[Field] = []
    position = 0
    for octets in _FIELD_END.split(content[:end]):
        match = _NAME.match(octets)
        if match is None:
            return HeaderBlock(tuple(fields), position, is_cut=bool(octets))
        fields.append(Field(match[1].decode("ascii").lower(), octets))
        position += len(octets) + 2
    return HeaderBlock(tuple(fields), min(position, len(content)))


def rewrite(content: bytes, block: HeaderBlock, *, top: bytes, drop: Container[str]) -> bytes:
    """The content with `top` (whole fields, each with its CRLF) first and some names left out."""
    if not block.is_cut and not any(field.name in drop for field in block.fields):
        return top + content
    kept = b"".join(field.octets + b"\r\n" for field in block.fields if field.name not in drop)
    gap = b"\r\n" if block.is_cut else b""
    return b"".join((top, kept, gap, content[block.body_at :]))
