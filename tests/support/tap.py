"""Stands between a client and an SMTP server and keeps what is said, and in which turns."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.ports import free_port

#: Of each side of a connection: its commands and replies, not ten MiB of content.
_KEPT = 64 * 1024


class Overheard:
    """One connection: what both sides said, in the order in which it was said."""

    def __init__(self) -> None:
        self._turns: list[tuple[str, bytes]] = []
        self._left = {"client": _KEPT, "server": _KEPT}

    def add(self, side: str, octets: bytes) -> None:
        """Keep what a side said, as far as there is room."""
        kept = octets[: self._left[side]]
        self._left[side] -= len(kept)
        if kept:
            self._turns.append((side, kept))

    def said(self, side: str) -> bytes:
        """All that one side said."""
        return b"".join(octets for who, octets in self._turns if who == side)

    def commands(self, verb: str) -> list[str]:
        """The client's commands that begin so."""
        lines = self.said("client").decode("utf-8", "replace").split("\r\n")
        return [line for line in lines if line.upper().startswith(verb)]

    @property
    def is_pipelined(self) -> bool:
        """Whether RCPT left before anything was answered to MAIL (RFC 2920)."""
        before_reply = b""
        for side, octets in self._turns:
            if side == "client":
                before_reply += octets
            elif b"MAIL FROM" in before_reply.upper():
                break
            else:
                before_reply = b""
        return b"RCPT TO" in before_reply.upper()


class Tap:
    """Passes octets both ways between clients and a server of this machine."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._overheard: list[Overheard] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = free_port()

    def connection(self, needle: str) -> Overheard:
        """The only connection whose client said this."""
        (found,) = (one for one in self._overheard if needle.encode() in one.said("client"))
        return found

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Tap"]:
        """Listen at `port` until the block ends."""
        server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        heard = Overheard()
        self._overheard.append(heard)
        upstream, server = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            await asyncio.gather(
                _pass(reader, server, heard, "client"), _pass(upstream, writer, heard, "server")
            )
        finally:
            server.close()
            writer.close()


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: Overheard, side: str
) -> None:
    with contextlib.suppress(ConnectionError):
        while octets := await reader.read(1 << 20):
            heard.add(side, octets)
            writer.write(octets)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
