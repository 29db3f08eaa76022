"""Stands between a worker and Redis and loses replies: what was asked is done, unheard.

It can also be cut: nothing passes either way, and nobody is told. Or it is silent: what is asked
is done, and nobody hears of it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path


class LossyProxy:
    """Passes octets both ways; `lose(script)` breaks the connection in place of the next reply."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._doomed = b""
        self._is_silent = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.lost = asyncio.Event()
        self._passes = asyncio.Event()
        self._passes.set()

    def cut(self) -> None:
        """From now on nothing passes, either way, until `mend`; then all of it does."""
        self._passes.clear()

    def mend(self) -> None:
        """Let pass again."""
        self._passes.set()

    def silence(self) -> None:
        """From now on nobody hears a reply, until `speak`; they are lost."""
        self._is_silent = True

    def speak(self) -> None:
        """Pass replies again."""
        self._is_silent = False

    def lose(self, script: str) -> None:
        """The next call of this script is carried out and its reply lost with the connection."""
        self.lost.clear()
        self._doomed = f"_{script}\r\n".encode()

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        writers = [writer]
        self._writers.add(writer)
        try:
            upstream, server = await asyncio.open_unix_connection(self._server)
            writers.append(server)
            muted = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_requests(reader, server, muted))
                group.create_task(self._pass_replies(upstream, writer, muted))
        except* OSError:
            pass
        finally:
            self._writers.discard(writer)
            for one in writers:
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    async def _pass_requests(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, muted: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 20):
            if self._doomed and self._doomed in data:
                self._doomed = b""
                muted.set()
            await self._passes.wait()
            server.write(data)
            await server.drain()
        raise ConnectionResetError("the client is gone")

    async def _pass_replies(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, muted: asyncio.Event
    ) -> None:
        while data := await upstream.read(1 << 20):
            if self._is_silent:
                continue
            if muted.is_set():
                self.lost.set()
                raise ConnectionResetError("the reply is lost")
            await self._passes.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the server is gone")

    async def stop(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def lossy_proxy(path: Path, server: Path) -> AsyncIterator[LossyProxy]:
    """A proxy that listens at a path of its own until the block ends."""
    proxy = LossyProxy(server)
    listener = await asyncio.start_unix_server(proxy.accepted, path)
    try:
        yield proxy
    finally:
        listener.close()
        await proxy.stop()
        await listener.wait_closed()
