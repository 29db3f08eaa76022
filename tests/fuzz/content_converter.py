"""Messages of any structure made 7-bit: each part keeps its octets, or nothing is changed."""

import re

from relay.smtp.seven_bit import CannotConvert, to_7bit
from tests.fuzz.campaign import Target
from tests.fuzz.source import Source
from tests.support.mime_parts import assert_same_parts

_LINE_END = re.compile(rb"\r?\n|\r")
_TEXT = "From: a@b.test\n\ngr\u00fc\u00dfe\n".encode()
_KINDS = (
    b"multipart/mixed; boundary=b",
    b"multipart/alternative; boundary=c",
    b'Multipart/Digest; boundary="b b"',
    b"multipart/signed; boundary=s",
    b"message/rfc822",
    b"message/global",
    b"message/delivery-status",
    b"text/plain; charset=utf-8",
    b"text/html",
    b"application/octet-stream",
)
WORDS = (
    b"--b\n",
    b"--b--\n",
    b"--c\n",
    b"--b b\n",
    b"--s--\n",
    b"\n\n",
    b"Content-Type: ",
    b"Content-Transfer-Encoding: 8bit\n",
    b"Content-Transfer-Encoding: base64\n",
    b"boundary=c",
    b"message/rfc822\n\n",
    b"\xc3\xbc",
    b"\xff",
    b" \n",
)


def entity(source: Source, depth: int = 0) -> bytes:
    """A part, with parts of its own or without."""
    kind = source.one(_KINDS if depth < 4 else _KINDS[-3:])
    head = b"Content-Type: %b\n" % kind if source.chance(0.9) else b""
    if source.chance(0.7):
        label = source.one((b"8bit", b"8bit", b"7bit", b"binary", b"base64", b"x"))
        head += b"Content-Transfer-Encoding: %b\n" % label
    if b"boundary" in kind:
        name = kind.partition(b"boundary=")[2].strip(b'"')
        parts = [entity(source, depth + 1) for _ in range(1 + source.below(3))]
        body = b"".join(b"--%b\n%b\n" % (name, part) for part in parts) + b"--%b--\n" % name
    elif kind.startswith(b"message/"):
        body = entity(source, depth + 1)
    else:
        body = source.one((_TEXT, _TEXT, b"", b"plain\n", source.octets(200), b"\xe9" * 300))
    return b"%b\n%b" % (head, body)


class ContentConverterTarget(Target):
    name = "content-converter"

    def check(self, source: Source) -> None:
        content = b"From: a@b.test\nSubject: x\n" + entity(source)
        if source.chance(0.7):
            content = source.mutated(content, WORDS)
        content = _LINE_END.sub(b"\r\n", content)
        try:
            made = to_7bit(content)
        except CannotConvert:
            return
        assert made.isascii()
        assert made.count(b"\n") == made.count(b"\r") == made.count(b"\r\n")
        assert len(made) <= 4 * len(content) + 100 * content.count(b"\n")
        assert to_7bit(made) == made
        assert_same_parts(content, made)
