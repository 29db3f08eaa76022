"""The octets after DATA: found end, undone dot-stuffing, counted, bounded (RFC 5321 §4.5.2).

Sans-I/O. Rules of this file: only CRLF "." CRLF ends the data, wherever the segments are cut;
a bare CR or LF is content like any other octet, never a line end (SMTP smuggling), and is made
CRLF later, in one place, by `relay.smtp.content`. What cannot be kept is counted and dropped
while it is read, so the reply comes after the end, where the client listens for it.
"""

import re
from collections.abc import Callable

# Compiled searches: `find` takes half as long again, in each message.
_END = re.compile(rb"\r\n\.\r\n")
_STUFFED = re.compile(rb"\r\n\.")


class DataReader:
    """Collects the data of one message from segments as they come.

    `size_limit` is in octets; `reserve(octets)` asks a common budget for room and may say no.
    """

    def __init__(self, size_limit: int, reserve: Callable[[int], bool] | None = None) -> None:
        self._limit = size_limit
        # RFC 1870 counts without the stuffed dots; at worst each third octet brings one.
        self._stuffed_limit = size_limit + size_limit // 3 + 8
        self._reserve = reserve
        # DATA's own CRLF counts as the one before the first line: a first "." line ends at once.
        self._octets = bytearray(b"\r\n")
        self._searched = 0
        self._dropped = 0
        self._is_dropping = False
        self.reserved = 0
        self.lacks_room = False
        self.is_too_large = False

    @property
    def received(self) -> int:
        """Octets so far, still stuffed."""
        return len(self._octets) + self._dropped - 2

    @property
    def is_hopeless(self) -> bool:
        """Whether so much more than the limit came that reading to the end is no kindness."""
        return self.received > 2 * self._limit + 65536

    def receive(self, segment: bytes) -> bytes | None:
        """Take a segment; None while the data goes on, else what followed end-of-data."""
        octets = self._octets
        octets += segment
        found = _END.search(octets, self._searched)
        if found is not None:
            rest = bytes(octets[found.end() :])
            del octets[found.start() + 2 :]
            if _STUFFED.search(octets) is not None:
                self._octets = octets.replace(b"\r\n.", b"\r\n")
            self.is_too_large = self.is_too_large or len(self._octets) - 2 > self._limit
            return rest
        if not self._is_dropping:
            self._take_room(len(segment))
            self.is_too_large = len(octets) > self._stuffed_limit
            self._is_dropping = self.is_too_large or self.lacks_room
        if self._is_dropping:
            self._dropped += max(0, len(octets) - 4)
            del octets[:-4]
        self._searched = max(0, len(octets) - 4)
        return None

    def content(self) -> bytes:
        """The message after its end was found: un-stuffed, line ends as they came."""
        with memoryview(self._octets) as view:
            return bytes(view[2:])

    def _take_room(self, octets: int) -> None:
        if self._reserve is None:
            return
        if self._reserve(octets):
            self.reserved += octets
        else:
            self.lacks_room = True
