"""The plumbing of a submission session: aiosmtpd's protocol class with our input and output.

aiosmtpd answers each command on its own, reads by lines of 1,001 octets, drops pipelined input
at a half-close and closes silently; here commands come from an `InputBuffer`, replies to
pipelined commands leave in one write (RFC 2920 §3.2), and whoever is sent away is told why.
STARTTLS and AUTH stay aiosmtpd's.
"""

import asyncio
import socket
import ssl
from typing import Any

from aiosmtpd.smtp import SMTP, TLSSetupException

from relay.ingress.input_buffer import InputBuffer
from relay.ingress.smtp_reply import wire_reply
from relay.net.tls import abort_transport

#: Octets of a command line. RFC 5321 §4.5.3.1.4 asks for 512 and more for parameters.
COMMAND_OCTETS = 2048
_WRITE_HIGH_WATER = 65536
#: How long a closed connection may take to read its last reply.
_LINGER_S = 5.0
#: Linux has it, others acknowledge in their own time.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


#: What aiosmtpd looks for among a connection's members: a third of the cost of a connection.
_MEMBERS = [name for name in dir(SMTP) if name.startswith(("auth_", "smtp_"))]


class NoHooks:
    """The handler object that aiosmtpd wants; all commands are methods of the session."""

    def __dir__(self) -> list[str]:
        return []


class SmtpProtocol(SMTP):
    """One connection: reads lines, has each answered, writes the replies, keeps the deadline."""

    def __init__(
        self, *, hostname: str, idle_timeout_s: float, tls_context: ssl.SSLContext | None
    ) -> None:
        super().__init__(
            NoHooks(),
            hostname=hostname,
            enable_SMTPUTF8=True,
            tls_context=tls_context,
            timeout=idle_timeout_s,
            loop=asyncio.get_running_loop(),
        )
        self.address = ""
        self.transport: asyncio.Transport | None = None
        self.is_over = False
        self._idle_timeout_s = idle_timeout_s
        self._replies = bytearray()
        self._deadline = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._is_busy = False

    def __dir__(self) -> list[str]:
        return _MEMBERS

    # -- what a session defines --------------------------------------------------------------

    def greeting(self) -> str:
        """The first reply; a 4yz or 5yz ends the session."""
        raise NotImplementedError

    async def answer(self, line: bytes) -> None:
        """Answer one command line (with its line end) by `reply`."""
        raise NotImplementedError

    def closed(self) -> None:
        """The connection is gone."""
        raise NotImplementedError

    async def failed(self, error: Exception) -> str:
        """The reply for an exception that no command caught."""
        raise NotImplementedError

    # -- replies -----------------------------------------------------------------------------

    def reply(self, text: str | bytes) -> None:
        """Queue a reply; octets are taken as they are. Nothing follows the last one."""
        if self.is_over:
            return
        self._replies += text if isinstance(text, bytes) else wire_reply(text)

    def finish(self, text: str) -> None:
        """Queue a last reply and close once it is written."""
        self.reply(text)
        self.is_over = True
        self.write_replies()
        if self.transport is not None:
            self.transport.close()
        if self.transport is not None and self._linger is None:
            self._linger = self.loop.call_later(_LINGER_S, self.abandon)

    def abandon(self) -> None:
        """Cut the connection: the client does not read its last reply, or time is up."""
        if self.transport is not None:
            abort_transport(self.transport)

    def write_replies(self) -> None:
        """Hand the queued replies to the transport."""
        if self._replies and self.transport is not None:
            self.transport.write(bytes(self._replies))
        self._replies.clear()

    async def push(self, status: str | bytes) -> None:
        """Write a reply at once, for aiosmtpd's own commands."""
        self.reply(status if isinstance(status, str) else status + b"\r\n")
        self.write_replies()
        await self._writer.drain()

    # -- input -------------------------------------------------------------------------------

    async def wait_for_input(self, timeout_s: float) -> bool:
        """Write what is queued and wait for input; False when none will come any more."""
        self.write_replies()
        self.set_deadline(timeout_s)
        transport = self.transport
        if transport is None or self.input.has_ended:
            return False
        if transport.get_write_buffer_size() > _WRITE_HIGH_WATER:
            await self._writer.drain()
        await self.input.wait()
        return True

    def acknowledge(self) -> None:
        """Have TCP acknowledge at once what has come, because no reply of ours will for a while.

        Clients that write content and final dot apart hold the dot back until then (Nagle's
        algorithm): the kernel's delayed acknowledgement would cost each of their messages 40 ms.
        """
        sock = self.transport.get_extra_info("socket") if self.transport else None
        if sock is not None and _QUICKACK is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    async def _handle_client(self) -> None:
        try:
            await self._converse()
        except TLSSetupException:
            pass
        finally:
            self.is_over = True
            if self.transport is not None:
                self.transport.close()

    async def _converse(self) -> None:
        greeting = self.greeting()
        self.reply(greeting if greeting[0] != "2" else f"{greeting}\r\n".encode())
        self.is_over = greeting[0] != "2"
        while not self.is_over and self.transport is not None:
            line = self.input.take_line(COMMAND_OCTETS)
            if line is None:
                if not await self.wait_for_input(self._idle_timeout_s):
                    break
                continue
            try:
                await self.answer(line)
            except TLSSetupException:
                raise
            except Exception as error:
                self.reply(await self.failed(error))
        self.write_replies()

    # -- the deadline ------------------------------------------------------------------------

    def set_deadline(self, timeout_s: float) -> None:
        """The time by which something must come. Cheap: the timer is moved when it rings."""
        now = self.loop.time()
        self._deadline = now + timeout_s
        timer = self._timer
        if timer is not None and timer.when() > self._deadline + 0.05:
            timer.cancel()
            timer = None
        if timer is None and timeout_s != float("inf"):
            self._timer = self.loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._deadline == float("inf"):
            return
        if self.loop.time() < self._deadline - 0.01:
            self._timer = self.loop.call_at(self._deadline, self._ring)
            return
        self.finish("421 4.4.2 Timed out waiting for you, closing")

    # -- what aiosmtpd and asyncio call ------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._original_transport is None:
            self.input = InputBuffer(transport)
            peer = transport.get_extra_info("peername")
            self.address = peer[0] if isinstance(peer, tuple) else ""
        super().connection_made(transport)

    def _cb_client_connected(self, reader: Any, writer: asyncio.StreamWriter) -> None:
        self._reader = self.input  # type: ignore[assignment]
        self._writer = writer

    def _reset_timeout(self, duration: float | None = None) -> None:
        self.set_deadline(duration or self._idle_timeout_s)

    def data_received(self, data: bytes) -> None:
        self.input.feed(data)

    def eof_received(self) -> bool:
        # Commands that came before a half-close are still answered.
        self.input.feed_eof()
        return self.session is None or self.session.ssl is None

    def connection_lost(self, error: Exception | None) -> None:
        for timer in (self._timer, self._linger):
            if timer is not None:
                timer.cancel()
        if self._original_transport is not None:
            self._original_transport.close()
        super(SMTP, self).connection_lost(error)
        self.input.feed_eof()
        if not self._is_busy and self._handler_coroutine is not None:
            self._handler_coroutine.cancel()
        self.transport = None
        self.closed()
