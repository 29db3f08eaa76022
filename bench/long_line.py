"""A long line: what the receiver answers arrives a while after it was sent, and in order.

A process of its own (`python -m bench.long_line ADDRESS PORT RECEIVER DELAY_MS`) in front of a
receiver at another address of the same port.
"""

import asyncio
import subprocess
import sys
from types import TracebackType
from typing import Self, cast

import uvloop

from bench.processes import cpu_seconds, wait_for_listener
from bench.receiver import PlainReceiver

_BACKLOG = 1024


class LongLine:
    """The line, running while the context lasts."""

    def __init__(self, address: str, receiver: PlainReceiver, delay_s: float) -> None:
        self.address = address
        self._port = receiver.port
        command = [sys.executable, "-m", "bench.long_line", address, str(receiver.port)]
        self._command = [*command, receiver.address, str(delay_s * 1000)]
        self._process: subprocess.Popen[bytes] | None = None

    def cpu_seconds(self) -> float:
        """CPU time so far."""
        assert self._process is not None
        return cpu_seconds(self._process.pid)

    def __enter__(self) -> Self:
        process = self._process = subprocess.Popen(self._command)
        wait_for_listener(self.address, self._port, lambda: process.poll() is None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class _NearEnd(asyncio.Protocol):
    """The sender's end: octets go on at once."""

    def __init__(self, receiver: tuple[str, int], delay_s: float) -> None:
        self._receiver = receiver
        self._delay_s = delay_s
        self._early: list[bytes] = []
        self._far: asyncio.Transport | None = None
        self._is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        far, _ = await asyncio.get_running_loop().create_connection(
            lambda: _FarEnd(self._transport, self._delay_s), *self._receiver
        )
        far.writelines(self._early)
        self._early.clear()
        self._far = far
        if self._is_closed:
            far.close()

    def data_received(self, data: bytes) -> None:
        if self._far is None:
            self._early.append(data)
        else:
            self._far.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._is_closed = True
        if self._far is not None:
            self._far.close()


class _FarEnd(asyncio.Protocol):
    """The receiver's end: octets go on after the delay."""

    def __init__(self, near: asyncio.Transport, delay_s: float) -> None:
        self._near = near
        self._delay_s = delay_s

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._delay_s, self._near.write, data)

    def connection_lost(self, error: Exception | None) -> None:
        asyncio.get_running_loop().call_later(self._delay_s, self._near.close)


async def _serve(address: str, port: int, receiver: str, delay_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: _NearEnd((receiver, port), delay_s), address, port, backlog=_BACKLOG
    )
    await server.serve_forever()


if __name__ == "__main__":
    _address, _port, _receiver, _delay_ms = sys.argv[1:]
    uvloop.run(_serve(_address, int(_port), _receiver, float(_delay_ms) / 1000))
