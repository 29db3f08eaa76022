"""A Redis connection shared by all coroutines of a loop: commands of one moment leave as one write.

Rules of this file: a command is written once and never sent again by us (what happened to a
command whose reply was lost is the caller's question, answered by idempotent scripts); a
cancelled caller never disturbs the order of replies; a lost connection fails every waiting
command with StoreUnavailable and the next command connects anew; so does one to a server that is
no master any more.
"""

import asyncio
import contextlib
import socket
from collections import deque
from typing import Any, NoReturn, cast

import hiredis
import msgspec

from relay.model.errors import ConfigError, StoreError, StoreFull, StoreUnavailable
from relay.store.places import place_of

#: Longest wait for the reply to any command but a blocking read.
REPLY_DEADLINE_S = 30.0
CONNECT_DEADLINE_S = 5.0
#: A master that is silent so long, and again and again, may have been replaced: sentinels know.
DOUBT_S = 2.0
#: A network that acknowledges nothing for so long is taken for gone; a slow server's still does.
DEAD_NETWORK_S = 10
#: The same as options of TCP (Linux): while something is to be acknowledged, and while nothing is.
DEAD_NETWORK_OPTIONS = {
    socket.TCP_USER_TIMEOUT: DEAD_NETWORK_S * 1000,
    socket.TCP_KEEPIDLE: DEAD_NETWORK_S // 2,
    socket.TCP_KEEPINTVL: 2,
    socket.TCP_KEEPCNT: 3,
}
#: Beyond this in our own buffer, callers wait before they add more.
CONGESTED_OCTETS = 1024 * 1024

_UNAVAILABLE = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOREPLICAS",
    "BUSY",
    "TRYAGAIN",
    "UNBLOCKED",
)
#: What a server says that was the master: its connection is done with.
_DEMOTED = ("READONLY", "UNBLOCKED", "MASTERDOWN")
_FULL = ("OOM", "MISCONF")


class Copies(msgspec.Struct, frozen=True):
    """How many replicas must have a write before it counts, and how long that may take."""

    replicas: int = 0
    within_s: float = 1.0


class NoScript(StoreError):
    """Raised when the server does not have the library of functions."""


def _encode(argument: Any) -> bytes:
    if isinstance(argument, bytes):
        return argument
    if isinstance(argument, str):
        return argument.encode()
    return str(argument).encode()


