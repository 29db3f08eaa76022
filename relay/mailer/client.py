"""The client: each SMTP command a method (RFC 5321 §4.1), every argument checked before it leaves.

Rules of this file:
- EHLO is said by itself before the first command that needs it, HELO where EHLO is unknown.
- A refusal raises CommandRefused and leaves the session usable, but for 421.
"""

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from relay.mailer.auth import Auth, Server
from relay.mailer.data_writer import DataWriter
from relay.mailer.dialogue import CommandRefused, Dialogue, require
from relay.model.dsn import RecipientDsn, notify_letters
from relay.model.errors import ConnectFailed, LocalProtocolError, RelayError, RemoteProtocolError
from relay.model.reply import Reply
from relay.net.stream import Stream, adopt, connect, is_loopback
from relay.net.tls import client_context
from relay.smtp import command, sasl
from relay.smtp.content import has_nul, is_8bit, wire_octets
from relay.smtp.extensions import NO_EXTENSIONS, Extensions, parse_extensions
from relay.smtp.sasl import Channel

#: RFC 5321 §4.5.3.2: five minutes for most replies.
TIMEOUT_S = 300.0
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:\[\]]+)):(?P<port>\d{1,5})")


class AsyncSmtpClient:
    """One session with one server; not for use by two tasks at once."""

    def __init__(self, stream: Stream, host: str, port: int, *, timeout_s: float = TIMEOUT_S):
        """Use `connect` or `adopt`, which read the greeting, too."""
        self._dialogue = Dialogue(stream, timeout_s)
        self._host = host
        self._port = port
        self._is_local = False
        self._name = "localhost"
        self._is_greeted = False
        self._offers: dict[str, str] = {}
        self.extensions: Extensions = NO_EXTENSIONS
        #: What the server said when we came.
        self.greeting: Reply | None = None

    @classmethod
    async def connect(
        cls,
        address: str,
        *,
        tls: bool = False,
        context: ssl.SSLContext | None = None,
        source_address: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """A session with `host:port`; each address of the host is tried in turn.

        `tls`: encrypted from the start (port 465), the certificate verified unless a `context`
        says otherwise. ConnectFailed, TlsFailed, or CommandRefused where the greeting is no 220.
        """
        host, port = _host_and_port(address)
        failure: ConnectFailed | None = None
        for ip in await _addresses_of(host, port):
            try:
                stream = await connect(
                    ip,
                    port,
                    timeout_s=timeout_s,
                    source_address=source_address,
                    allow_only_loopback=False,
                )
            except ConnectFailed as error:
                failure = error
                continue
            return await cls._begin(stream, host, port, is_loopback(ip), tls, context, timeout_s)
        raise ConnectFailed(f"{host}:{port}: {failure or 'the name has no address'}")

    @classmethod
    async def adopt(
        cls,
        connected: socket.socket,
        host: str,
        *,
        tls: bool = False,
        context: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """A session on a socket that is connected, through a proxy for example; as `connect`.

        `host` is whom we believe to talk to: certificates and credentials are held against it.
        """
        is_local = connected.family == socket.AF_UNIX or is_loopback(
            str(connected.getpeername()[0])
        )
        stream = await adopt(connected)
        return await cls._begin(stream, host, 0, is_local, tls, context, timeout_s)

    @classmethod
    async def _begin(
        cls,
        stream: Stream,
        host: str,
        port: int,
        is_local: bool,
        tls: bool,
        context: ssl.SSLContext | None,
        timeout_s: float,
    ) -> Self:
        self = cls(stream, host, port, timeout_s=timeout_s)
        self._is_local = is_local
        try:
            if tls:
                await stream.start_tls(context or client_context(verified=True), host, timeout_s)
            self.greeting = require([await self._dialogue.hear(command.GREETING)])
        except BaseException as error:
            await self._dialogue.end(error if isinstance(error, RelayError) else None)
            raise
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.quit()
        else:
            await self.close()

    # -- what is known -----------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether another command may be said."""
        return self._dialogue.is_open

    @property
    def tls_state(self) -> dict[str, str | bool]:
        """Protocol, cipher, names and verification of the encrypted path; empty in clear."""
        return dict(self._dialogue.stream.tls)

    async def extension(self, name: str) -> str | None:
        """The parameters of an extension, None where it is not offered: `extension("SIZE")`."""
        await self._introduced()
        return self._offers.get(name.upper())

    # -- the opening -------------------------------------------------------------------------

    async def hello(self, name: str = "localhost") -> Reply:
        """Say who we are, first of all; without it, `localhost` is said when it is needed."""
        if self._is_greeted:
            raise LocalProtocolError("hello() comes before every other command, once")
        self._name = name
        return await self._hello()

    async def starttls(self, context: ssl.SSLContext | None = None) -> None:
        """Encrypt, and begin anew; the certificate is verified unless a `context` says otherwise.

        CommandRefused where the server does not; TlsFailed, and the connection is gone.
        """
        await self._introduced()
        if self.tls_state:
            raise LocalProtocolError("the path is encrypted already")
        require(await self._dialogue.ask((command.STARTTLS, command.STARTTLS_LINE)))
        try:
            self._dialogue.start_anew()
            await self._dialogue.stream.start_tls(
                context or client_context(verified=True), self._host, self._dialogue.timeout_s
            )
        except RelayError as error:
            await self._dialogue.end(error)
            raise
        self._is_greeted = False
        await self._hello()

    async def auth(self, auth: Auth) -> Reply:
        """Log in (RFC 4954); CommandRefused where the server does not let us.

        LocalProtocolError where the credentials are not for this server or this path.
        """
        await self._introduced()
        binding, data = self._dialogue.stream.channel_binding
        server = Server(
            self._host,
            self._port,
            bool(self.tls_state) or self._is_local,
            self.extensions.auth,
            Channel(self._host, self._port, binding, data),
        )
        mechanism = auth.begin(server)
        first = mechanism.initial_response()
        line = command.auth(mechanism.name, None if first is None else sasl.encode(first))
        (reply,) = await self._dialogue.ask((command.AUTH, line))
        while reply.is_intermediate:
            reply = await self._answer_challenge(mechanism, reply)
        require([reply])
        try:
            mechanism.verify()
        except ValueError as error:
            distrusted = RemoteProtocolError(f"the server is not to be trusted: {error}")
            await self._dialogue.end(distrusted)
            raise distrusted from None
        return reply

    async def _answer_challenge(self, mechanism: sasl.Mechanism, reply: Reply) -> Reply:
        try:
            line = command.auth_response(sasl.encode(mechanism.respond(sasl.decode(reply.text))))
        except (ValueError, LocalProtocolError) as error:
            await self._dialogue.ask((command.AUTH, command.AUTH_CANCEL))
            raise RemoteProtocolError(f"{mechanism.name} broken off: {error}") from None
        (following,) = await self._dialogue.ask((command.AUTH, line))
        return following

    # -- a transaction -----------------------------------------------------------------------

    async def mail(
        self,
        reverse_path: str,
        *,
        size: int | None = None,
        is_8bit: bool = False,
        smtputf8: bool = False,
        ret: str = "",
        envid: str = "",
    ) -> Reply:
        """Begin a transaction; an empty reverse-path is the null one.

        A parameter whose extension is not offered is left out where the mail is none the worse
        (SIZE, RET, ENVID); LocalProtocolError for SMTPUTF8, which cannot be done without.
        """
        await self._introduced()
        line = self._mail_line(reverse_path, size, is_8bit, smtputf8, ret, envid)
        return require(await self._dialogue.ask((command.MAIL, line)))

    async def rcpt(self, forward_path: str, *, notify: str = "", orcpt: str = "") -> Reply:
        """Name one recipient; CommandRefused where it is not taken.

        `notify` is NEVER, or of SUCCESS,FAILURE,DELAY (RFC 3461 §4.1), `orcpt` as `rfc822;` and
        the address in xtext; both are left out where DSN is not offered.
        """
        line = command.rcpt(forward_path)
        if (notify or orcpt) and self.extensions.dsn:
            try:
                asked = RecipientDsn(notify_letters(notify) if notify else "", orcpt)
            except ValueError:
                raise LocalProtocolError(f"not a NOTIFY: {ascii(notify)[:100]}") from None
            line = command.rcpt_with_dsn(forward_path, asked)
        return require(await self._dialogue.ask((command.RCPT, line)))

    async def data(self) -> DataWriter:
        """Begin the content: write it, in pieces of any size, then close for the reply."""
        (reply,) = await self._dialogue.ask((command.DATA, command.DATA_LINE))
        if not reply.is_intermediate:
            raise CommandRefused(reply)
        return DataWriter(self._dialogue)

    async def send(
        self, reverse_path: str, forward_paths: Sequence[str], content: bytes
    ) -> dict[str, Reply]:
        """One whole message; the recipients that were refused, each with its reply.

        The envelope goes in one write where PIPELINING is offered. CommandRefused where MAIL, all
        recipients or the content is refused; the session is ready for the next message then.
        """
        await self._introduced()
        if not forward_paths:
            raise LocalProtocolError("a message without recipients")
        if has_nul(content):
            raise LocalProtocolError("content with a NUL octet, which SMTP cannot carry")
        wants_utf8 = not all(map(str.isascii, (reverse_path, *forward_paths)))
        mail = self._mail_line(
            reverse_path, wire_octets(content), is_8bit(content), wants_utf8, "", ""
        )
        lines = [(command.MAIL, mail)]
        lines += [(command.RCPT, command.rcpt(path)) for path in forward_paths]
        sender, *recipients = await self._envelope(lines)
        refused = {
            path: reply
            for path, reply in zip(forward_paths, recipients, strict=False)
            if not reply.is_positive
        }
        if not sender.is_positive or len(refused) == len(forward_paths):
            with contextlib.suppress(RelayError):
                await self.reset()
            raise CommandRefused(next(iter(refused.values())) if sender.is_positive else sender)
        try:
            writer = await self.data()
        except CommandRefused:
            with contextlib.suppress(RelayError):
                await self.reset()
            raise
        await writer.write(content)
        await writer.close()
        return refused

    async def _envelope(self, lines: list[tuple[str, bytes]]) -> list[Reply]:
        if self.extensions.pipelining:
            return await self._dialogue.ask(*lines)
        replies = await self._dialogue.ask(lines[0])
        for line in lines[1:] if replies[0].is_positive else ():
            replies += await self._dialogue.ask(line)
        return replies

    def _mail_line(
        self,
        reverse_path: str,
        size: int | None,
        is_8bit: bool,
        smtputf8: bool,
        ret: str,
        envid: str,
    ) -> bytes:
        offered = self.extensions
        smtputf8 = smtputf8 or not reverse_path.isascii()
        if smtputf8 and not offered.smtputf8:
            raise LocalProtocolError("the server does not take addresses beyond ASCII (SMTPUTF8)")
        return command.mail(
            reverse_path,
            size=size if offered.size else None,
            is_8bit=is_8bit and offered.eight_bit_mime,
            smtputf8=smtputf8,
            ret=ret if offered.dsn else "",
            envid=envid if offered.dsn else "",
        )

    # -- the rest ----------------------------------------------------------------------------

    async def reset(self) -> Reply:
        """Forget the transaction that was begun (RSET)."""
        return require(await self._dialogue.ask((command.RSET, command.RSET_LINE)))

    async def verify(self, address: str) -> Reply:
        """Ask whether a mailbox exists (VRFY); most servers answer 252: they do not say."""
        await self._introduced()
        return require(await self._dialogue.ask((command.VRFY, command.vrfy(address))))

    async def noop(self) -> Reply:
        """Ask for nothing: is the server still there?"""
        return require(await self._dialogue.ask((command.NOOP, command.NOOP_LINE)))

    async def quit(self) -> None:
        """Say goodbye and close; whatever the server makes of it, what it took is taken."""
        with contextlib.suppress(RelayError):
            if self.is_open:
                await self._dialogue.ask((command.QUIT, command.QUIT_LINE), timeout_s=10)
        await self.close()

    async def close(self) -> None:
        """Close without a word."""
        await self._dialogue.end()

    async def _introduced(self) -> None:
        if not self._is_greeted:
            await self._hello()

    async def _hello(self) -> Reply:
        (reply,) = await self._dialogue.ask((command.EHLO, command.hello(command.EHLO, self._name)))
        if reply.is_positive:
            self.extensions = parse_extensions(reply)
            self._offers = dict(_offer(line) for line in reply.lines[1:])
        else:
            self.extensions, self._offers = NO_EXTENSIONS, {}
            line = command.hello(command.HELO, self._name)
            reply = require(await self._dialogue.ask((command.HELO, line)))
        self._is_greeted = True
        return reply


def _offer(line: str) -> tuple[str, str]:
    name, _, parameters = line.partition(" ")
    return name.upper(), parameters


def _host_and_port(address: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise LocalProtocolError(
            f"not an address: {ascii(address)[:100]}; write for example 'mail.example.org:587'"
        )
    return found["v6"] or found["host"], int(found["port"])


async def _addresses_of(host: str, port: int) -> list[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectFailed(f"{host}: {error.strerror or error}") from None
    return list(dict.fromkeys(str(item[4][0]) for item in found))
