"""A blunt SMTP client for the tests of the simulated internet: writes octets, reads replies."""

import asyncio
import ssl
from typing import Self

from relay.sim.server import Sink

ENVELOPE = b"MAIL FROM:<from@sender.test>\r\nRCPT TO:<%s>\r\nDATA\r\n"


class Dialogue:
    """One connection to a host of a sink."""

    def __init__(self, sink: Sink, host: str, *, local_port: int | None = None) -> None:
        self._sink = sink
        self._host = host
        self._port = local_port

    async def __aenter__(self) -> Self:
        address = self._sink.address_of(self._host)
        port = self._port or self._sink.smtp_port
        self.reader, self.writer = await asyncio.open_connection(address, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    async def reply(self) -> str:
        """The next reply, its lines joined by newlines; empty at the end of the connection."""
        lines = []
        while True:
            try:
                line = await asyncio.wait_for(self.reader.readline(), 5)
            except ConnectionResetError:
                return ""
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    async def say(self, line: str) -> str:
        """Send a line, read its reply."""
        self.writer.write(line.encode() + b"\r\n")
        return await self.reply()

    async def hello(self) -> str:
        """Read the greeting, say EHLO."""
        await self.reply()
        return await self.say("EHLO client.test")

    async def envelope(self, *forward_paths: str) -> list[str]:
        """MAIL and RCPTs, one after the other; the replies."""
        replies = [await self.say("MAIL FROM:<from@sender.test>")]
        return replies + [await self.say(f"RCPT TO:<{path}>") for path in forward_paths]

    async def send(self, *forward_paths: str, content: bytes = b"Subject: x\r\n\r\nhi\r\n") -> str:
        """A whole transaction; the reply to its final dot, or the one that ended it early."""
        replies = await self.envelope(*forward_paths)
        if not any(reply.startswith("2") for reply in replies[1:]):
            return replies[-1]
        begun = await self.say("DATA")
        if not begun.startswith("3"):
            return begun
        self.writer.write(content + b".\r\n")
        return await self.reply()

    async def start_tls(self, authority: str, *, name: str | None = None) -> None:
        """STARTTLS and EHLO again, the certificate verified; ssl.SSLError when it does not."""
        assert (await self.say("STARTTLS")).startswith("220")
        context = ssl.create_default_context(cafile=authority)
        await self.writer.start_tls(context, server_hostname=name or self._host)
        await self.say("EHLO client.test")
