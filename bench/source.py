"""An SMTP load source: sessions that each send messages as fast as the server takes them.

The same client for every server: one write for MAIL, RCPT and DATA as PIPELINING allows, one for
the content. Bodies are random base64 (constant ones flatter compression).
"""

import asyncio
import base64
import os

import msgspec


class Load(msgspec.Struct, frozen=True):
    """What is sent: messages of `octets`, each to `per_message` recipients of one domain."""

    messages: int
    octets: int = 10_000
    domains: int = 50
    per_message: int = 1

    def recipients(self, number: int) -> list[str]:
        domain = f"d{number % self.domains}.plain.test"
        return [f"u{number}x{position}@{domain}" for position in range(self.per_message)]


class Bodies:
    """Random base64 of about so many octets, another one each time."""

    def __init__(self, octets: int) -> None:
        text = base64.encodebytes(os.urandom(max(octets, 78) * 3 // 4))
        self._text = text.replace(b"\n", b"\r\n")

    def __call__(self, number: int) -> bytes:
        # Another start of the same octets: no two messages are alike, and none compresses better.
        start = number * 78 % max(len(self._text) // 2, 1)
        return self._text[start:] + self._text[:start] + b"\r\n"


class Session:
    """A client's session; RuntimeError where the server answers otherwise than it should."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, address: str = "127.0.0.1") -> "Session":
        """Connect and say EHLO."""
        session = cls(*await asyncio.open_connection(address, port))
        await session._expect(b"220")
        session._writer.write(b"EHLO source.example\r\n")
        await session._expect(b"250")
        return session

    async def send(self, recipients: list[str], content: bytes) -> None:
        """One mail transaction; it is accepted when this returns."""
        commands = ["MAIL FROM:<news@example.org>"]
        commands += [f"RCPT TO:<{item}>" for item in recipients]
        self._writer.write(("\r\n".join(commands) + "\r\nDATA\r\n").encode())
        for _ in commands:
            await self._expect(b"250")
        await self._expect(b"354")
        self._writer.write(content + b".\r\n")
        await self._expect(b"250")

    async def quit(self) -> None:
        """End it."""
        self._writer.write(b"QUIT\r\n")
        await self._reply()
        self._writer.close()

    async def _reply(self) -> bytes:
        while True:
            line = await self._reader.readline()
            if not line:
                raise ConnectionError("the server closed the connection")
            if line[3:4] != b"-":
                return line

    async def _expect(self, code: bytes) -> None:
        line = await self._reply()
        if not line.startswith(code):
            raise RuntimeError(f"expected {code!r}, got {line!r}")


async def run(port: int, load: Load, *, sessions: int) -> None:
    """Send the load over so many sessions; all of it is accepted when this returns."""
    numbers = iter(range(load.messages))
    bodies = Bodies(load.octets)

    async def work() -> None:
        session = await Session.open(port)
        for number in numbers:
            head = f"From: <news@example.org>\r\nSubject: bench {number}\r\n\r\n".encode()
            await session.send(load.recipients(number), head + bodies(number))
        await session.quit()

    await asyncio.gather(*(work() for _ in range(sessions)))
