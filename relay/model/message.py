"""Values that travel between the doors, the store and delivery."""

from typing import Any

import msgspec

from relay.model.address import Address
from relay.model.dsn import NOTHING_ASKED, Dsn, RecipientDsn
from relay.model.state import State
from relay.model.suppression import Consequence
from relay.model.verdict import Verdict


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """One validated message on its way into the store; content has CRLF and no dot-stuffing.

    `destinations[i]` is where `forward_paths[i]` is grouped: its domain or `[route]`.
    `expires_after_s`, `delay_notice_after_s` count from acceptance; 0 = no delay notice.
    `wants_dsn`: whether reports may be due, by its door or by what `dsn` asks for.
    Of a report: `reports_on` is the queue-id of what it tells of, `hourly_limit` how many its
    recipient gets in an hour at most.
    """

    queue_id: str
    reverse_path: Address | None
    forward_paths: tuple[Address, ...]
    destinations: tuple[str, ...]
    content: bytes
    message_id: str
    mail_class: str = "transactional"
    tenant: str = "default"
    campaign: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    ingress: str = "python"
    is_traced: bool = False
    is_8bit: bool = False
    needs_smtputf8: bool = False
    requires_tls: bool = False
    wants_dsn: bool = False
    dsn: Dsn | None = None
    expires_after_s: float = 172800.0
    delay_notice_after_s: float = 0.0
    idempotency_key: str = ""
    digest: str = ""
    reports_on: str = ""
    hourly_limit: int = 0


class ReceiptRecipient(msgspec.Struct, frozen=True):
    """One accepted recipient: its id, its address and the state it was put in."""

    id: str
    address: str
    status: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of acceptance: the message is durable under this queue-id.

    `suppressed`: how many recipients the suppression list ended as it was accepted.
    """

    id: str
    message_id: str
    recipients: tuple[ReceiptRecipient, ...]
    replayed: bool = False
    suppressed: int = 0

    @property
    def accepted(self) -> int:
        return len(self.recipients)


class ClaimedRecipient(msgspec.Struct, frozen=True):
    """A recipient leased to a session; `attempt` is the fencing token of all that follows."""

    number: int
    address: str
    destination: str
    attempt: int
    step: int
    queue: str
    dsn: RecipientDsn = NOTHING_ASKED


class ClaimedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message with the recipients of it that one claim leased (all of one destination)."""

    queue_id: str
    reverse_path: str
    recipients: tuple[ClaimedRecipient, ...]
    content: bytes
    size: int
    created: float
    expires: float
    message_id: str
    mail_class: str
    tenant: str
    campaign: str
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    is_traced: bool = False
    is_8bit: bool = False
    needs_smtputf8: bool = False
    requires_tls: bool = False
    wants_dsn: bool = False
    ret: str = ""
    envid: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt came to for one recipient; fenced by (recipient, attempt, whose claim).

    `state` is delivered, failed, expired, deferred, held, or ready (given back: costs no step).
    `delay_s`: deferred: until the next attempt. `advance`: whether the step moves. `events`: the
    types to record, at most two, all with the payload `event`. `told`: what only the log tells.
    `success_action`: what a report of success calls it (RFC 3464 §2.3.3); empty: the host that took
    it owes that report (RFC 3461 §5.2.1), not we. `consequence`: what a failure means
    for the suppression list.
    """

    queue_id: str
    number: int
    attempt: int
    state: State
    verdict: Verdict
    delay_s: float = 0.0
    advance: bool = False
    provider: str = "other"
    events: tuple[str, ...] = ()
    event: dict[str, Any] = {}
    told: dict[str, Any] = {}
    success_action: str = "relayed"
    consequence: Consequence | None = None
