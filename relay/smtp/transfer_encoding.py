"""Octets in a form that every server passes: quoted-printable and base64 (RFC 2045 §6.7, §6.8).

Large parts are encoded block by block: no call holds the interpreter for long.
"""

import binascii
from collections.abc import Iterator

from relay.smtp.content import whole_lines

#: Octets of a block, which make whole lines of 57.
_BLOCK = 2048 * 57
_LINE = 76
_ASCII = bytes(range(128))


def is_mostly_8bit(octets: bytes) -> bool:
    """Whether base64 is shorter than quoted-printable: over a sixth are beyond ASCII."""
    return len(octets.translate(None, _ASCII)) * 6 > len(octets)


def base64_lines(octets: bytes) -> Iterator[bytes]:
    """Lines of base64 of at most 76 octets, each with its CRLF, in blocks."""
    for start in range(0, len(octets), _BLOCK):
        encoded = binascii.b2a_base64(octets[start : start + _BLOCK], newline=False)
        lines = [encoded[at : at + _LINE] for at in range(0, len(encoded), _LINE)]
        yield b"\r\n".join(lines) + b"\r\n"


def quoted_printable(text: bytes) -> Iterator[bytes]:
    """Text with CRLF line ends in lines of at most 76 octets, in blocks; it ends as it ended."""
    for block in whole_lines(text):
        if block.endswith(b"\n"):
            yield binascii.b2a_qp(block, istext=True)
        else:  # the line end tells how soft line breaks are to be written
            yield binascii.b2a_qp(block + b"\r\n", istext=True)[:-2]
