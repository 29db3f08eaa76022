"""Stands between a client and an SMTP server and keeps what is said."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.ports import free_port

#: Of each side of a connection: its commands and replies, not ten MiB of content.
_KEPT = 64 * 1024


class Overheard:
    """One connection: what each side said."""

    def __init__(self) -> None:
        self._said = {"client": bytearray(), "server": bytearray()}
        self.is_in_rcpt = asyncio.Event()

    def add(self, side: str, octets: bytes) -> None:
        """Keep what a side said, as far as there is room."""
        said = self._said[side]
        said += octets[: _KEPT - len(said)]
        if side == "client" and b"\r\nRCPT TO" in said.upper():
            self.is_in_rcpt.set()

    def said(self, side: str) -> bytes:
        """All that one side said."""
        return bytes(self._said[side])

    def commands(self, verb: str) -> list[str]:
        """The client's commands that begin so."""
        lines = self.said("client").decode("utf-8", "replace").split("\r\n")
        return [line for line in lines if line.upper().startswith(verb)]


class Tap:
    """Passes octets both ways between clients and a server of this machine.

    While `holds_replies`, nothing that is answered to MAIL passes before RCPT has come: only who
    sends the envelope in one piece (RFC 2920) gets on.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.holds_replies = False
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
                self._pass(reader, server, heard, "client"),
                self._pass(upstream, writer, heard, "server"),
            )
        finally:
            server.close()
            writer.close()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        heard: Overheard,
        side: str,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(1 << 20):
                heard.add(side, octets)
                if side == "server" and self.holds_replies and heard.commands("MAIL"):
                    await heard.is_in_rcpt.wait()
                writer.write(octets)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
