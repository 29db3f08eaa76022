"""Content of any octets in any blocks: one message at the other end, nothing bare on the wire."""

import re

from relay.smtp.content import ContentEncoder, has_nul, is_8bit, is_normal, normalize, wire_octets
from tests.fuzz.campaign import Target
from tests.fuzz.source import Source

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
WORDS = (b"\r\n.\r\n", b"\r.\r", b"\n.\n", b"\r\n..", b".", b"\r", b"\n", b"\r\r\n", b"\n\r", b"\0")


def content(source: Source) -> bytes:
    """A body with ends of data of every kind in it."""
    lines = [source.one((b"hello", b"", b".", b"..", b".x", b"\xc3\xa9")) for _ in range(5)]
    octets = source.one((b"\r\n", b"\r\n", b"\n", b"\r")).join(lines)
    if source.chance(0.001):
        octets *= source.below(20_000)
    return source.mutated(octets, WORDS, most=8)


class ContentEncoderTarget(Target):
    name = "content-encoder"

    def check(self, source: Source) -> None:
        octets = content(source)
        encoder = ContentEncoder()
        wire = b"".join(map(encoder.encode, source.cut(octets))) + encoder.finish()
        assert _BARE.search(wire) is None
        assert len(wire) <= 3 * len(octets) + 5
        normal = normalize(octets)
        assert is_normal(normal) and normalize(normal) is normal
        expected = normal if not normal or normal.endswith(b"\r\n") else normal + b"\r\n"
        assert received(wire) == expected
        assert wire_octets(octets) == len(expected)
        assert has_nul(octets) == (0 in octets)
        assert is_8bit(octets) == any(octet > 127 for octet in octets)


def received(wire: bytes) -> bytes:
    """What the simplest receiver makes of it: lines up to the dot, one leading dot removed."""
    lines, kept = wire.split(b"\r\n"), list[bytes]()
    for number, line in enumerate(lines):
        if line == b".":
            assert lines[number + 1 :] == [b""], "octets behind the final dot"
            return b"".join(line + b"\r\n" for line in kept)
        kept.append(line.removeprefix(b"."))
    raise AssertionError("no final dot")