def pack_command(arguments: tuple[Any, ...]) -> bytes:
    """The RESP array of a command; arguments are bytes, str, int or float."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = _encode(argument)
        parts.append(b"$%d\r\n" % len(data))
        parts.append(data)
        parts.append(b"\r\n")
    return b"".join(parts)


def raise_reply_error(text: str) -> NoReturn:
    """Raise what an error reply of Redis means for a caller."""
    code = text.split(" ", 1)[0]
    if text == "ERR Function not found":
        raise NoScript(text)
    if code in _FULL:
        raise StoreFull("the store is full: Redis refuses writes (maxmemory or disk)")
    if code in _UNAVAILABLE or "max number of clients" in text:
        raise StoreUnavailable(f"Redis is not ready: {text}")
    if code in ("NOAUTH", "WRONGPASS", "NOPERM"):
        raise ConfigError(f"redis.url: Redis refuses the credentials: {text}")
    raise StoreError(text)


class _Connection(asyncio.Protocol):
    """One socket: a queue of futures in the order of their commands."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._outgoing: list[bytes] = []
        self._copying: asyncio.Future[Any] | None = None
        self._transport: asyncio.Transport | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self.lost: BaseException | None = None
        self.last_heard = self._asked_at = loop.time()

    @property
    def silence_s(self) -> float:
        """How long commands have waited without a word of Redis; 0 when none waits."""
        if not self._waiting:
            return 0.0
        return self._loop.time() - max(self.last_heard, self._asked_at)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        # So that resume_writing says that the kernel has all of it.
        self._transport.set_write_buffer_limits(high=0)
        _notice_dead_network(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self.last_heard = self._loop.time()
        try:
            self._reader.feed(data)
            self._hand_over()
        except hiredis.ProtocolError as error:
            self.abort(error)
        except MemoryError:
            self.abort(MemoryError("there is no memory for a reply"))

    def _hand_over(self) -> None:
        """Give each complete reply to who waits for it."""
        while True:
            reply = self._reader.gets()
            if reply is False:
                return
            if not self._waiting:
                self.abort(RuntimeError("a reply without a command"))
                return
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.lost is None:
            self.lost = exc or ConnectionResetError("Redis closed the connection")
        self._drained.set()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(
                    StoreUnavailable(f"the connection to Redis broke: {self.lost}")
                )

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    @property
    def is_congested(self) -> bool:
        """Whether the peer takes less than it is given."""
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() > CONGESTED_OCTETS

    def send(self, data: bytes) -> asyncio.Future[Any]:
        """Queue a packed command; everything queued in one turn of the loop is one write."""
        if self.lost is not None:
            raise StoreUnavailable(f"the connection to Redis broke: {self.lost}")
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        if not self._waiting:
            self._asked_at = self._loop.time()
        self._outgoing.append(data)
        self._waiting.append(future)
        return future

    async def copied(self, copies: Copies) -> Any:
        """How many replicas have all that was answered so far (WAIT); one command a turn."""
        asked = self._copying
        if asked is None:
            command = ("WAIT", copies.replicas, max(int(copies.within_s * 1000), 1))
            asked = self._copying = self.send(pack_command(command))
            asked.add_done_callback(_retrieved)
            self._loop.call_soon(self._forget_copying)
        return await asyncio.shield(asked)

    def _forget_copying(self) -> None:
        self._copying = None

    def _flush(self) -> None:
        if self._outgoing and self._transport is not None and self.lost is None:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    async def flushed(self) -> None:
        """Return once the kernel has all that was queued; StoreUnavailable if it never will."""
        self._flush()
        assert self._transport is not None
        while self.lost is None and self._transport.get_write_buffer_size() > 0:
            await asyncio.sleep(0)  # uvloop writes at the end of a turn
            await self._drained.wait()
        if self.lost is not None:
            raise StoreUnavailable(f"the connection to Redis broke: {self.lost}")

    def abort(self, reason: BaseException) -> None:
        if self.lost is None:
            self.lost = reason
            if self._transport is not None:
                self._transport.abort()


class Wire:
    """The multiplexed client: `await wire.call("HGET", key, field)`."""

    def __init__(
        self, url: str, *, client_name: str = "relay", reply_deadline_s: float = REPLY_DEADLINE_S
    ) -> None:
        self._url = url
        self._reply_deadline_s = reply_deadline_s
        self._place = place_of(url)
        self._client_name = client_name
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._doubting: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def where(self) -> str:
        """The server's place without credentials, for messages."""
        return self._place.where

    def sibling(self) -> "Wire":
        """Another wire to the same place, under the same name."""
        return Wire(
            self._url, client_name=self._client_name, reply_deadline_s=self._reply_deadline_s
        )

    async def call(self, *arguments: Any) -> Any:
        """One command; its reply (bytes, int, list, None); errors as the exceptions above."""
        connection = await self._ready()
        reply = await connection.send(pack_command(arguments))
        if isinstance(reply, hiredis.ReplyError):
            _refused(connection, str(reply))
        return reply

    async def call_copied(self, copies: Copies, *arguments: Any) -> Any:
        """As `call`; returns once so many replicas have what came of it, StoreUnavailable if not.

        Then the command has been carried out all the same, and may be lost or not.
        """
        connection = await self._ready()
        reply = await connection.send(pack_command(arguments))
        if isinstance(reply, hiredis.ReplyError):
            _refused(connection, str(reply))
        # By the same connection: another one's may be of another master, which knows nothing of it.
        have = await connection.copied(copies)
        if isinstance(have, hiredis.ReplyError):
            _refused(connection, str(have))
        if have < copies.replicas:
            raise StoreUnavailable(
                f"{have} of {copies.replicas} replicas had it within {copies.within_s:g} s"
            )
        return reply

    async def post(self, *arguments: Any) -> "asyncio.Future[Any]":
        """One command whose reply need not be awaited; returns once the kernel has it.

        What became of it: `has_failed(reply)` when the reply is done.
        """
        connection = await self._ready()
        reply = connection.send(pack_command(arguments))
        reply.add_done_callback(_retrieved)
        await connection.flushed()
        return reply

    async def prepare(self, *arguments: Any) -> "asyncio.Future[Any]":
        """One command that leaves in one write with the next: for what the next one builds on.

        Nothing says that it arrived: the next command must find out.
        """
        connection = await self._ready()
        reply = connection.send(pack_command(arguments))
        reply.add_done_callback(_retrieved)
        return reply

    @property
    def silence_s(self) -> float:
        """How long commands have waited without a word of Redis; 0 when none waits."""
        return self._connection.silence_s if self._connection is not None else 0.0

    async def flushed(self) -> None:
        """Wait until every command so far has been handed to the kernel."""
        if self._connection is not None:
            await self._connection.flushed()

    async def _ready(self) -> _Connection:
        """A connection that takes commands."""
        while True:
            connection = self._connection
            if connection is None or connection.lost is not None:
                connection = await self._connect()
            if not connection.is_congested:
                return connection
            with contextlib.suppress(StoreUnavailable):
                await connection.flushed()

    async def _connect(self) -> _Connection:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        connecting = self._connecting
        if connecting is None:
            connecting = self._connecting = asyncio.ensure_future(self._open())
            connecting.add_done_callback(self._connected)
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            if connecting.cancelled():  # by close(), not our caller
                raise StoreUnavailable("the store is closed") from None
            raise

    def _connected(self, task: "asyncio.Task[_Connection]") -> None:
        self._connecting = None
        _retrieved(task)

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                connection = await self._place.dial(lambda: _Connection(loop))
                await self._greet(connection)
        except (OSError, TimeoutError) as error:
            _abandon(connection)
            detail = str(error) or "no answer"
            raise StoreUnavailable(f"Redis at {self.where} is not reachable: {detail}") from None
        except BaseException:
            _abandon(connection)
            raise
        self._connection = connection
        self._watch(loop)
        return connection

    async def _greet(self, connection: _Connection) -> None:
        """Log in, say who we are, and see that it is a master that we speak to."""
        commands = [*self._place.greeting(), ("CLIENT", "SETNAME", self._client_name)]
        if self._place.is_elected:
            commands.append(("ROLE",))
        for command in commands:
            reply = await connection.send(pack_command(command))
            if isinstance(reply, hiredis.ReplyError):
                raise_reply_error(str(reply))
        if self._place.is_elected and reply[0] != b"master":
            raise StoreUnavailable(f"Redis at {self.where} is called the master and is none yet")

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Break a connection whose peer is silent though commands wait (half-open TCP)."""

        def check() -> None:
            connection = self._connection
            if connection is None or connection.lost is not None:
                return
            if connection.silence_s > self._reply_deadline_s:
                connection.abort(TimeoutError("no reply"))
                return
            if self._place.is_elected and connection.silence_s > DOUBT_S:
                self._doubt(connection)
            self._watchdog = loop.call_later(1.0, check)

        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = loop.call_later(1.0, check)

    def _doubt(self, connection: _Connection) -> None:
        """Leave a silent master that has been replaced, without waiting for the deadline."""

        async def look() -> None:
            if await self._place.has_moved():
                connection.abort(ConnectionResetError("the sentinels name another master"))

        if self._doubting is None or self._doubting.done():
            self._doubting = asyncio.ensure_future(look())
            self._doubting.add_done_callback(_retrieved)

    async def close(self) -> None:
        """Close the connection; waiting commands fail with StoreUnavailable."""
        self._closed = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        tasks = [task for task in (self._connecting, self._doubting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        connection, self._connection = self._connection, None
        _abandon(connection)
        await asyncio.sleep(0)


def _notice_dead_network(sock: Any) -> None:
    """Have the kernel end a TCP connection whose peer's host, or the way there, is gone."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for option, value in DEAD_NETWORK_OPTIONS.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _abandon(connection: _Connection | None) -> None:
    if connection is not None:
        connection.abort(ConnectionAbortedError("closed"))


def _refused(connection: _Connection, text: str) -> NoReturn:
    """Raise what an error reply means; one of a demoted master ends its connection."""
    if text.startswith(_DEMOTED):
        connection.abort(ConnectionResetError(text))
    raise_reply_error(text)


def has_failed(reply: "asyncio.Future[Any]") -> bool:
    """Whether a posted command came to nothing: its connection broke, or Redis refused it."""
    if reply.cancelled() or reply.exception() is not None:
        return True
    return isinstance(reply.result(), hiredis.ReplyError)


def _retrieved(future: "asyncio.Future[Any]") -> None:
    """Look at the exception of a future that nobody awaits."""
    if not future.cancelled():
        future.exception()
