"""Octets of the peer into replies (RFC 5321 §4.2), with every bound that a hostile peer tests.

Rules of this file:
- A line is complete at LF; CR before it is dropped, a missing CR is tolerated.
- A code is three digits, the first 2 to 5; the fourth octet is a space, a hyphen or absent.
- All lines of a reply carry the same code; text is never parsed for a second one.
- What is malformed raises RemoteProtocolError, and again at every later call: what follows
  a malformed line cannot be told apart from the answer to another command.
- Memory is bounded: a line by LINE_OCTETS, a reply's kept text by TEXT_OCTETS, a whole reply by
  REPLY_OCTETS, whatever the peer sends.
"""

import re

from relay.model.errors import RemoteProtocolError
from relay.model.reply import Reply

#: RFC 5321 §4.5.3.1.5 allows 512; Postfix reads 2048; beyond this the peer is not speaking SMTP.
LINE_OCTETS = 8192
#: What is kept of a reply's text, over all its lines.
TEXT_OCTETS = 4096
#: The same for EHLO, whose text decides what is safe to do: nothing of it may be lost.
OFFERS_OCTETS = 65536
#: A reply longer than this, all lines together, is an attack.
REPLY_OCTETS = 1024 * 1024

_CODES = frozenset(b"%d" % code for code in range(200, 600))
_SEPARATORS = frozenset((b"", b" ", b"-"))
#: Printable ASCII stays, a tab is a space, all else is a question mark (logs, DSNs, terminals).
_PRINTABLE = bytes(
    octet if 0x20 <= octet < 0x7F else 0x20 if octet == 0x09 else 0x3F for octet in range(256)
)
_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?:\s+|$)")
#: Commands whose replies carry no enhanced code (RFC 2034 §4): a version number may stand there.
_WITHOUT_ENHANCED = frozenset(("greeting", "EHLO", "HELO", "LHLO"))
_OFFERING = frozenset(("EHLO", "LHLO"))
_MEMO_ENTRIES = 512
_MEMO_LINE_OCTETS = 100


class ReplyReader:
    """Feed octets, take replies; knows nothing of what is legal when."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0  # first octet not yet taken
        self._seen = 0  # first octet not yet searched for LF
        self._code = b""  # of the multi-line reply in progress
        self._lines: list[bytes] = []
        self._text_octets = 0
        self._reply_octets = 0
        self._failure: RemoteProtocolError | None = None
        self._memo: dict[tuple[bytes, str], Reply] = {}

    @property
    def has_rest(self) -> bool:
        """Whether octets are left that no complete reply has used."""
        return self._at < len(self._buffer) or bool(self._code)

    def feed(self, data: bytes) -> None:
        """Take what came from the peer."""
        if self._at == len(self._buffer):
            self._buffer = bytes(data)
            self._at = self._seen = 0
        else:
            self._buffer = self._buffer[self._at :] + data
            self._seen -= self._at
            self._at = 0

    def next_reply(self, command: str) -> Reply | None:
        """The next complete reply as an answer to `command`; None until it is complete.

        RemoteProtocolError where it is malformed; the reader then stays unusable.
        """
        if self._failure is not None:
            raise self._failure
        while True:
            line = self._next_line()
            if line is None:
                return None
            if not self._code and len(line) < _MEMO_LINE_OCTETS:
                known = self._memo.get((line, command))
                if known is not None:
                    return known
            code, separator = line[:3], line[3:4]
            if code not in _CODES or separator not in _SEPARATORS:
                self._fail(f"malformed reply to {command}: {_shown(line)}")
            if self._code and code != self._code:
                self._fail(f"reply to {command} mixes codes {_shown(self._code)} and {code!r}")
            if separator == b"-":
                self._code = code
                self._keep(line[4:], command)
                continue
            return self._complete(code, line, command)

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._seen)
        if end < 0:
            self._seen = len(self._buffer)
            if self._seen - self._at > LINE_OCTETS:
                self._fail(f"reply line longer than {LINE_OCTETS} octets")
            return None
        if end - self._at > LINE_OCTETS:
            self._fail(f"reply line longer than {LINE_OCTETS} octets")
        start = self._at
        self._at = self._seen = end + 1
        if end > start and self._buffer[end - 1] == 0x0D:
            end -= 1
        return self._buffer[start:end]

    def _keep(self, text: bytes, command: str) -> None:
        self._reply_octets += len(text) + 6
        if self._reply_octets > REPLY_OCTETS:
            self._fail(f"reply longer than {REPLY_OCTETS} octets")
        limit = OFFERS_OCTETS if command in _OFFERING else TEXT_OCTETS
        room = limit - self._text_octets
        if room > 0:
            self._lines.append(text[:room])
            self._text_octets += min(len(text), room) + 1

    def _complete(self, code: bytes, line: bytes, command: str) -> Reply:
        self._keep(line[4:], command)
        lines = [text.translate(_PRINTABLE).decode("ascii") for text in self._lines]
        reply = _reply(int(code), lines, command)
        if not self._code and len(line) < _MEMO_LINE_OCTETS and command != "end-of-data":
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            self._memo[line, command] = reply
        self._code = b""
        self._lines.clear()
        self._text_octets = self._reply_octets = 0
        return reply

    def _fail(self, text: str) -> None:
        self._buffer = b""
        self._at = self._seen = 0
        self._lines.clear()
        self._memo.clear()
        self._failure = RemoteProtocolError(text)
        raise self._failure


def _reply(code: int, lines: list[str], command: str) -> Reply:
    """The value of a complete reply; an enhanced code of another class becomes X.0.0."""
    digit = code // 100
    if digit == 3 or command in _WITHOUT_ENHANCED:
        return Reply(code, None, tuple(lines), command)
    enhanced: str | None = None
    texts = []
    for line in lines:
        match = _ENHANCED.match(line)
        if match is None:
            texts.append(line)
            continue
        if enhanced is None:
            enhanced = match[0].rstrip() if match[1] == str(digit) else f"{digit}.0.0"
        texts.append(line[match.end() :])
    return Reply(code, enhanced, tuple(texts), command)


def _shown(line: bytes) -> str:
    """The beginning of a line as it may stand in an error."""
    text = line[:80].translate(_PRINTABLE).decode("ascii")
    return f'"{text}…"' if len(line) > 80 else f'"{text}"'
