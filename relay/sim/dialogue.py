"""The commands of the simulated receiver (RFC 5321, 1870, 2920, 3207, 4954, 6152, 6531).

Rules of this file: a step `_x(…, reply)` gets the reply that the scenario wants given instead,
or None to carry it out; nothing here waits or touches the transport, that is the connection's.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from relay.sim.authentication import Authentication
from relay.sim.content import Examined, examine
from relay.sim.effects import Command
from relay.sim.envelope import (
    MAIL_ARGUMENT,
    RCPT_ARGUMENT,
    parameters_objection,
    path_objection,
    recipient_objection,
)
from relay.sim.keywords import Script, recipient_script
from relay.sim.receipts import Peer, Refusal, Transaction

if TYPE_CHECKING:
    from relay.sim.connection import Connection

_BDAT_ARGUMENT = re.compile(rb"(\d{1,10})( LAST)?", re.IGNORECASE)
_ENHANCED = re.compile(r"^(\d{3}[ -])\d\.\d{1,3}\.\d{1,3} ", re.MULTILINE)
#: RFC 5321 §4.5.3.1.4 and what SIZE, BODY, SMTPUTF8 and AUTH= add to MAIL.
_LINE_OCTETS = 512 + 26 + 17 + 10 + 500

_OK_MAIL = "250 2.1.0 Sender ok"
_OK_RCPT = "250 2.1.5 Recipient ok"
_OK_DATA = "354 End data with <CRLF>.<CRLF>"
_BAD_SEQUENCE = "503 5.5.1 Bad sequence of commands"


class Dialogue:
    """The state of one session: who speaks, secured how, in which transaction."""

    def __init__(self, connection: "Connection", session: int) -> None:
        self._connection = connection
        self._receiver = connection.receiver
        self._script = connection.script
        self.transaction: Transaction | None = None
        self.in_body = False
        self.chunk_octets = 0  # of the present chunk that have not come
        self._chunks: list[bytes] = []
        self._chunk_is_last = False
        self._chunk_reply = ""
        self._flags: set[str] = set()
        self._scripts: list[tuple[str, Script]] = []
        self._transactions = 0
        self._domains: set[str] = set()
        self._is_greeted = False
        self._is_rejected = False
        self._offers_pipelining = False
        self._auth = self._new_authentication()
        self._peer = Peer(
            connection.hosts[0], connection.local_address, connection.remote, "", session
        )
        self._steps: dict[bytes, Callable[[bytes], None]] = {
            b"EHLO": partial(self._hello, Command.EHLO),
            b"HELO": partial(self._hello, Command.HELO),
            b"STARTTLS": self._start_tls,
            b"AUTH": self._authenticate,
            b"MAIL": self._mail,
            b"RCPT": self._rcpt,
            b"DATA": self._data,
            b"BDAT": self._bdat,
            b"RSET": self._rset,
            b"NOOP": self._noop,
            b"QUIT": self._quit,
            b"VRFY": self._verify,
        }

    # ---- what the connection tells

    def greet(self, reply: str | None) -> None:
        """The connection stands; `reply` refuses it at once."""
        if reply is not None:
            self._greeting(reply)
        else:
            self._connection.perform(Command.GREETING, self._greeting)

    def _greeting(self, reply: str | None) -> None:
        self._is_greeted = True
        self._is_rejected = reply is not None and not reply.startswith("2")
        self._send(reply or f"220 {self._peer.host} ESMTP relay sink")

    def talked_while_blocked(self) -> None:
        """Octets came while a delay ran."""
        if not self._is_greeted:
            self._flags.add("early_talker")

    def secured(self, version: str, cipher: str) -> None:
        """TLS stands: everything said before is forgotten (RFC 3207 §4.2)."""
        self._peer = replace(self._peer, hello="", auth_user="", tls=version, cipher=cipher)
        self._auth = self._new_authentication()
        self._end_transaction()

    def receive_line(self, line: bytes, *, more: bool) -> None:
        """One line with its end; `more`: further octets have come with it."""
        if more and not self._offers_pipelining and self._is_greeted:
            self._flags.add("unoffered_pipelining")
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            self._flags.add("bare_cr_or_lf")
            self._send("500 5.5.2 Bare CR or LF in a command")
            return
        line = line[:-2]
        if self._auth.is_open:
            self._answer_auth(self._auth.respond(line))
            return
        if len(line) > _LINE_OCTETS and line[:5].upper() != b"AUTH ":
            self._send("500 5.5.2 Line too long")
            return
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        step = self._steps.get(verb)
        if self._is_rejected and verb != b"QUIT":
            self._send(_BAD_SEQUENCE)
        elif step is None:
            self._send("500 5.5.2 Command not recognized")
        else:
            step(argument)
            if more and (self.in_body or verb == b"STARTTLS"):
                self._flags.add("talked_before_354" if self.in_body else "injected_before_tls")

    def begin_body(self) -> None:
        """The first octets of the content have come."""
        transaction = self.transaction
        paths = transaction.forward_paths if transaction is not None else ()
        self._connection.perform(Command.BODY, self._body, paths=paths, scripts=self._scripts)

    def _body(self, reply: str | None) -> None:
        if reply is not None:
            self._connection.refuse_body(reply)

    def receive_content(self, content: bytes) -> None:
        """The content up to its final dot, the dots before dots already taken away."""
        self.in_body = False
        transaction = self.transaction
        if transaction is None:
            raise AssertionError("a content outside of a transaction")
        examined = examine(content, self._flags, declared_8bit=transaction.is_8bit)
        act = partial(self._end_of_data, transaction, content, examined)
        self._connection.perform(
            Command.END_OF_DATA, act, paths=transaction.forward_paths, scripts=self._scripts
        )

    def _end_of_data(
        self, transaction: Transaction, content: bytes, examined: Examined, reply: str | None
    ) -> None:
        mailbox = self._receiver.mailbox
        if reply is None:
            reply = examined.refusal
        if not reply and len(content) > self._script.size_octets:
            reply = "552 5.3.4 Message too large"
        receipt = mailbox.record(
            self._peer, transaction, content, examined, reply or "250 2.0.0 Ok: queued"
        )
        if receipt.is_accepted:
            self._receiver.registry.hosts[self._peer.host].messages += 1
        self._end_transaction()
        self._send(reply or f"250 2.0.0 Ok: queued as {receipt.number}")

    # ---- session commands

    def _hello(self, command: Command, argument: bytes) -> None:
        name = argument.strip().decode("ascii", "replace")
        self._connection.perform(command, partial(self._greeted_by, command, name))

    def _greeted_by(self, command: Command, name: str, reply: str | None) -> None:
        if reply is None and not name:
            reply = "501 5.5.4 Your name is missing"
        if reply is not None:
            self._send(reply)
            return
        self._end_transaction()
        self._peer = replace(self._peer, hello=name)
        extensions = self._extensions() if command is Command.EHLO else ()
        self._offers_pipelining = "PIPELINING" in extensions
        lines = (f"{self._peer.host} greets {name}", *extensions)
        self._send("\n".join(f"250{' ' if line is lines[-1] else '-'}{line}" for line in lines))

    def _extensions(self) -> tuple[str, ...]:
        offered = ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "STARTTLS"]
        if self._peer.tls:
            offered.remove("STARTTLS")
        kept = [word for word in offered if word not in self._script.hidden]
        kept.append(f"SIZE {self._script.size_octets}")
        if self._script.requires_auth:
            kept.append(" ".join(("AUTH", *self._auth.offered)))
        if self._script.keeps_tls and self._peer.tls:
            kept.append("REQUIRETLS")
        if self._script.offers_chunking:
            kept.append("CHUNKING")
        if self._script.offers_dsn:
            kept.append("DSN")
        if self._script.announces_limits:
            kept.append(" ".join(("LIMITS", *self._script.limits)))
        return tuple(kept)

    def _start_tls(self, argument: bytes) -> None:
        self._connection.perform(Command.STARTTLS, partial(self._go_ahead, argument))

    def _go_ahead(self, argument: bytes, reply: str | None) -> None:
        if reply is None and (self._peer.tls or "STARTTLS" in self._script.hidden):
            reply = _BAD_SEQUENCE if self._peer.tls else "502 5.5.1 No TLS here"
        if reply is None and argument:
            reply = "501 5.5.4 STARTTLS takes no parameter"
        if reply is not None:
            self._send(reply)
            return
        self._send("220 2.0.0 Ready to start TLS")
        self._connection.start_tls()

    def _rset(self, _argument: bytes) -> None:
        self._connection.perform(Command.RSET, self._forget)

    def _forget(self, reply: str | None) -> None:
        self._end_transaction()
        self._send(reply or "250 2.0.0 Ok")

    def _noop(self, _argument: bytes) -> None:
        self._connection.perform(Command.NOOP, lambda reply: self._send(reply or "250 2.0.0 Ok"))

    def _verify(self, _argument: bytes) -> None:
        self._send("252 2.1.5 Send some mail and see")

    def _quit(self, _argument: bytes) -> None:
        self._connection.perform(Command.QUIT, self._bye)

    def _bye(self, reply: str | None) -> None:
        self._send(reply or "221 2.0.0 Bye")
        if reply is None:
            self._connection.close()

    def _authenticate(self, argument: bytes) -> None:
        self._connection.perform(Command.AUTH, partial(self._begin_auth, argument))

    def _new_authentication(self) -> Authentication:
        return Authentication(
            self._receiver.scenario.credentials, *self._connection.channel_binding
        )

    def _begin_auth(self, argument: bytes, reply: str | None) -> None:
        if reply is None and not self._script.requires_auth:
            reply = "502 5.5.1 No AUTH here"
        elif reply is None and (self._peer.auth_user or self.transaction is not None):
            reply = _BAD_SEQUENCE
        self._answer_auth(reply or self._auth.begin(argument))

    def _answer_auth(self, reply: str) -> None:
        if self._auth.user != self._peer.auth_user:
            self._peer = replace(self._peer, auth_user=self._auth.user)
        self._send(reply)

    # ---- transaction commands

    def _mail(self, argument: bytes) -> None:
        self._connection.perform(Command.MAIL, partial(self._sender, argument))

    def _sender(self, argument: bytes, reply: str | None) -> None:
        match = MAIL_ARGUMENT.fullmatch(argument)
        reply = reply or self._objection(match)
        if not reply and match is not None:
            transaction = Transaction(
                self._transactions + 1,
                match[1].decode("utf-8", "replace"),
                (match[2] or b"").decode("ascii", "replace"),
                forward_paths=[],
                refused=[],
            )
            reply = parameters_objection(transaction, self._script)
            if not reply:
                self._transactions += 1
                self.transaction = transaction
        self._send(reply or _OK_MAIL)
        if reply.startswith("421"):
            self._connection.close()

    def _objection(self, match: re.Match[bytes] | None) -> str:
        """The reply that refuses this MAIL for the state of session and host, else empty."""
        script, peer = self._script, self._peer
        if not peer.hello or self.transaction is not None:
            return _BAD_SEQUENCE
        if script.requires_tls and not peer.tls:
            return "530 5.7.0 Must issue a STARTTLS command first"
        if script.requires_auth and not peer.auth_user:
            return "530 5.7.0 Authentication required"
        if match is None:
            return "501 5.5.4 Syntax: MAIL FROM:<reverse-path>"
        if script.mails_per_connection and self._transactions >= script.mails_per_connection:
            return "421 4.7.0 Too many messages on this connection"
        rate = script.messages_per_s
        if rate and self._receiver.registry.is_above_rate(peer.host, rate):
            return "421 4.7.28 Unusual rate of mail from your address, rate limited"
        return path_objection(match[1], "5.1.7") if match[1] else ""

    def _rcpt(self, argument: bytes) -> None:
        match = RCPT_ARGUMENT.fullmatch(argument)
        transaction = self.transaction
        if transaction is None:
            self._send(_BAD_SEQUENCE)
            return
        if match is None:
            self._send("501 5.5.4 Syntax: RCPT TO:<forward-path>")
            return
        parameters = (match[2] or b"").decode("utf-8", "replace")
        objection = recipient_objection(parameters, self._script)
        if objection:
            self._send(objection)
            return
        path = match[1].decode("utf-8", "replace")
        script = recipient_script(path)
        act = partial(self._recipient, transaction, (path, parameters), script)
        scripts = ((path, script),) if script is not None else ()
        self._connection.perform(Command.RCPT, act, paths=(path,), scripts=scripts)

    def _recipient(
        self,
        transaction: Transaction,
        argument: tuple[str, str],
        script: Script | None,
        reply: str | None,
    ) -> None:
        path, parameters = argument
        limit = self._script.recipients_per_transaction
        if reply is None:
            reply = path_objection(path.encode(), "5.1.3") or None
        if reply is None and limit and len(transaction.forward_paths) >= limit:
            reply = "452 4.5.3 Too many recipients"
        if reply is None and self._is_domain_too_many(path):
            reply = "452 4.5.3 Too many recipient domains on this connection"
        if (
            reply is None
            and not path.isascii()
            and "SMTPUTF8" not in (transaction.mail_parameters.upper())
        ):
            reply = "553 5.6.7 Address needs SMTPUTF8"
        if reply is None or reply.startswith("2"):
            transaction.forward_paths.append(path)
            transaction.recipient_parameters.append(parameters)
            if script is not None:
                self._scripts.append((path, script))
        else:
            transaction.refused.append(Refusal(path, reply))
            self._receiver.mailbox.refuse(path)
        self._send(reply or _OK_RCPT)

    def _is_domain_too_many(self, path: str) -> bool:
        limit = self._script.domains_per_connection
        if limit:
            self._domains.add(path.rpartition("@")[2].lower())
        return len(self._domains) > limit > 0

    def _data(self, argument: bytes) -> None:
        transaction = self.transaction
        if transaction is None or argument:
            self._send(_BAD_SEQUENCE if transaction is None else "501 5.5.4 Syntax: DATA")
        elif not transaction.forward_paths:
            self._send("554 5.5.1 No valid recipients")
        else:
            self._connection.perform(
                Command.DATA,
                self._start_body,
                paths=transaction.forward_paths,
                scripts=self._scripts,
            )

    def _start_body(self, reply: str | None) -> None:
        if reply is None:
            self.in_body = True
        self._send(reply or _OK_DATA)

    def _bdat(self, argument: bytes) -> None:
        match = _BDAT_ARGUMENT.fullmatch(argument)
        if not self._script.takes_chunks:
            self._send("502 5.5.1 BDAT is not implemented")
        elif match is None:
            self._send("501 5.5.4 Syntax: BDAT octets [LAST]")
        else:
            self.chunk_octets, self._chunk_is_last = int(match[1]), bool(match[2])
            if self.transaction is None or not self.transaction.forward_paths:
                self._chunk_reply = self._chunk_reply or _BAD_SEQUENCE
            elif not self._chunks and not self._chunk_reply:
                self._connection.perform(
                    Command.BODY,
                    self._begin_chunks,
                    paths=self.transaction.forward_paths,
                    scripts=self._scripts,
                )
            if not self.chunk_octets:
                self.receive_chunk(b"")

    def _begin_chunks(self, reply: str | None) -> None:
        self._chunk_reply = reply or ""

    def receive_chunk(self, octets: bytes) -> None:
        """Octets of the present chunk; a refusal is said when the chunk is at its end."""
        self.chunk_octets -= len(octets)
        if not self._chunk_reply:
            self._chunks.append(octets)
        if self.chunk_octets:
            return
        if self._chunk_reply:
            self._send(self._chunk_reply)
            # What follows of the transaction is out of sequence until it is reset.
            self._chunk_reply = _BAD_SEQUENCE if self.transaction is not None else ""
            self._chunks = []
        elif not self._chunk_is_last:
            self._send("250 2.0.0 Chunk ok")
        else:
            content, self._chunks = b"".join(self._chunks), []
            self.receive_content(content)

    def _end_transaction(self) -> None:
        self.transaction = None
        self._chunks, self._chunk_reply = [], ""
        self._scripts = []
        self.in_body = False

    def _send(self, reply: str) -> None:
        if "ENHANCEDSTATUSCODES" in self._script.hidden:
            reply = _ENHANCED.sub(r"\1", reply)
        self._connection.send(reply)
