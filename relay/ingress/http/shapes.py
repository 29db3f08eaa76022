"""What the API answers, as structs: the nouns of the command line's `--json` and the console.

Times are RFC 3339 in UTC, sizes octets, durations seconds.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec

from relay.model.dsn import NOTIFY_WORDS
from relay.model.errors import Finding
from relay.model.message import Receipt
from relay.model.reply import Reply
from relay.model.state import State
from relay.model.suppression import Suppression
from relay.store.answer import Remote
from relay.store.events import StoredEvent
from relay.store.views import MessageView, QueueView, RecipientView, Suspension
from relay.store.waits import Wait

#: Times in the data of events.
_TIMES = frozenset({"queued_at", "next_attempt_at", "since", "until"})


def moment(epoch_s: float) -> datetime:
    """An epoch time as JSON shows it."""
    return datetime.fromtimestamp(round(epoch_s, 3), UTC)


def moment_or_none(epoch_s: float | None) -> datetime | None:
    """As `moment`; None stays None."""
    return None if epoch_s is None else moment(epoch_s)


class AcceptedRecipientShape(msgspec.Struct, frozen=True):
    """One recipient of an accepted message."""

    id: str
    address: str
    status: str


class WarningShape(msgspec.Struct, frozen=True):
    """Something doubtful about an accepted message."""

    id: str
    message: str


class AcceptedShape(msgspec.Struct, frozen=True):
    """The answer to a send: the message is durable. It says nothing of delivery."""

    id: str
    message_id: str
    accepted: int
    recipients: list[AcceptedRecipientShape]
    warnings: list[WarningShape]

    @classmethod
    def of(cls, receipt: Receipt, warnings: tuple[Finding, ...]) -> "AcceptedShape":
        """From a receipt; a replay shows what the first answer showed."""
        recipients = [
            AcceptedRecipientShape(item.id, item.address, _first_status(item.status))
            for item in receipt.recipients
        ]
        said = [WarningShape(finding.code, finding.message) for finding in warnings]
        return cls(receipt.id, receipt.message_id, receipt.accepted, recipients, said)


def _first_status(status: str) -> str:
    """What a recipient was when he was accepted, whatever has become of him since."""
    return status if status == State.SUPPRESSED else str(State.READY)


class WaitShape(msgspec.Struct, frozen=True):
    """Why something does not move: a stable reason, a sentence, the end where it is known."""

    kind: str
    reason: str
    text: str
    until: datetime | None

    @classmethod
    def of(cls, wait: Wait | None) -> "WaitShape | None":
        """From the store's view."""
        if wait is None:
            return None
        return cls(wait.kind, wait.reason, wait.text, moment_or_none(wait.until))


class ReplyShape(msgspec.Struct, frozen=True):
    """What a receiving server said, and to which command."""

    code: int
    enhanced: str | None
    text: str
    command: str

    @classmethod
    def of(cls, reply: Reply | None) -> "ReplyShape | None":
        """From the value."""
        if reply is None:
            return None
        return cls(reply.code, reply.enhanced, reply.text, reply.command)


class RemoteShape(msgspec.Struct, frozen=True):
    """The receiving server: its name and the address of the connection."""

    host: str
    ip: str

    @classmethod
    def of(cls, remote: Remote | None) -> "RemoteShape | None":
        """From the store's view."""
        return None if remote is None else cls(remote.host, remote.ip)


