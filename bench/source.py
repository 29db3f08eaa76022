"""An SMTP load source: sessions that each send messages as fast as the server takes them.

The same client for every server: PIPELINING as offered, one write for MAIL/RCPT/DATA, one for the
content. Bodies are random base64 (constant ones flatter compression).
"""

import asyncio
import base64
import os
import time

import msgspec


class Sent(msgspec.Struct, frozen=True):
    """What a run took: messages, seconds until the last 250."""

    messages: int
    seconds: float


def body(octets: int) -> bytes:
    """Lines of random base64, CRLF, about `octets` long."""
    text = base64.encodebytes(os.urandom(octets * 3 // 4))
    return text.replace(b"\n", b"\r\n")


class _Session:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> bytes:
        while True:
            line = await self.reader.readline()
            if not line:
                raise ConnectionError("the server closed the connection")
            if line[3:4] != b"-":
                return line

    async def expect(self, code: bytes) -> None:
        line = await self.reply()
        if not line.startswith(code):
            raise RuntimeError(f"expected {code!r}, got {line!r}")

    async def hello(self) -> None:
        await self.expect(b"220")
        self.writer.write(b"EHLO source.example\r\n")
        await self.expect(b"250")

    async def send(self, recipients: list[str], content: bytes) -> None:
        commands = ["MAIL FROM:<news@example.org>"]
        commands += [f"RCPT TO:<{item}>" for item in recipients]
        self.writer.write(("\r\n".join(commands) + "\r\nDATA\r\n").encode())
        for _ in commands:
            await self.expect(b"250")
        await self.expect(b"354")
        self.writer.write(content + b".\r\n")
        await self.expect(b"250")

    async def quit(self) -> None:
        self.writer.write(b"QUIT\r\n")
        await self.reply()
        self.writer.close()


async def open_session(port: int) -> _Session:
    """Connect and say EHLO."""
    session = _Session(*await asyncio.open_connection("127.0.0.1", port))
    await session.hello()
    return session


async def run(
    port: int, *, messages: int, sessions: int, octets: int, domains: int, per_message: int = 1
) -> Sent:
    """Send `messages`, each to `per_message` recipients of one of `domains` domains."""
    numbers = iter(range(messages))
    payload = body(octets)

    async def work() -> None:
        session = await open_session(port)
        for number in numbers:
            domain = f"d{number % domains}.notls.test"  # TLS has a benchmark of its own
            recipients = [f"u{number}x{i}@{domain}" for i in range(per_message)]
            head = f"From: <news@example.org>\r\nSubject: bench {number}\r\n\r\n".encode()
            # Another start of the random body each time: no two messages are alike.
            start = (number * 78) % max(len(payload) // 2, 1)
            await session.send(recipients, head + payload[start:] + payload[:start] + b"\r\n")
        await session.quit()

    began = time.monotonic()
    await asyncio.gather(*(work() for _ in range(sessions)))
    return Sent(messages, time.monotonic() - began)
