"""The DNS server of the simulated internet: UDP and TCP on one port, answers from the zone."""

import asyncio
import errno
import socket
from functools import partial
from typing import cast

from relay.sim.wire import build_answer, parse_question
from relay.sim.zone import Answer, Manner, Zone

#: Ports tried when any port will do: UDP and TCP must both be free on it.
_TRIES = 20


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport | None = None
        self.questions = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = parse_question(data)
        if question is None:
            return
        self.questions += 1
        answer = self._zone.lookup(question.name, question.kind)
        if answer.manner is Manner.SILENT:
            return
        message = build_answer(question, answer, over_udp=True)
        if answer.delay_s:
            asyncio.get_running_loop().call_later(answer.delay_s, self._send, message, addr)
        else:
            self._send(message, addr)

    def _send(self, message: bytes, address: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(message, address)


class _Stream(asyncio.Protocol):
    """Messages with a two-octet length before each (RFC 1035 §4.2.2), answered in turn."""

    def __init__(self, server: "DnsServer") -> None:
        self._server = server
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.streams.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._server.streams.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2:
            length = int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < 2 + length:
                return
            message = bytes(self._buffer[2 : 2 + length])
            del self._buffer[: 2 + length]
            self._answer(message)

    def _answer(self, message: bytes) -> None:
        question = parse_question(message)
        if question is None:
            return
        answer: Answer = self._server.zone.lookup(question.name, question.kind)
        if answer.manner is Manner.SILENT:
            return
        if answer.manner is Manner.NO_TCP and self._transport is not None:
            self._transport.close()
            return
        body = build_answer(question, answer, over_udp=False)
        framed = len(body).to_bytes(2, "big") + body
        asyncio.get_running_loop().call_later(answer.delay_s, self._send, framed)

    def _send(self, framed: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed)


class DnsServer:
    """Both transports on one loopback address; `port` is known after start."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.port = 0
        self.streams: set[asyncio.Transport] = set()
        self._datagrams: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Bind and serve; OSError when the port is taken."""
        udp, tcp = _bind_both(host, port)
        loop = asyncio.get_running_loop()
        self.port = udp.getsockname()[1]
        self._datagrams, _ = await loop.create_datagram_endpoint(
            partial(_Datagrams, self.zone), sock=udp
        )
        self._server = await loop.create_server(partial(_Stream, self), sock=tcp)

    async def stop(self) -> None:
        """Close both sockets and all TCP connections."""
        if self._datagrams is not None:
            self._datagrams.abort()
        if self._server is not None:
            self._server.close()
        for transport in tuple(self.streams):
            transport.abort()
        if self._server is not None:
            await self._server.wait_closed()


def _bind_both(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(_TRIES):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            udp.setblocking(False)
            tcp.setblocking(False)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind((host, port))
            tcp.bind((host, udp.getsockname()[1]))
        except OSError as error:
            udp.close()
            tcp.close()
            if port or error.errno != errno.EADDRINUSE or attempt == _TRIES - 1:
                raise
        else:
            return udp, tcp
    raise AssertionError("unreachable: the last try raises or returns")
