"""The values of one SMTP session: where it goes, how it is to be spoken, what came of it."""

import msgspec

from relay.model.credentials import Credentials
from relay.model.errors import RelayError
from relay.model.reply import Reply
from relay.policy.dane import Tlsa
from relay.settings.schema import Timeouts, TlsPolicy
from relay.smtp.transaction import Transaction

__all__ = [
    "Credentials",
    "Dialogue",
    "Endpoint",
    "SessionFailed",
    "Transaction",
    "TransactionResult",
]


class Endpoint(msgspec.Struct, frozen=True):
    """One address of one host: `host` is the name for TLS and reports, `address` an IP literal.

    `tls`: what this host itself demands, before what the dialogue does; with `tlsa`, a certificate
    that one of these records vouches for; `tls_names` are what it may be called in a certificate
    then, first the name under which the records are. `demanded_by`: "dane" where that is why. A
    path as host and address is a Unix socket. `lmtp`: it speaks LMTP (RFC 2033).
    """

    host: str
    address: str
    port: int
    implicit_tls: bool = False
    tls: TlsPolicy | None = None
    tlsa: tuple[Tlsa, ...] = ()
    tls_names: tuple[str, ...] = ()
    demanded_by: str = ""
    lmtp: bool = False

    @property
    def server_name(self) -> str:
        """What it is asked for in a handshake (SNI)."""
        return self.tls_names[0] if self.tls_names else self.host


class Dialogue(msgspec.Struct, frozen=True):
    """How to speak to an endpoint.

    `source_address` is the local IP to connect from, or empty. `allow_only_loopback`: any other
    address is refused before a packet leaves (sink mode). `demanded_by`: "mta-sts" where it is the
    recipient domain's own policy that demands this of TLS. `chunking`: large content may go by
    BDAT. `needs_8bitmime`: 8-bit content goes only where 8BITMIME is offered. `tries_verified`:
    a verified session is tried first, and how that failed is told; `tls` is all that is demanded.
    `is_trial`: it is this try: nothing vouches for the names of the hosts, so that even a verified
    session is none that REQUIRETLS asks for (RFC 8689 §4.2.1).
    """

    hello_name: str
    source_address: str = ""
    tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC
    demanded_by: str = ""
    credentials: Credentials | None = None
    timeouts: Timeouts = Timeouts()
    allow_only_loopback: bool = True
    chunking: bool = True
    needs_8bitmime: bool = False
    tries_verified: bool = False
    is_trial: bool = False


class TransactionResult(msgspec.Struct, eq=False, kw_only=True):
    """What came of a transaction: every reply that was read, and what broke it, if anything.

    `replies[i]` answers RCPT for `transaction.forward_paths[i]`; None: not answered, or not asked.
    `final` answers the content; with no `final`, nothing was delivered unless `dot_sent`, then it
    is uncertain. `is_local`: `mail` is our own judgement (too large for the host), nothing was
    sent. `finals[i]`, in LMTP only, answers the content for recipient i. `broken`: the session is
    unusable, and why. `timings`: seconds by phase.
    `success_action`: what our report of success calls it, empty where the host knows what was
    asked, and owes it.
    `is_chunked`: the content was to go by BDAT.
    """

    transaction: Transaction
    replies: tuple[Reply | None, ...]
    mail: Reply | None = None
    data: Reply | None = None
    final: Reply | None = None
    finals: tuple[Reply | None, ...] = ()
    broken: Exception | None = None
    dot_sent: bool = False
    is_local: bool = False
    success_action: str = "relayed"
    is_chunked: bool = False
    timings: dict[str, float] = {}
    transcript: object = ""

    @property
    def is_broken_in_chunks(self) -> bool:
        """Whether the connection broke when somebody's content was to go, or went, by BDAT."""
        is_answered = None not in self.replies and self.final is None
        is_wanted = any(reply is not None and reply.is_positive for reply in self.replies)
        return self.is_chunked and self.broken is not None and is_answered and is_wanted

    @property
    def dialogue(self) -> str:
        """The dialogue as text, at most 4 KiB, secrets redacted; composed when asked for."""
        return str(self.transcript)


class SessionFailed(RelayError):
    """Raised when no session came about: in which phase, with which reply or cause.

    `phase` is connect, greeting, hello, tls or auth; `reply` is the peer's, if it spoke;
    `local_address` is what we spoke from, as far as it is known.
    """

    def __init__(
        self,
        phase: str,
        *,
        reply: Reply | None = None,
        cause: Exception | None = None,
        dialogue: str = "",
        timings: dict[str, float] | None = None,
        local_address: str = "",
    ) -> None:
        super().__init__(f"{phase}: {reply or cause or 'failed'}")
        self.phase = phase
        self.reply = reply
        self.cause = cause
        self.dialogue = dialogue
        self.timings = timings or {}
        self.local_address = local_address
