"""An HTTPS server on loopback that answers as a test scripts it, and keeps what it was asked."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator


def answer(
    body: str = "", *, status: str = "200 OK", media: str = "text/plain", more: str = ""
) -> bytes:
    """An answer as it goes on the wire; `more` are fields, each with its CRLF."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n"
        f"{more}Connection: close\r\n\r\n{body}"
    ).encode()


class HttpsServer:
    """Answers each request with the next of `answers`, the last one for ever.

    `requests` are the heads of what was asked, `bodies` what came behind them.
    """

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.port = 0
        self.gate: asyncio.Event | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.bodies.append(await reader.readexactly(_length(head)))
            self.requests.append(head)
            if self.gate is not None:
                await self.gate.wait()
            writer.write(self.answers[min(len(self.requests), len(self.answers)) - 1])
            await writer.drain()
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext) -> AsyncIterator["HttpsServer"]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()


def _length(head: str) -> int:
    fields = (line.partition(":") for line in head.lower().split("\r\n")[1:])
    return next((int(value) for name, _, value in fields if name == "content-length"), 0)
