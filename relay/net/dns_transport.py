"""Questions to one nameserver: UDP sockets with answers told apart, TCP where UDP is too small.

A spoofed answer must guess the source port and the id of an outstanding question (RFC 5452):
ports are the kernel's random choice, spread over a few connected sockets that are replaced all the
time, ids are random. An answer from elsewhere never reaches us (the sockets are connected); one
with the wrong id or question is ignored and the wait goes on. Several questions share a socket,
so that thousands may be under way without a descriptor each.
"""

import asyncio
import contextlib
import ipaddress
import os
import random
import socket
import struct

from dns.rcode import Rcode

from relay.model.errors import ConfigError
from relay.net.dns_message import MalformedPacket, Query, Question, Response

#: Sockets of one nameserver, and how long each takes new questions.
SOCKETS = 16
SOCKET_QUESTIONS = 500
SOCKET_LIFE_S = 10.0
#: TCP connections to one nameserver at a time.
TCP_CONNECTIONS = 32
#: A nameserver that was silent is asked after the others for so long.
REST_S = 30.0

_PORT = 53
_random = random.SystemRandom()


class _UdpSocket:
    """One connected socket and the questions that wait for an answer on it."""

    def __init__(self, address: tuple[str, int], loop: asyncio.AbstractEventLoop) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise
        self._loop = loop
        self._waiting: dict[int, tuple[Query, asyncio.Future[Response]]] = {}
        self._retired = False
        self.questions = 0
        self.opened = loop.time()
        loop.add_reader(self._socket, self._on_readable)

    async def ask(self, question: Question, *, edns: bool, timeout_s: float) -> Response:
        """The first answer to the question; TimeoutError, OSError, MalformedPacket."""
        self.questions += 1
        query_id = _random_id()
        while query_id in self._waiting:
            query_id = _random_id()
        query = Query(question, query_id, edns=edns)
        future: asyncio.Future[Response] = self._loop.create_future()
        self._waiting[query_id] = (query, future)
        timer = self._loop.call_later(timeout_s, _expire, future)
        try:
            with contextlib.suppress(BlockingIOError):  # a full buffer is a lost packet
                self._socket.send(query.wire)
            return await future
        finally:
            timer.cancel()
            del self._waiting[query_id]
            if self._retired and not self._waiting:
                self.close()

    def retire(self) -> None:
        """Take no further questions; close after the last answer."""
        self._retired = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _on_readable(self) -> None:
        for _ in range(64):
            try:
                packet = self._socket.recv(65535)
            except BlockingIOError:
                return
            except OSError as error:  # an ICMP error: nobody listens there
                for _, future in self._waiting.values():
                    if not future.done():
                        future.set_exception(type(error)(*error.args))
                return
            entry = self._waiting.get(int.from_bytes(packet[:2], "big"))
            if entry is not None and not entry[1].done():
                _take(packet, *entry)


def _take(packet: bytes, query: Query, future: asyncio.Future[Response]) -> None:
    """Give the answer to who waits for it; a packet that answers something else is passed over."""
    try:
        response = query.read(packet)
    except MalformedPacket as error:
        future.set_exception(error)
        return
    if response is not None:
        future.set_result(response)


def _expire(future: asyncio.Future[Response]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def _random_id() -> int:
    return int.from_bytes(os.urandom(2), "big")


class Nameserver:
    """One nameserver as `host`, `host:port` or `[host]:port`; belongs to the running loop."""

    def __init__(self, text: str) -> None:
        self.address = parse_nameserver(text)
        self._resting_until = 0.0
        self._answered = 0.0
        self._sockets: list[_UdpSocket] = []
        self._tcp = asyncio.Semaphore(TCP_CONNECTIONS)
        self._edns = True

    def __str__(self) -> str:
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine: nobody can change what it answers on the way."""
        return ipaddress.ip_address(self.address[0]).is_loopback

    async def ask(self, question: Question, timeout_s: float) -> Response:
        """One try within `timeout_s`; TimeoutError, OSError, MalformedPacket."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            response = await self._ask(question, begun + timeout_s)
        except OSError:  # TimeoutError is one
            if self._answered < begun:  # silent to everyone, not only about a dead zone
                self._resting_until = loop.time() + REST_S
            raise
        self._answered = loop.time()
        return response

    def is_resting(self, now: float) -> bool:
        """Whether this nameserver was silent or unreachable a short while ago."""
        return now < self._resting_until

    async def _ask(self, question: Question, ends: float) -> Response:
        edns = self._edns
        response = await self._ask_by_udp(question, edns=edns, ends=ends)
        if edns and response.rcode in (Rcode.FORMERR, Rcode.NOTIMP):
            response = await self._ask_by_udp(question, edns=False, ends=ends)
            if response.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
                self._edns = False
        if response.truncated:
            async with asyncio.timeout_at(ends):
                response = await self._ask_by_tcp(question)
            if response.truncated:
                raise MalformedPacket("an answer by TCP is truncated")
        return response

    async def _ask_by_udp(self, question: Question, *, edns: bool, ends: float) -> Response:
        loop = asyncio.get_running_loop()
        udp = self._pick(loop)
        return await udp.ask(question, edns=edns, timeout_s=max(ends - loop.time(), 0.001))

    def close(self) -> None:
        for udp in self._sockets:
            udp.close()
        self._sockets.clear()

    def _pick(self, loop: asyncio.AbstractEventLoop) -> _UdpSocket:
        """A socket chosen at random; worn ones are replaced by new ports."""
        if len(self._sockets) < SOCKETS:
            udp = _UdpSocket(self.address, loop)
            self._sockets.append(udp)
            return udp
        index = int(_random.random() * SOCKETS)
        udp = self._sockets[index]
        if udp.questions >= SOCKET_QUESTIONS or loop.time() - udp.opened > SOCKET_LIFE_S:
            fresh = _UdpSocket(self.address, loop)
            self._sockets[index] = fresh
            udp.retire()
            return fresh
        return udp

    async def _ask_by_tcp(self, question: Question) -> Response:
        query = Query(question, _random_id(), edns=self._edns)
        async with self._tcp:
            reader, writer = await asyncio.open_connection(*self.address)
            try:
                writer.write(struct.pack("!H", len(query.wire)) + query.wire)
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                packet = await reader.readexactly(length)
            except asyncio.IncompleteReadError:
                raise MalformedPacket("the TCP connection ended inside an answer") from None
            finally:
                writer.transport.abort()
        response = query.read(packet)
        if response is None:
            raise MalformedPacket("an answer by TCP is not for the question")
        return response


def parse_nameserver(text: str) -> tuple[str, int]:
    """Address and port of `host`, `host:port`, `[host]:port` or a bare IPv6 address."""
    host, port = text.strip(), str(_PORT)
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else (rest or port)
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    try:
        ipaddress.ip_address(host)
        number = int(port)
        if not 0 < number < 65536:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"dns.nameservers: {text!r} is not an IP address with an optional port; "
            'write it as "192.0.2.53" or "[2001:db8::53]:53"'
        ) from None
    return host, number
