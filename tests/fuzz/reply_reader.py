"""Replies of a hostile server: any octets in any segments are replies or one refusal for good."""

import re

from relay.model.errors import RemoteProtocolError
from relay.model.reply import Reply
from relay.smtp.reply_reader import LINE_OCTETS, OFFERS_OCTETS, REPLY_OCTETS, ReplyReader
from tests.fuzz.campaign import Target
from tests.fuzz.source import Source

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -]).*)?", re.DOTALL)
COMMANDS = ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "end-of-data", "QUIT")
WORDS = (
    b"250 ok\r\n",
    b"250-",
    b"250",
    b"354 go\r\n",
    b"421 4.3.2 bye\r\n",
    b"550 5.1.1 no\r\n",
    b"5.7.1 ",
    b"4.999.0 ",
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"-",
    b"099 ",
    b"600 ",
    b"2\xb20 ",
)


def reply(source: Source) -> bytes:
    """A reply as servers send it, of one line or several."""
    code = b"%d" % (200 + source.below(400))
    enhanced = b"%c.%d.%d " % (code[0], source.below(8), source.below(40))
    text = source.one((b"ok", b"no such user", b"queued as 4F", b"", source.telling(20)))
    lines = [enhanced + text if source.chance(0.5) else text for _ in range(source.size(6) or 1)]
    octets = b"".join(code + b"-" + line + b"\r\n" for line in lines[:-1])
    return octets + code + source.one((b" ", b" ", b" ", b"")) + lines[-1] + b"\r\n"


def stream(source: Source) -> bytes:
    """What a server says: replies, mostly damaged, now and then without end."""
    octets = b"".join(reply(source) for _ in range(1 + source.below(5)))
    if source.chance(0.8):
        octets = source.mutated(octets, WORDS)
    if source.chance(0.05):
        octets += source.octets(200)
    if source.chance(0.002):
        octets += source.one(WORDS) * source.below(2 * LINE_OCTETS)
    if source.chance(0.0002):
        octets += (b"250-" + b"x" * 1000 + b"\r\n") * source.below(2 * REPLY_OCTETS // 1000)
    return octets


class ReplyReaderTarget(Target):
    name = "reply-reader"

    def check(self, source: Source) -> None:
        octets, command = stream(source), source.one(COMMANDS)
        whole = self._read([octets], command)
        assert self._read(source.cut(octets), command) == whole
        if len(octets) < LINE_OCTETS:
            assert [one.code if isinstance(one, Reply) else 0 for one in whole] == codes(octets)

    def _read(self, segments: list[bytes], command: str) -> list[Reply | str]:
        """The replies, then the refusal if there was one."""
        reader, seen = ReplyReader(), list[Reply | str]()
        try:
            for segment in segments:
                reader.feed(segment)
                while (answer := reader.next_reply(command)) is not None:
                    _check_reply(answer, command)
                    seen.append(answer)
                assert held_octets(reader) <= LINE_OCTETS + OFFERS_OCTETS
        except RemoteProtocolError as refusal:
            assert str(refusal).isprintable() and len(str(refusal)) < 300
            _check_refuses_for_good(reader, str(refusal))
            seen.append(str(refusal))
        return seen


def codes(octets: bytes) -> list[int]:
    """The replies' codes as the grammar has it (RFC 5321 §4.2), 0 where it is broken."""
    found, inside = list[int](), b""
    for line in octets.split(b"\n")[:-1]:
        parts = _LINE.fullmatch(line.removesuffix(b"\r"))
        if parts is None or inside not in (b"", parts[1]):
            return [*found, 0]
        inside = parts[1] if parts[2] == b"-" else b""
        if not inside:
            found.append(int(parts[1]))
    return found


def held_octets(reader: ReplyReader) -> int:
    """What the reader holds of replies that are not complete."""
    return len(reader._buffer) - reader._at + sum(map(len, reader._lines))


def _check_reply(answer: Reply, command: str) -> None:
    assert 200 <= answer.code <= 599
    assert answer.command == command
    assert all(line.isascii() and line.isprintable() for line in answer.lines)
    assert answer.enhanced is None or answer.enhanced[0] == str(answer.code)[0]
    assert sum(map(len, answer.lines)) <= OFFERS_OCTETS


def _check_refuses_for_good(reader: ReplyReader, refusal: str) -> None:
    reader.feed(b"250 ok\r\n")
    try:
        reader.next_reply("RCPT")
    except RemoteProtocolError as again:
        assert str(again) == refusal
    else:
        raise AssertionError("a reader that refused reads on")
