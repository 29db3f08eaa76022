"""A verdict: what a reply or a breakage means = severity x scope x reason."""

from enum import StrEnum

import msgspec

from relay.model.reply import Reply


class Severity(StrEnum):
    """How final the event is for what it concerns."""

    SUCCESS = "success"
    TRANSIENT = "transient"
    PERMANENT = "permanent"


class Scope(StrEnum):
    """Who is concerned; the scope decides who waits (docs: verdicts)."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    TRANSACTION = "transaction"
    CONNECTION = "connection"
    HOST = "host"
    DOMAIN = "domain"
    SITE = "site"
    PROVIDER = "provider"
    SOURCE = "source"
    SENDER = "sender"
    ROUTE = "route"
    LOCAL = "local"


class Verdict(msgspec.Struct, frozen=True):
    """One judgement: severity, scope, a stable snake_case reason, a sentence, the reply if any.

    `retry_after_s` is the receiver's own hint ("try again in 300 seconds").
    `uncertain` is true when the final dot was sent and no reply was read (RFC 1047).
    """

    severity: Severity
    scope: Scope
    reason: str
    text: str
    reply: Reply | None = None
    retry_after_s: float | None = None
    uncertain: bool = False
