"""A worker loses its lease while the end of a message waits for a peer that reads slowly."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.lossy_proxy import lossy_proxy
from tests.support.system import UNSHAPED
from tests.system.conftest import Start
from tests.system.test_redis_restarted import ABSENCE

ROUTE = """
[[routes]]
domain = "*"
smarthost = "smtp://127.0.0.1:{port}"
tls = "off"
"""
#: Less than we write at once, more than goes into the peer's buffer.
CONTENT_OCTETS = 125_000


class LazyReader:
    """Takes all mail; on its first connection it reads no content before it is told to."""

    def __init__(self) -> None:
        self._sessions = 0
        self.reads_on = asyncio.Event()
        self.first_gone = asyncio.Event()
        self.dots = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sessions += 1
        is_first = self._sessions == 1
        writer.write(b"220 mx.test ESMTP\r\n")
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                if not line.upper().startswith(b"DATA"):
                    writer.write(b"250 2.0.0 ok\r\n")
                    continue
                writer.write(b"354 go\r\n")
                if is_first:
                    await self.reads_on.wait()
                while (line := await reader.readline()) not in (b".\r\n", b""):
                    pass
                self.dots += line == b".\r\n"
                writer.write(b"250 2.0.0 ok\r\n")
        if is_first:
            self.first_gone.set()
        writer.close()


@contextlib.asynccontextmanager
async def lazy_reader() -> AsyncIterator[tuple[LazyReader, int]]:
    one = LazyReader()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server = await asyncio.start_server(one.serve, sock=listener, limit=4096)
    async with server:
        yield one, listener.getsockname()[1]
        one.reads_on.set()
        server.close()


async def test_dot_that_waits_for_a_slow_reader_is_taken_back_with_the_lease(
    start: Start, tmp_path: Path
) -> None:
    way = tmp_path / "cut.sock"
    async with lazy_reader() as (mx, port):
        system = await start(
            workers=0,
            RELAY_CONFIG=ROUTE.replace("{port}", str(port)),
            RELAY_FILES_SHAPING=UNSHAPED,
            RELAY_WORKER_LEASE="2s",
        )
        system.expects(*ABSENCE, "lease.")
        async with lossy_proxy(way, system.redis.socket) as proxy:
            system.start_worker(RELAY_REDIS_URL=f"unix://{way}")
            text = "\r\n".join(["x" * 70] * (CONTENT_OCTETS // 72))
            receipt = await system.submit(["ann@shop.test"], text=text)
            await system.until_marked()
            proxy.cut()
            system.start_worker()
            await system.until_delivered(receipt)
            mx.reads_on.set()
            await asyncio.wait_for(mx.first_gone.wait(), 30)
            proxy.mend()
            # The mark was made: that the dot stayed with us is more than Redis knows.
            assert len(await system.events("recipient.uncertain")) == 1
            assert mx.dots == 1
