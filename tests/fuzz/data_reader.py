"""The octets after DATA, cut anywhere: the same message as by the plainest reading, bounded."""

from relay.ingress.data_reader import DataReader
from tests.fuzz.campaign import Target
from tests.fuzz.source import Source

_END = b"\r\n.\r\n"
WORDS = (
    _END,
    b"\r\n..",
    b"\r\n.",
    b"\n.\n",
    b"\r.\r",
    b".\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b".",
    b"\0",
)
_LIMIT = 200


class DataReaderTarget(Target):
    name = "data-reader"

    def check(self, source: Source) -> None:
        wire = self._wire(source)
        room = source.below(2 * _LIMIT) if source.chance(0.2) else 1 << 30
        reader = DataReader(_LIMIT, _Room(room).reserve)
        rest, unread = None, source.cut(wire, most=12)
        while unread and rest is None:
            segment = unread.pop(0)
            rest = reader.receive(segment)
            assert len(reader._octets) <= _LIMIT + _LIMIT // 3 + 16 + len(segment)
        data, end, behind = (b"\r\n" + wire).partition(_END)
        assert (rest is None) == (not end), "the end was missed, or found where there is none"
        if rest is None:
            return
        assert rest + b"".join(unread) == behind
        content = ((data + b"\r\n")[2:]).replace(b"\r\n.", b"\r\n")
        content = content[1:] if content[:1] == b"." else content
        if reader.lacks_room or reader.is_too_large:
            assert reader.lacks_room or len(content) > _LIMIT
        else:
            assert len(content) <= _LIMIT
            assert reader.content() == content

    def _wire(self, source: Source) -> bytes:
        lines = [
            source.one((b"hello", b"", b"..", b".x", b"x" * 60)) for _ in range(source.size(9))
        ]
        wire = b"\r\n".join([*lines, b".", source.one((b"", b"QUIT\r\n", b"\r\n.\r\n"))])
        return source.mutated(wire, WORDS, most=6) if source.chance(0.8) else wire


class _Room:
    """A common budget of which others have taken their part."""

    def __init__(self, octets: int) -> None:
        self._left = octets

    def reserve(self, octets: int) -> bool:
        if octets > self._left:
            return False
        self._left -= octets
        return True
