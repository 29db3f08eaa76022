"""The next message's envelope leaves with the final dot: one round trip a message."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.support.system import UNSHAPED
from tests.system.conftest import Start

ROUTE = """
[[routes]]
domain = "*"
smarthost = "smtp://127.0.0.1:{port}"
tls = "off"
"""


class Receiver:
    """A server that takes all mail and keeps what came in one piece."""

    def __init__(self, offers: str) -> None:
        self._offers = offers
        self.pieces: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx.test ESMTP\r\n")
        in_data = False
        while piece := await reader.read(1 << 20):
            self.pieces.append(piece)
            for line in piece.splitlines():
                if in_data:
                    in_data = line != b"."
                    reply = b"" if in_data else b"250 2.0.0 ok\r\n"
                else:
                    reply = self._reply_to(line.split(b" ")[0].upper())
                    in_data = reply.startswith(b"354")
                writer.write(reply)
        writer.close()

    def _reply_to(self, verb: bytes) -> bytes:
        if verb == b"EHLO":
            return f"250-mx.test\r\n250 {self._offers}\r\n".encode()
        return b"354 go\r\n" if verb == b"DATA" else b"250 2.0.0 ok\r\n"


@contextlib.asynccontextmanager
async def receiver(offers: str) -> AsyncIterator[Receiver]:
    one = Receiver(offers)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    async with server:
        yield one
        server.close()


@pytest.mark.parametrize(("offers", "together"), [("PIPELINING", True), ("HELP", False)])
async def test_dot_and_next_envelope_are_one_piece_where_pipelining_is_offered(
    start: Start, offers: str, together: bool
) -> None:
    async with receiver(offers) as mx:
        system = await start(workers=0, RELAY_CONFIG=ROUTE.replace("{port}", str(mx.port)))
        receipts = [await system.submit(["ann@shop.test"]) for _ in range(5)]
        system.start_worker()
        await system.until_delivered(*receipts)
        system.stop_worker(system.workers[0])
    joined = [piece for piece in mx.pieces if b"\r\n.\r\nMAIL FROM" in piece]
    if together:
        assert len(joined) >= 3
        assert all(b"RCPT TO" in piece and piece.endswith(b"DATA\r\n") for piece in joined)
    else:
        assert joined == []
        assert all(piece.count(b"\r\n") == 1 for piece in mx.pieces if piece.startswith(b"MAIL"))


async def test_next_claim_comes_before_the_last_dot_of_the_present_one(start: Start) -> None:
    """Claims are of ten messages at first; their borders cost a far receiver's line nothing."""
    shaping = UNSHAPED.replace("max_connections = 20", "max_connections = 1")
    async with receiver("PIPELINING") as mx:
        config = ROUTE.replace("{port}", str(mx.port))
        system = await start(workers=0, RELAY_CONFIG=config, RELAY_FILES_SHAPING=shaping)
        receipts = [await system.submit(["ann@shop.test"]) for _ in range(40)]
        system.start_worker()
        await system.until_delivered(*receipts)
        system.stop_worker(system.workers[0])
    assert sum(b"\r\n.\r\nMAIL FROM" in piece for piece in mx.pieces) == len(receipts) - 1
