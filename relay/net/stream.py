"""A TCP connection with optional TLS as a stream with deadlines: asyncio.Protocol, uvloop or not.

Rules of this file:
- Deadlines are absolute times of `loop.time()`. One timer serves all of them: it is moved only
  when a deadline comes nearer, so a deadline per reply costs no timer operation.
- `drain` ends early when something came to be read: a server may speak while we write.
- The high-water mark is zero, so "written" means handed to the kernel (in clear; under TLS,
  handed to the TLS layer): `unwritten` decides whether the final dot can have left.
- Received octets wait in memory up to 256 KiB, then reading pauses.
- Foreign exceptions end here: ConnectFailed, ConnectionLost, DeadlineExpired, TlsFailed.
"""

import asyncio
import contextlib
import fcntl
import ipaddress
import os
import socket
import ssl
import struct
import sys
import termios
from typing import cast

from relay.model.errors import ConnectFailed, ConnectionLost, DeadlineExpired, TlsFailed
from relay.net.tls import (
    ResumingContext,
    abort_transport,
    channel_binding,
    failure_text,
    peer_chain,
    tls_info,
)

#: Octets received but not read at which the transport is paused.
RECEIVE_OCTETS = 256 * 1024
#: Seconds that a TLS close_notify of the peer is waited for.
_TLS_SHUTDOWN_S = 2.0
#: linux/in.h: the port is chosen at connect, so many connections share one source address.
_IP_BIND_ADDRESS_NO_PORT = 24
#: SO_LINGER on, for no time: closing forgets what the kernel has not sent, and resets.
_FORGET = struct.pack("ii", 1, 0)


def is_loopback(address: str) -> bool:
    """Whether an IP literal is this machine's own, IPv4-mapped or not, or a socket's path; False
    for names."""
    if address.startswith("/"):
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback


class Stream(asyncio.Protocol):
    """One connection; made by `connect`."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._transport: asyncio.Transport | None = None
        self._tls: dict[str, str | bool] = {}
        self._ssl_object: ssl.SSLObject | None = None
        self._chunks: list[bytes] = []
        self._chunk_octets = 0
        self._is_read_paused = False
        self._is_write_paused = False
        self._is_eof = False
        self._lost: ConnectionLost | None = None
        self._closed = self._loop.create_future()
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # -- what the owner uses -----------------------------------------------------------------

    @property
    def tls(self) -> dict[str, str | bool]:
        """As `tls_info` says; empty in clear."""
        return self._tls

    @property
    def channel_binding(self) -> tuple[str, bytes]:
        """Type and value of the TLS channel binding; empty where there is none."""
        transport = self._transport
        return channel_binding(transport.get_extra_info("ssl_object") if transport else None)

    @property
    def local_address(self) -> str:
        """The address that we speak from; empty for a Unix socket, or where it is gone."""
        with contextlib.suppress(OSError):
            if self._socket.family != socket.AF_UNIX:
                return str(self._socket.getsockname()[0])
        return ""

    @property
    def certificate(self) -> bytes:
        """The peer's certificate (DER), whether it was verified or not; empty in clear."""
        tls = self._ssl_object
        return (tls.getpeercert(binary_form=True) or b"") if tls is not None else b""

    @property
    def has_unread(self) -> bool:
        """Whether octets are here that `read` has not given out."""
        return bool(self._chunks)

    @property
    def is_open(self) -> bool:
        """Whether the connection is established and the peer may still speak."""
        transport = self._transport
        return (
            transport is not None
            and self._lost is None
            and not self._is_eof
            and not transport.is_closing()
        )

    @property
    def unwritten(self) -> bool:
        """Whether octets given to `write` have not reached the kernel, or the TLS layer."""
        return self._is_write_paused

    @property
    def undelivered(self) -> bool:
        """Whether octets given to `write` have not reached the peer's host."""
        return self._is_write_paused or _unacknowledged(self._socket) > 0

    def write(self, data: bytes) -> None:
        """Hand octets over; ConnectionLost where there is no connection."""
        if self._lost is not None or self._transport is None:
            raise self._lost or ConnectionLost("the connection is closed")
        self._transport.write(data)

    async def read(self, deadline: float) -> bytes:
        """What the peer sent, b"" at its end; ConnectionLost, or TimeoutError at the deadline."""
        while not self._chunks:
            if self._is_eof:
                return b""
            if self._lost is not None:
                raise self._lost
            await self._wait(deadline)
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._chunk_octets = 0
        if self._is_read_paused and self._transport is not None:
            self._is_read_paused = False
            self._transport.resume_reading()
        return data

    async def drain(self, deadline: float) -> bool:
        """Wait until all is written; False where something came to be read before that."""
        while self._is_write_paused:
            if self._chunks or self._is_eof:
                return False
            if self._lost is not None:
                raise self._lost
            await self._wait(deadline)
        return True

    async def start_tls(self, context: ssl.SSLContext, host: str, timeout_s: float) -> None:
        """Encrypt; TlsFailed or DeadlineExpired, and the connection is gone.

        Octets received in clear and not read fail it: they cannot be told from an injection
        (RFC 3207 §6). `host` is a name or an IP literal, for SNI and verification.
        """
        transport = self._transport
        if transport is None or self._lost is not None or self._is_eof:
            raise TlsFailed("the connection was closed before the handshake")
        if self._chunks:
            self.abort()
            raise TlsFailed("octets in clear before the handshake")
        name = host.rstrip(".")
        try:
            async with asyncio.timeout(timeout_s):
                encrypted = await self._loop.start_tls(
                    transport,
                    self,
                    context,
                    server_hostname=name,
                    ssl_handshake_timeout=timeout_s + 60,
                    ssl_shutdown_timeout=_TLS_SHUTDOWN_S,
                )
        except TimeoutError as error:
            _forget_session(context, name)
            self._give_up(transport)
            raise DeadlineExpired("tls", timeout_s) from error
        except (OSError, ValueError) as error:
            _forget_session(context, name)
            self._give_up(transport)
            raise TlsFailed(failure_text(error)) from error
        except BaseException:
            self._give_up(transport)
            raise
        if encrypted is None:
            self._give_up(transport)
            raise TlsFailed("the connection was closed in the handshake")
        encrypted.set_write_buffer_limits(high=1, low=0)
        self._transport = encrypted
        self._ssl_object = encrypted.get_extra_info("ssl_object")
        self._tls = tls_info(self._ssl_object)

    def peer_chain(self) -> list[bytes]:
        """The certificates (DER) that the peer sent in its handshake, its own first."""
        return [] if self._ssl_object is None else peer_chain(self._ssl_object)

    def vouch(self) -> None:
        """The owner has checked the peer's certificate himself."""
        self._tls = self._tls | {"verified": True}

    def close(self) -> None:
        """Close after what was written has gone out; returns at once."""
        self._keep_session()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection with what has not reached the peer; returns at once, never raises."""
        if self._transport is not None:
            if self.undelivered:
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _FORGET)
            abort_transport(self._transport)

    def _keep_session(self) -> None:
        """Keep the TLS session for the next handshake: TLS 1.3 gives it with the first replies."""
        tls = self._ssl_object
        if tls is not None and self._lost is None and isinstance(tls.context, ResumingContext):
            tls.context.keep(str(tls.server_hostname), tls.session)

    async def wait_closed(self, timeout_s: float) -> None:
        """Wait for the end of the connection, by force at the time-out."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._closed)
                return
        self.abort()
        await asyncio.shield(self._closed)

    # -- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._chunk_octets += len(data)
        if self._chunk_octets > RECEIVE_OCTETS and not self._is_read_paused and self._transport:
            self._is_read_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._is_eof = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self._tls:
            self._salvage()
        text = _text(exc) if isinstance(exc, OSError) else str(exc)
        self._lose(text if exc is not None else "the connection was closed")

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._wake()

    # -- waiting -----------------------------------------------------------------------------

    async def _wait(self, deadline: float) -> None:
        """Wait until anything happens; TimeoutError at the deadline."""
        self._deadline = deadline
        if self._timer is None or self._timer_at > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_timer)
            self._timer_at = deadline
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _on_timer(self) -> None:
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._loop.time() >= self._deadline:
            waiter.set_exception(TimeoutError())
        else:
            self._timer = self._loop.call_at(self._deadline, self._on_timer)
            self._timer_at = self._deadline

    def _salvage(self) -> None:
        """Read what the kernel still holds: a reset met by our write hides the peer's last word."""
        with contextlib.suppress(OSError, ValueError):
            data = self._socket.recv(65536)
            if data:
                self._chunks.append(data)

    def _lose(self, text: str) -> None:
        self._lost = ConnectionLost(text)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._closed.done():
            self._closed.set_result(None)
        self._wake()

    def _give_up(self, transport: asyncio.Transport) -> None:
        """Drop a connection whose handshake failed: its transport no longer tells us."""
        abort_transport(transport)
        self._lose("the TLS handshake failed")


