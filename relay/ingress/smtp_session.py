"""One SMTP session of the submission listener (RFC 5321, 2920, 1870, 6152, 6531, 2034).

Rules of this file:
  every command gets exactly one reply, in order, however commands are pipelined;
  only a client in `smtp.allowed_networks` may relay;
  what goes wrong on our side is a 4yz, never a 5yz: the client keeps the message and tries again;
  no input may follow EHLO, DATA or STARTTLS before our reply (RFC 2920 §3.1): who sends it
  anyway is no mail client, or somebody else speaks through one.
"""

import re
import secrets
import select
from collections.abc import Awaitable, Callable
from typing import Any

from relay.ingress.data_reader import DataReader
from relay.ingress.smtp_protocol import COMMAND_OCTETS, SmtpProtocol
from relay.ingress.smtp_reply import refusal_of
from relay.ingress.smtp_transaction import Client, Surroundings, Transaction
from relay.telemetry.log import get_logger

#: Commands without use (NOOP, RSET, …) between two messages; Postfix's junk limit is 100.
_IDLE_COMMANDS = 100
#: Below this pace, once `smtp.data_timeout` is over, data is a way to hold a session (Postfix).
_OCTETS_PER_S = 500
_HTTP_VERBS = frozenset(
    {"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "HOST:"}
)

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_OK = b"250 2.0.0 OK\r\n"
_GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"


class SubmissionSession(SmtpProtocol):
    """The server's side of one connection."""

    def __init__(self, around: Surroundings, sessions: "set[SubmissionSession]") -> None:
        settings = around.settings.smtp
        super().__init__(
            hostname=around.hostname,
            idle_timeout_s=settings.idle_timeout,
            tls_context=around.tls_context,
        )
        self._around = around
        self._sessions = sessions
        self._gate = around.gate
        self._smtp = settings
        self._size_limit = around.settings.limits.message_size
        self._hello = ""
        self._is_extended = False
        self._transaction: Transaction | None = None
        self._errors = 0
        self._idle_commands = 0
        self._is_in_data = False
        self._is_draining = False
        self._log = get_logger()

    # -- the course of a session -------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The TCP connection, and once more the TLS one inside it: then all is forgotten."""
        is_first = self._original_transport is None
        self._hello, self._transaction = "", None
        super().connection_made(transport)
        if is_first:
            self._refusal = self._gate.enter(self.address)
            self._sessions.add(self)

    def closed(self) -> None:
        self._gate.leave(self.address)
        self._sessions.discard(self)

    def greeting(self) -> str:
        if self._refusal:
            self._log.warning("session.refused", remote=self.address, reason=self._refusal)
            return f"421 4.7.0 {self.hostname} {self._refusal}"
        if self._is_draining:
            return f"421 4.3.2 {self.hostname} shutting down"
        if len(self.input) or self._has_unread_input():
            return "554 5.5.0 You spoke before the greeting"
        return f"220 {self.hostname} ESMTP relay"

    def _has_unread_input(self) -> bool:
        """Whether octets wait in the kernel that the loop has not read yet."""
        sock = self.transport.get_extra_info("socket") if self.transport else None
        if sock is None:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        # A client that has already gone is readable, too: that is no speech.
        return any(
            event & select.POLLIN and not event & select.POLLHUP for _, event in poll.poll(0)
        )

    def drain(self) -> None:
        """Finish the message being taken, if there is one, then say 421 and close."""
        self._is_draining = True
        if not self._is_in_data and not self.is_over:
            self.finish(f"421 4.3.2 {self.hostname} shutting down")

    async def failed(self, error: Exception) -> str:
        incident = secrets.token_hex(4)
        self._log.error("session.failed", incident=incident, remote=self.address, exc_info=error)
        return f"451 4.3.0 Internal error ({incident}), try again later"

    # -- commands ----------------------------------------------------------------------------

    async def answer(self, line: bytes) -> None:
        fault = _line_fault(line)
        if fault:
            self._refuse(fault)
            return
        try:
            text = line[:-2].decode()
        except UnicodeDecodeError:
            self._refuse("500 5.5.2 Commands are ASCII or UTF-8")
            return
        verb, _, argument = text.partition(" ")
        verb = verb.upper()
        command = _COMMANDS.get(verb)
        if command is not None:
            reply = command(self, argument.strip(" "))
        elif verb in _LONG_COMMANDS:
            reply = await _LONG_COMMANDS[verb](self, argument.strip(" "))
        elif verb in _HTTP_VERBS:
            self.finish("554 5.5.1 This is SMTP, not HTTP")
            return
        else:
            reply = "500 5.5.2 Command not recognized"
        if isinstance(reply, bytes):
            self.reply(reply)
        elif reply:
            self._refuse(reply)

    def _refuse(self, text: str) -> None:
        """Reply, and count what was the client's fault."""
        self.reply(text)
        if text[0] == "5" and text[:3] != "553":
            self._errors += 1
            if self._errors >= self._smtp.max_errors:
                self._log.warning("session.too_many_errors", remote=self.address)
                self.finish("421 4.7.0 Too many errors, closing")

    def _is_out_of_step(self) -> bool:
        """Whether the client went on talking where it had to wait for us; ends the session."""
        if len(self.input) == 0:
            return False
        self._log.warning("session.out_of_step", remote=self.address)
        self.finish("554 5.5.0 You may not send more before our reply (RFC 2920)")
        return True

    def _hello_command(self, name: str) -> bool:
        """Common part of HELO and EHLO: a new start, the connection's identity stays."""
        if not name or self._is_out_of_step():
            return False
        self._hello = name
        self._transaction = None
        return True

    def _helo(self, name: str) -> str | bytes:
        if not self._hello_command(name):
            return "" if self.is_over else "501 5.5.4 Syntax: HELO hostname"
        self._is_extended = False
        return f"250 {self.hostname}\r\n".encode()

    def _ehlo(self, name: str) -> str | bytes:
        if not self._hello_command(name):
            return "" if self.is_over else "501 5.5.4 Syntax: EHLO hostname"
        self._is_extended = True
        words = [
            self.hostname,
            "PIPELINING",
            f"SIZE {self._size_limit}",
            "8BITMIME",
            "SMTPUTF8",
            "DSN",
        ]
        if self.tls_context is not None and self._tls_protocol is None:
            words.append("STARTTLS")
        if self._tls_protocol is not None:
            words.append("REQUIRETLS")
        lines = [f"250-{word}\r\n" for word in words]
        return "".join([*lines, "250 ENHANCEDSTATUSCODES\r\n"]).encode()

    def _mail(self, argument: str) -> str | bytes:
        if not self._hello:
            return "503 5.5.1 Send EHLO first"
        if self._transaction is not None:
            return "503 5.5.1 Nested MAIL command"
        has_tls = self._tls_protocol is not None
        client = Client(self.address, self._hello, self._is_extended, has_tls)
        transaction = Transaction(self._around, client)
        reply = transaction.open(argument)
        self._transaction = transaction if transaction.is_open else None
        return reply

    def _rcpt(self, argument: str) -> str | bytes:
        transaction = self._transaction
        if transaction is None:
            return "503 5.5.1 Send MAIL first"
        reply = transaction.add_recipient(argument)
        if transaction.refused > 2 * self._smtp.max_recipients:
            self.finish("421 4.7.0 Too many refused recipients, closing")
            return ""
        return reply

    def _idle_command(self) -> str | bytes:
        self._idle_commands += 1
        if self._idle_commands > _IDLE_COMMANDS:
            self.finish("421 4.7.0 Too many commands without a message, closing")
            return ""
        return _OK

    def _rset(self, argument: str) -> str | bytes:
        if argument:
            return "501 5.5.4 RSET takes no argument"
        self._transaction = None
        return self._idle_command()

    def _noop(self, argument: str) -> str | bytes:
        return self._idle_command()

    def _vrfy(self, argument: str) -> str | bytes:
        self._idle_command()
        return b"252 2.5.0 Cannot verify, but will take mail and try to deliver it\r\n"

    def _help(self, argument: str) -> str | bytes:
        self._idle_command()
        return b"214 2.0.0 RFC 5321; EHLO tells what is offered\r\n"

    def _quit(self, argument: str) -> str | bytes:
        self.finish("221 2.0.0 Bye")
        return ""

    def _not_offered(self, argument: str) -> str | bytes:
        return "502 5.5.1 Command not implemented"

    # -- commands that wait ------------------------------------------------------------------

    async def _starttls(self, argument: str) -> str | bytes:
        if argument:
            return "501 5.5.4 STARTTLS takes no argument"
        if self._tls_protocol is not None:
            return "503 5.5.1 TLS is on already"
        if self.tls_context is None:
            return "502 5.5.1 TLS is not offered"
        if not self._is_out_of_step():
            await self.smtp_STARTTLS("")
        return ""

    async def _bdat(self, argument: str) -> str | bytes:
        """Not offered; but its octets are no commands (RFC 3030), so they are read away."""
        size = argument.partition(" ")[0]
        if not (size.isascii() and size.isdigit() and int(size) <= self._size_limit):
            self.finish("521 5.5.1 BDAT is not offered, closing")
            return ""
        left = int(size)
        while left > 0:
            if not len(self.input) and not await self.wait_for_input(self._smtp.data_timeout):
                return ""
            octets = self.input.take_all()
            self.input.unread(octets[left:])
            left -= min(left, len(octets))
        return "503 5.5.1 BDAT is not offered"

    async def _data(self, argument: str) -> str | bytes:
        transaction = self._transaction
        if argument:
            return "501 5.5.4 DATA takes no argument"
        if transaction is None:
            return "503 5.5.1 Send MAIL first"
        if not transaction.has_recipients:
            return (
                "554 5.5.1 No valid recipients"
                if transaction.refused
                else ("503 5.5.1 Send RCPT first")
            )
        if self._is_out_of_step():
            return ""
        self.reply(_GO_AHEAD)
        reader = DataReader(self._size_limit, self._gate.reserve)
        self._is_in_data = True
        try:
            reply = await self._take_message(transaction, reader)
        finally:
            self._gate.release(reader.reserved)
            self._is_in_data = False
            self._transaction = None
        if self._is_draining and not self.is_over:
            self.reply(reply)
            self.finish(f"421 4.3.2 {self.hostname} shutting down")
            return ""
        return reply

    async def _take_message(self, transaction: Transaction, reader: DataReader) -> str | bytes:
        begun = self.loop.time()
        while True:
            if not len(self.input):
                if reader.received:
                    self.acknowledge()
                if not await self.wait_for_input(self._smtp.data_timeout):
                    return ""
            rest = reader.receive(self.input.take_all())
            if rest is not None:
                self.input.unread(rest)
                return await self._hand_over(transaction, reader)
            if reader.is_hopeless:
                self.finish(
                    f"552 5.3.4 Message exceeds the size limit of {self._size_limit} octets"
                )
                return ""
            elapsed = self.loop.time() - begun
            if elapsed > self._smtp.data_timeout and reader.received < _OCTETS_PER_S * elapsed:
                self.finish("421 4.4.2 Data comes too slowly, closing")
                return ""

    async def _hand_over(self, transaction: Transaction, reader: DataReader) -> str | bytes:
        self.set_deadline(float("inf"))
        self._is_busy = True
        try:
            reply = await transaction.hand_over(reader)
        except Exception as error:
            return self._refused(error) or await self.failed(error)
        finally:
            self._is_busy = False
        if isinstance(reply, bytes):
            self._errors = self._idle_commands = 0
        return reply

    def _refused(self, error: Exception) -> str | None:
        text = refusal_of(error)
        if text is not None:
            self._log.warning("message.refused", remote=self.address, reply=text)
        return text


def _line_fault(line: bytes) -> str:
    if len(line) > COMMAND_OCTETS + 1:
        return "500 5.5.2 Command line too long"
    if not line.endswith(b"\r\n"):
        return "500 5.5.2 Commands end in CRLF, not in a bare LF"
    if _CONTROL.search(line, 0, len(line) - 2):
        return _control_fault(line)
    return ""


def _control_fault(line: bytes) -> str:
    """An address with a control character is named as any bad one; NUL and CR are no command's."""
    status = {b"MAIL": "5.1.7", b"RCPT": "5.1.3"}.get(line[:4].upper())
    if status is None or b"\0" in line or b"\r" in line[:-2]:
        return "500 5.5.2 Control character in command"
    shown = line[5:-2].decode("ascii", "replace")[:80]
    return f"553 {status} Control character in {shown}"


_COMMANDS: dict[str, Callable[[SubmissionSession, str], str | bytes]] = {
    "HELO": SubmissionSession._helo,
    "EHLO": SubmissionSession._ehlo,
    "MAIL": SubmissionSession._mail,
    "RCPT": SubmissionSession._rcpt,
    "RSET": SubmissionSession._rset,
    "NOOP": SubmissionSession._noop,
    "VRFY": SubmissionSession._vrfy,
    "HELP": SubmissionSession._help,
    "QUIT": SubmissionSession._quit,
    "EXPN": SubmissionSession._not_offered,
    "AUTH": SubmissionSession._not_offered,
}
_LONG_COMMANDS: dict[str, Callable[[SubmissionSession, str], Awaitable[str | bytes]]] = {
    "DATA": SubmissionSession._data,
    "BDAT": SubmissionSession._bdat,
    "STARTTLS": SubmissionSession._starttls,
}
