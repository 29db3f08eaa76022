"""The exception tree: one root, each class with one sentence that says when it is raised.

Outcomes of mail (a 550, a null MX) are values (`model.verdict`); only breakages are exceptions.
"""

import re

import msgspec

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Finding(msgspec.Struct, frozen=True):
    """One fault in what a caller gave us: the field, what is wrong with its value, and the fix."""

    field: str
    code: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" + (f" ({self.fix})" if self.fix else "")


class RelayError(Exception):
    """Root of every exception that relay raises on purpose."""


class ConfigError(RelayError):
    """Raised when a setting is unknown, malformed or contradicts another; names file, key, fix.

    One line whatever it quotes: control characters of a file are shown escaped.
    """

    def __init__(self, text: str) -> None:
        super().__init__(_CONTROL.sub(lambda found: repr(found[0])[1:-1], text))


class SubmissionRefused(RelayError):
    """Raised when a submission is invalid; nothing of it was queued."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = findings


class MessageTooLarge(SubmissionRefused):
    """Raised when the content exceeds `limits.message_size` (552, 413)."""


class IdempotencyConflict(RelayError):
    """Raised when an idempotency key is used again with another payload."""


class NotFound(RelayError):
    """Raised when a message, recipient, queue or batch is unknown to the store."""


class StateConflict(RelayError):
    """Raised when a verb does not apply to the present state (cancel after delivered)."""


class StoreError(RelayError):
    """Raised when the store cannot do what was asked."""


class StoreUnavailable(StoreError):
    """Raised when Redis is absent, loading, read-only or timed out; the caller may retry."""

    retry_after_s = 5


class StoreFull(StoreUnavailable):
    """Raised when a submission is refused at the memory or disk watermark."""

    retry_after_s = 30


class LeaseLost(StoreError):
    """Raised when the incarnation's lease ran out before the operation."""


class ScriptMismatch(StoreError):
    """Raised when this version's schema and the store's do not fit together."""


class ProtocolError(RelayError):
    """Raised when the SMTP dialogue breaks its rules; see the two subclasses for whose fault."""


class LocalProtocolError(ProtocolError):
    """Raised when our side asks for something illegal (CR in an address, DATA before RCPT)."""


class RemoteProtocolError(ProtocolError):
    """Raised when the peer sends what SMTP does not allow; the connection is unusable."""


class TransportError(RelayError):
    """Raised when the connection below SMTP fails."""


class ConnectFailed(TransportError):
    """Raised when no TCP connection came about (refused, unreachable, timed out)."""


class ConnectionLost(TransportError):
    """Raised when an established connection ended without QUIT."""


class DeadlineExpired(TransportError):
    """Raised when a phase of the dialogue took longer than its deadline."""

    def __init__(self, phase: str, deadline_s: float) -> None:
        super().__init__(f"no answer within {deadline_s:g} s ({phase})")
        self.phase = phase
        self.deadline_s = deadline_s


class TlsFailed(TransportError):
    """Raised when the TLS handshake or the certificate check failed."""


class ResolutionError(RelayError):
    """Raised when a domain cannot be turned into MX hosts."""


class NoSuchDomain(ResolutionError):
    """Raised when the domain does not exist (NXDOMAIN)."""


class NoMailHost(NoSuchDomain):
    """Raised when the domain exists but has neither MX nor address records."""


class NullMx(ResolutionError):
    """Raised when the domain publishes a null MX (RFC 7505)."""


class ResolverUnavailable(ResolutionError):
    """Raised when DNS gave no usable answer (SERVFAIL, time-out, lame); try again later."""