async def connect(
    address: str,
    port: int,
    *,
    timeout_s: float,
    source_address: str = "",
    allow_only_loopback: bool,
) -> Stream:
    """A stream to an IP literal, or to the Unix socket of a path; ConnectFailed says why not.

    `allow_only_loopback` refuses any other address before a packet leaves (sink mode).
    """
    if allow_only_loopback and not is_loopback(address):
        raise ConnectFailed(f"{address} refused: in sink mode only loopback addresses are reached")
    sock = _socket_to(address, source_address)
    try:
        async with asyncio.timeout(timeout_s):
            destination = address if sock.family == socket.AF_UNIX else (address, port)
            await asyncio.get_running_loop().sock_connect(sock, destination)
        stream = await adopt(sock)
    except TimeoutError as error:
        sock.close()
        raise ConnectFailed(f"no connection within {timeout_s:g} s") from error
    except OSError as error:
        sock.close()
        raise ConnectFailed(_text(error)) from error
    except BaseException:
        sock.close()
        raise
    return stream


async def adopt(sock: socket.socket) -> Stream:
    """A stream on a socket that is connected; the stream closes it."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    if sock.family == socket.AF_UNIX:
        _, stream = await loop.create_unix_connection(lambda: Stream(sock), sock=sock)
    else:
        _, stream = await loop.create_connection(lambda: Stream(sock), sock=sock)
    return stream


def _socket_to(address: str, source_address: str) -> socket.socket:
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        return sock
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        raise ConnectFailed(f"not an IP address: {address!r}") from None
    sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if source_address:
            if sys.platform == "linux":
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source_address, 0))
    except OSError as error:
        sock.close()
        raise ConnectFailed(f"cannot connect from {source_address}: {_text(error)}") from error
    return sock


def _forget_session(context: ssl.SSLContext, host: str) -> None:
    if isinstance(context, ResumingContext):
        context.forget(host)


def _unacknowledged(sock: socket.socket) -> int:
    """Octets in the kernel that the peer's has not confirmed (tcp(7): SIOCOUTQ); 0 where gone."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


def _text(error: OSError) -> str:
    """The system's words for an error; the event loops put their own in `strerror`."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
