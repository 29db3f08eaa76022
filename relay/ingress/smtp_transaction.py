"""A mail transaction of the submission listener (RFC 5321 §3.3), without sockets: MAIL opens it,
RCPT adds to it, and the message that DATA brought is handed to the queue.
"""

import ssl
from collections.abc import Awaitable, Callable

import msgspec

from relay.ingress.data_reader import DataReader
from relay.ingress.gate import Gate
from relay.ingress.smtp_argument import (
    ArgumentFault,
    charset_fault,
    mail_parameter_fault,
    parse_path_argument,
    recipient_dsn,
)
from relay.ingress.submit import Draft
from relay.ingress.trace import Origin
from relay.model.address import Address, parse_address, parse_reverse_path
from relay.model.dsn import NOTHING_ASKED, Dsn, RecipientDsn
from relay.model.errors import SubmissionRefused
from relay.model.message import Receipt
from relay.settings.schema import Settings
from relay.telemetry.log import get_logger

_log = get_logger()

SENDER_OK = b"250 2.1.0 OK\r\n"
RECIPIENT_OK = b"250 2.1.5 OK\r\n"

Submit = Callable[[Draft], Awaitable[Receipt]]


class Surroundings(msgspec.Struct, frozen=True):
    """What all sessions of a listener share.

    With `refusal_of` anybody may send, to the addresses that it does not refuse.
    """

    settings: Settings
    gate: Gate
    submit: Submit
    hostname: str
    tls_context: ssl.SSLContext | None = None
    refusal_of: Callable[[Address], str] | None = None


class Client(msgspec.Struct, frozen=True):
    """Who speaks: its address, the name of its HELO or EHLO, and over what."""

    address: str
    hello_name: str
    is_extended: bool
    has_tls: bool

    def origin(self, *, uses_smtputf8: bool) -> Origin:
        """For the Received field, with RFC 3848's and RFC 6531's words."""
        word = "UTF8SMTP" if uses_smtputf8 else "ESMTP" if self.is_extended else "SMTP"
        return Origin(word + ("S" if self.has_tls else ""), self.hello_name, self.address)


class Transaction:
    """One transaction; refusals are texts, positive replies octets."""

    def __init__(self, around: Surroundings, client: Client) -> None:
        self._around = around
        self._client = client
        self._limits = around.settings.smtp
        self._reverse_path: Address | None = None
        self._uses_smtputf8 = self._requires_tls = False
        self._forward_paths: list[Address] = []
        self._ret = self._envid = ""
        self._asked: dict[int, RecipientDsn] = {}  # by the position of the forward-path
        self.is_open = False
        self.refused = 0

    @property
    def has_recipients(self) -> bool:
        """Whether RCPT took at least one."""
        return bool(self._forward_paths)

    def open(self, argument: str) -> str | bytes:
        """MAIL: the reverse-path and its parameters."""
        try:
            given = parse_path_argument(argument, "FROM:")
        except ArgumentFault as fault:
            return f"501 5.5.4 {fault}"
        if given.parameters and not self._client.is_extended:
            return "501 5.5.4 Parameters need EHLO"
        self._uses_smtputf8 = "SMTPUTF8" in given.parameters
        self._requires_tls = "REQUIRETLS" in given.parameters
        refusal = mail_parameter_fault(
            given,
            size_limit=self._around.settings.limits.message_size,
            has_room=self._around.gate.has_room,
            has_tls=self._client.has_tls,
        ) or charset_fault(given, uses_smtputf8=self._uses_smtputf8)
        if refusal:
            return refusal
        try:
            self._reverse_path = parse_reverse_path(given.path)
        except SubmissionRefused as refused:
            return f"553 5.1.7 {refused.findings[0].message}"
        self._ret = (given.parameters.get("RET") or "").upper()
        self._envid = given.parameters.get("ENVID") or ""
        self.is_open = True
        return SENDER_OK

    def add_recipient(self, argument: str) -> str | bytes:
        """RCPT: one forward-path, where this client may relay."""
        reply = self._recipient(argument)
        if reply is not RECIPIENT_OK:
            self.refused += 1
        return reply

    def _recipient(self, argument: str) -> str | bytes:
        try:
            given = parse_path_argument(argument, "TO:")
        except ArgumentFault as fault:
            return f"501 5.5.4 {fault}"
        asked = NOTHING_ASKED
        if given.parameters:
            if not self._client.is_extended:
                return "501 5.5.4 Parameters need EHLO"
            said = recipient_dsn(given, uses_smtputf8=self._uses_smtputf8)
            if isinstance(said, str):
                return said
            asked = said
        refusal_of = self._around.refusal_of
        if refusal_of is None and not self._around.gate.may_relay(self._client.address):
            return "554 5.7.1 Relay access denied"
        refusal = charset_fault(given, uses_smtputf8=self._uses_smtputf8)
        if refusal:
            return refusal
        if len(self._forward_paths) >= self._limits.max_recipients:
            return "452 4.5.3 Too many recipients, send the others in another transaction"
        path = given.path
        if path.lower() == "postmaster":  # RFC 5321 §4.5.1
            path = f"{path}@{self._around.hostname}"
        try:
            address = parse_address(path)
        except SubmissionRefused as refused:
            return f"553 5.1.3 {refused.findings[0].message}"
        if refusal_of is not None and (refusal := refusal_of(address)):
            return refusal
        self._forward_paths.append(address)
        if asked is not NOTHING_ASKED:
            self._asked[len(self._forward_paths) - 1] = asked
        return RECIPIENT_OK

    def _dsn(self) -> Dsn | None:
        if not (self._asked or self._ret or self._envid):
            return None
        count = len(self._forward_paths) if self._asked else 0
        asked = tuple(self._asked.get(position, NOTHING_ASKED) for position in range(count))
        return Dsn(self._ret, self._envid, asked)

    async def hand_over(self, reader: DataReader) -> str | bytes:
        """Queue what was read; what submitting raises is the session's to answer."""
        if reader.is_too_large:
            limit = self._around.settings.limits.message_size
            return f"552 5.3.4 Message exceeds the size limit of {limit} octets"
        if reader.lacks_room:
            return "452 4.3.1 No room for it at present, try again later"
        draft = Draft(
            reverse_path=self._reverse_path,
            forward_paths=self._forward_paths,
            content=reader.content(),
            ingress="smtp",
            origin=self._client.origin(uses_smtputf8=self._uses_smtputf8),
            accepts_smtputf8=self._uses_smtputf8,
            requires_tls=self._requires_tls,
            dsn=self._dsn(),
            max_recipients=self._limits.max_recipients,
        )
        receipt = await self._around.submit(draft)
        if receipt.recipients:
            _log.info(
                "message.accepted",
                queue_id=receipt.id,
                message_id=receipt.message_id,
                ingress="smtp",
                remote=self._client.address,
                reverse_path=str(self._reverse_path or ""),
                recipients=receipt.accepted,
                size_octets=len(draft.content),
            )
        return b"250 2.0.0 OK queued as %s\r\n" % receipt.id.encode()
