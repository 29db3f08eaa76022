"""What a client has sent and the session has not yet read: lines, segments, the way back.

It takes the place of asyncio's StreamReader, which copies each line through two awaits and
cannot give octets back; the methods that aiosmtpd calls on a reader are kept.
"""

import asyncio

#: Above this many octets unread the transport is paused.
HIGH_WATER = 262144


class InputBuffer:
    """The unread input of one connection."""

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # aiosmtpd exchanges both at STARTTLS
        self._buffer = bytearray()
        self._eof = False
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._buffer)

    @property
    def has_ended(self) -> bool:
        """Whether the client has closed its side: what is unread is all there will be."""
        return self._eof

    def feed(self, data: bytes) -> None:
        """Add what the transport delivered."""
        self._buffer += data
        self._wake()
        if len(self._buffer) > HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()  # type: ignore[attr-defined]

    def feed_eof(self) -> None:
        """Note that the client has closed its side."""
        self._eof = True
        self._wake()

    def take_line(self, limit: int) -> bytes | None:
        """The next line with its LF, None when it is not complete yet.

        Of a line above `limit` octets only the beginning is kept and given, with its LF.
        """
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > limit + 1:
                del self._buffer[limit + 1 :]
                self._resume()
            return None
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._resume()
        return line if end <= limit else line[: limit + 1] + b"\n"

    def take_all(self) -> bytes:
        """Everything unread."""
        data = bytes(self._buffer)
        self._buffer.clear()
        self._resume()
        return data

    def unread(self, data: bytes) -> None:
        """Put octets back in front."""
        self._buffer[:0] = data

    async def wait(self) -> None:
        """Wait for more input or the end of it."""
        if self._eof:
            return
        self._resume()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def readline(self) -> bytes:
        """One line for aiosmtpd's AUTH dialogue (RFC 4954: at most 12,288 octets)."""
        while (line := self.take_line(12288)) is None:
            if self._eof:
                return b""
            await self.wait()
        return line

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _resume(self) -> None:
        if self._paused and len(self._buffer) <= HIGH_WATER // 2:
            self._paused = False
            self._transport.resume_reading()  # type: ignore[attr-defined]
