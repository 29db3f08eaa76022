"""What a probe finds, in the words of the API: times RFC 3339, durations seconds, sizes octets."""

from datetime import datetime
from typing import Any

import msgspec

from relay.model.verdict import Verdict
from relay.policy.shape import Shape


class VerdictReport(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement as events have it; `reply` is null where nobody's server spoke."""

    severity: str
    scope: str
    reason: str
    text: str
    reply: dict[str, Any] | None = None

    @classmethod
    def of(cls, verdict: Verdict) -> "VerdictReport":
        """From the value."""
        reply = verdict.reply
        return cls(
            severity=verdict.severity.value,
            scope=verdict.scope.value,
            reason=verdict.reason,
            text=verdict.text,
            reply=None
            if reply is None
            else {
                "code": reply.code,
                "enhanced": reply.enhanced,
                "text": reply.text,
                "command": reply.command,
            },
        )


class MxReport(msgspec.Struct, frozen=True, kw_only=True):
    """An MX host as DNS has it; `problem` says why it has no address."""

    preference: int
    host: str
    addresses: tuple[str, ...] = ()
    problem: str = ""


class StsReport(msgspec.Struct, frozen=True, kw_only=True):
    """The domain's MTA-STS policy; an `id` without `mode`: it cannot be had, `problem` says why."""

    id: str = ""
    mode: str = ""
    hosts: tuple[str, ...] = ()
    max_age_s: int = 0
    problem: str = ""


class DaneReport(msgspec.Struct, frozen=True, kw_only=True):
    """TLSA records of an MX host; `problem` says why they are not known, or not heeded."""

    host: str
    records: tuple[str, ...] = ()
    authentic: bool = False
    heeded: bool = False
    problem: str = ""


class LimitsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What we allow ourselves towards the site; a rate of 0 is none."""

    max_connections: int
    connection_rate_per_s: float
    message_rate_per_s: float
    mails_per_connection: int
    recipients_per_transaction: int

    @classmethod
    def of(cls, shape: Shape) -> "LimitsReport":
        """From the shape."""
        return cls(
            max_connections=shape.max_connections,
            connection_rate_per_s=round(shape.connection_rate_per_s, 3),
            message_rate_per_s=round(shape.message_rate_per_s, 3),
            mails_per_connection=shape.mails_per_connection,
            recipients_per_transaction=shape.recipients_per_transaction,
        )


class RouteReport(msgspec.Struct, frozen=True, kw_only=True):
    """The road that mail for the domain takes: as deliveries take it."""

    destination: str
    by_smarthost: bool
    lane: str
    site: str
    provider: str
    tls: str
    source: str
    hello_name: str
    limits: LimitsReport


class CertificateReport(msgspec.Struct, frozen=True, kw_only=True):
    """A host's certificate; `problem` says why it is not verified."""

    names: tuple[str, ...]
    issuer: str
    not_before: datetime
    not_after: datetime
    verified: bool
    problem: str = ""


class TlsReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a session is encrypted, and under which demand."""

    version: str
    cipher: str
    policy: str
    certificate: CertificateReport | None


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """One address of one host: how far a session came.

    `ready`: it would take MAIL. Where not, `phase` (connect, greeting, hello, tls, auth) and
    `verdict` say why. `tls` is null in clear; `clear_because`: which TLS failure led to that.
    """

    host: str
    ip: str
    port: int
    ready: bool
    phase: str = ""
    verdict: VerdictReport | None = None
    greeting: str = ""
    name: str = ""
    extensions: tuple[str, ...] = ()
    tls: TlsReport | None = None
    clear_because: str = ""
    timings: dict[str, float] = {}
    dialogue: str = ""


class RecipientReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a host said of a recipient at RCPT; nothing was sent to it."""

    address: str
    reverse_path: str
    accepted: bool
    verdict: VerdictReport
    host: str
    ip: str
    dialogue: str


class ProbeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender of mail to the domain would meet now; no message was sent.

    `takes_mail`: a host is ready for it. `problem` is the verdict of mail that has nowhere to go.
    `mta_sts`: null where policies are not asked for; `tls_rpt`: where the domain wants reports;
    `dane`: hosts that have TLSA records, or whose records cannot be looked up.
    """

    domain: str
    mode: str
    takes_mail: bool
    implicit_mx: bool = False
    mx: tuple[MxReport, ...] = ()
    mta_sts: StsReport | None = None
    tls_rpt: str = ""
    dane: tuple[DaneReport, ...] = ()
    problem: VerdictReport | None = None
    route: RouteReport | None = None
    hosts: tuple[HostReport, ...] = ()
    recipient: RecipientReport | None = None