class RecipientShape(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient: where it is, what happened last, why it waits, when it is tried next.

    `reply` and `remote` are of the last attempt; null where nobody answered, or was asked.
    `notify`: which reports its sender asked for by name.
    """

    id: str
    address: str
    status: str
    reason: str
    text: str
    reply: ReplyShape | None
    remote: RemoteShape | None
    attempt: int
    step: int
    next_attempt_at: datetime | None
    finished_at: datetime | None
    destination: str
    queue: str
    waiting: WaitShape | None
    notify: list[str]

    @classmethod
    def of(cls, view: RecipientView) -> "RecipientShape":
        """From the store's view."""
        return cls(
            id=view.id,
            address=view.address,
            status=view.status,
            reason=view.reason,
            text=view.text,
            reply=ReplyShape.of(view.reply),
            remote=RemoteShape.of(view.remote),
            attempt=view.attempt,
            step=view.step,
            next_attempt_at=moment_or_none(view.next_attempt_at),
            finished_at=moment_or_none(view.finished_at),
            destination=view.destination,
            queue=view.queue,
            waiting=WaitShape.of(view.waiting),
            notify=[NOTIFY_WORDS[letter].lower() for letter in view.dsn.notify],
        )


class MessageShape(msgspec.Struct, frozen=True, kw_only=True):
    """One message and its recipients."""

    id: str
    message_id: str
    status: str
    reverse_path: str
    mail_class: str = msgspec.field(name="class")
    tenant: str
    campaign: str
    tags: tuple[str, ...]
    metadata: dict[str, str]
    size_octets: int
    created_at: datetime
    expires_at: datetime
    ingress: str
    envelope_id: str
    recipients: list[RecipientShape]

    @classmethod
    def of(cls, view: MessageView) -> "MessageShape":
        """From the store's view."""
        return cls(
            id=view.id,
            message_id=view.message_id,
            status=view.status,
            reverse_path=view.reverse_path,
            mail_class=view.mail_class,
            tenant=view.tenant,
            campaign=view.campaign,
            tags=view.tags,
            metadata=view.metadata,
            size_octets=view.size,
            created_at=moment(view.created),
            expires_at=moment(view.expires),
            ingress=view.ingress,
            envelope_id=view.envelope_id,
            recipients=[RecipientShape.of(item) for item in view.recipients],
        )


class MessagesShape(msgspec.Struct, frozen=True):
    """A page of messages; `next` is the cursor of the one after it, null at the end."""

    messages: list[MessageShape]
    next: str | None


class ChangedShape(msgspec.Struct, frozen=True):
    """The answer to a verb: of which message or recipient, and how many recipients changed."""

    id: str
    changed: int


class QueueShape(msgspec.Struct, frozen=True, kw_only=True):
    """One queue: its counts, its oldest recipient, and why it waits, if it does."""

    name: str
    mail_class: str = msgspec.field(name="class")
    tenant: str
    campaign: str
    destination: str
    ready: int
    retry: int
    deferred: int
    held: int
    claimed: int
    oldest_at: datetime | None
    next_due_at: datetime | None
    lane: str
    suspended: WaitShape | None
    waiting: WaitShape | None

    @classmethod
    def of(cls, view: QueueView) -> "QueueShape":
        """From the store's view."""
        return cls(
            name=view.name,
            mail_class=view.mail_class,
            tenant=view.tenant,
            campaign=view.campaign,
            destination=view.destination,
            ready=view.ready,
            retry=view.retry,
            deferred=view.deferred,
            held=view.held,
            claimed=view.claimed,
            oldest_at=moment_or_none(view.oldest),
            next_due_at=moment_or_none(view.next_due),
            lane=view.lane,
            suspended=WaitShape.of(view.suspended),
            waiting=WaitShape.of(view.waiting),
        )


class QueuesShape(msgspec.Struct, frozen=True):
    """The matching queues."""

    queues: list[QueueShape]


class FlushedShape(msgspec.Struct, frozen=True):
    """How many deferred recipients are tried now."""

    flushed: int


class SuspensionShape(msgspec.Struct, frozen=True, kw_only=True):
    """A stop of queues; an empty field of the match matches all."""

    id: str
    mail_class: str = msgspec.field(name="class")
    tenant: str
    campaign: str
    destination: str
    reason: str
    until: datetime
    actor: str
    queues: int

    @classmethod
    def of(cls, suspension: Suspension) -> "SuspensionShape":
        """From the store's value."""
        match = suspension.match
        return cls(
            id=suspension.id,
            mail_class=match.mail_class,
            tenant=match.tenant,
            campaign=match.campaign,
            destination=match.destination,
            reason=suspension.reason,
            until=moment(suspension.until),
            actor=suspension.actor,
            queues=suspension.queues,
        )


class SuspensionsShape(msgspec.Struct, frozen=True):
    """The suspensions in force."""

    suspensions: list[SuspensionShape]


class ResumedShape(msgspec.Struct, frozen=True):
    """How many suspensions ended."""

    resumed: int


class SuppressionShape(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the suppression list: an address, or `@domain`, that gets no mail.

    `until` null: for good. `evidence` is the id of the event that put it there.
    """

    address: str
    reason: str
    origin: str
    since: datetime
    until: datetime | None
    evidence: str
    note: str

    @classmethod
    def of(cls, entry: Suppression) -> "SuppressionShape":
        """From the store's value."""
        return cls(
            address=entry.name,
            reason=str(entry.reason),
            origin=str(entry.origin),
            since=moment(entry.since),
            until=moment_or_none(entry.until),
            evidence=entry.evidence,
            note=entry.note,
        )


class SuppressionsShape(msgspec.Struct, frozen=True):
    """A page of the suppression list; `next` is the cursor of the one after it, null at the end."""

    suppressions: list[SuppressionShape]
    next: str | None


class ImportedShape(msgspec.Struct, frozen=True):
    """How many entries are new, and how many took the place of another; others were there."""

    added: int
    changed: int


class RemovedShape(msgspec.Struct, frozen=True):
    """How many entries were taken off the suppression list."""

    removed: int


class EventShape(msgspec.Struct, frozen=True):
    """One event; `cursor` continues a read after it, `id` is the same if it is seen twice."""

    cursor: str
    id: str
    type: str
    timestamp: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, event: StoredEvent) -> "EventShape":
        """From the store's value."""
        data = {
            name: moment_or_none(value or None) if name in _TIMES else value
            for name, value in event.data.items()
        }
        return cls(event.cursor, event.id, event.type, moment(event.timestamp), data)


class EventsShape(msgspec.Struct, frozen=True):
    """Events in order; `next` is the cursor to go on with."""

    events: list[EventShape]
    next: str


class StatusShape(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the whole: what is queued, who works on it."""

    mode: str
    version: str
    hostname: str
    #: Recipients under way by state, and since the store began by how they ended.
    states: dict[str, int]
    ended: dict[str, int]
    queues: int
    unrouted: int
    workers: list[dict[str, Any]]
    oldest_at: datetime | None
    suspensions: int
