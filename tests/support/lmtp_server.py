"""An LMTP server on a Unix socket and a TCP port: a reply for each recipient (RFC 2033 §4.2).

What it answers to the content for a recipient stands in the local part: `full` and `unknown` are
refused, at `gone` it hangs up without an answer, once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

_LIMIT = 2**22
_REPLIES = {"full": "452 4.2.2 Over quota", "unknown": "550 5.1.1 No such mailbox"}


class LmtpServer:
    """`stored` are (recipient, content) in the order of their replies; `verbs` all commands."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, bytes]] = []
        self.verbs: list[str] = []
        self.port = 0
        self._gone: set[str] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def running(self, path: Path) -> AsyncIterator["LmtpServer"]:
        """Listen on `path` and on a free port of 127.0.0.1."""
        by_socket = await asyncio.start_unix_server(self._serve, path, limit=_LIMIT)
        by_port = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LIMIT)
        self.port = by_port.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            by_socket.close()
            by_port.close()
            for writer in self._writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._converse(reader, writer)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths: list[str] = []

        def say(*lines: str) -> None:
            writer.write("".join(f"{line}\r\n" for line in lines).encode())

        say("220 box LMTP")
        while True:
            verb, _, argument = (await reader.readuntil(b"\r\n")).decode().strip().partition(" ")
            self.verbs.append(verb)
            if verb == "LHLO":
                say("250-box", "250-PIPELINING", "250-8BITMIME", "250 ENHANCEDSTATUSCODES")
            elif verb in ("MAIL", "RSET"):
                paths = []
                say("250 2.1.0 Ok")
            elif verb == "RCPT":
                paths.append(argument.partition("<")[2].partition(">")[0])
                say("250 2.1.5 Ok")
            elif verb == "DATA":
                say("354 Go")
                content = await reader.readuntil(b"\r\n.\r\n")
                for path in paths:
                    local = path.partition("@")[0]
                    if local == "gone" and path not in self._gone:
                        self._gone.add(path)
                        await writer.drain()
                        return
                    reply = _REPLIES.get(local)
                    if reply is None:
                        self.stored.append((path, content[:-3]))
                    say(reply or f"250 2.0.0 <{path}> stored")
            elif verb == "QUIT":
                say("221 2.0.0 Bye")
                return
            else:
                say("500 5.5.1 LMTP only")
