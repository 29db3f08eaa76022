"""Framing: lines and contents cut out of the octets that arrive, whatever their segments.

A content ends at CRLF.CRLF and nowhere else; that is what keeps SMTP smuggling visible. Each octet
is searched once: a search goes on where the last one stopped.
"""

from relay.sim.content import unstuff


class InputBuffer:
    """Octets received and not yet taken."""

    __slots__ = ("_at", "_buffer", "_has_dots", "_scanned")

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._at = 0  # what is before it has been taken
        self._scanned = 0  # up to here there is no end of a content
        self._has_dots = False  # the content has a line that starts with a dot

    def __len__(self) -> int:
        return len(self._buffer) - self._at

    def clear(self) -> None:
        """Throw away what has not been taken."""
        self._buffer, self._at, self._scanned = b"", 0, 0

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        if not len(self):
            self._buffer, self._at, self._scanned = data, 0, 0
            return
        if isinstance(self._buffer, bytearray):
            del self._buffer[: self._at]
        else:
            self._buffer = bytearray(memoryview(self._buffer)[self._at :])
        self._buffer += data
        self._scanned = max(0, self._scanned - self._at)
        self._at = 0

    def take_line(self) -> bytes | None:
        """The next line with its LF, None while it has none."""
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            return None
        line = bytes(self._buffer[self._at : end + 1])
        self._at = end + 1
        return line

    def take_octets(self, count: int) -> bytes:
        """What is there of so many octets."""
        octets = bytes(self._buffer[self._at : self._at + count])
        self._at += len(octets)
        return octets

    def take_content(self) -> bytes | None:
        """The content up to its final dot, unstuffed, None while it has not come."""
        end = self._find_final_dot()
        if end < 0:
            return None
        content = bytes(self._buffer[self._at : end])
        self._at = self._scanned = end + 3
        has_dots, self._has_dots = self._has_dots, False
        return unstuff(content) if has_dots else content

    def _find_final_dot(self) -> int:
        buffer, start = self._buffer, self._at
        if buffer[start : start + 3] == b".\r\n":
            return start
        if not self._has_dots:  # in most contents the first dot at a line start is the final one
            self._has_dots = buffer[start : start + 1] == b"."
            at = buffer.find(b"\r\n.", max(start, self._scanned - 4))
            if at < 0:
                self._scanned = len(buffer)
                return -1
            if buffer[at + 3 : at + 5] == b"\r\n":
                return at + 2
            self._has_dots, self._scanned = True, at
        at = buffer.find(b"\r\n.\r\n", max(start, self._scanned - 4))
        self._scanned = len(buffer)
        return at + 2 if at >= 0 else -1
