"""What the store shows: messages, recipients, queues and suspensions, and which of them are meant.

`reader.Views` fills them in.
"""

import msgspec

from relay.model.destination import all_of
from relay.model.dsn import NOTHING_ASKED, RecipientDsn
from relay.model.reply import Reply
from relay.store.answer import Remote
from relay.store.waits import Wait


class QueueMatch(msgspec.Struct, frozen=True, kw_only=True):
    """Which queues: empty fields match all; a domain all of its mail."""

    mail_class: str = ""
    tenant: str = ""
    campaign: str = ""
    destination: str = ""

    def __str__(self) -> str:
        named = {"class": self.mail_class, "tenant": self.tenant, "campaign": self.campaign}
        named["destination"] = self.destination
        return ", ".join(f"{key} {value}" for key, value in named.items() if value) or "everything"

    def fits(self, mail_class: str, tenant: str, campaign: str, destination: str) -> bool:
        """Whether a queue of these four belongs."""
        return (
            self.mail_class in ("", mail_class)
            and self.tenant in ("", tenant)
            and self.campaign in ("", campaign)
            and (not self.destination or destination in all_of(self.destination))
        )


class Suspension(msgspec.Struct, frozen=True, kw_only=True):
    """A manual stop of queues; `until` in epoch seconds."""

    id: str
    match: QueueMatch
    reason: str
    until: float
    actor: str = ""
    queues: int = 0


class RecipientView(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient; `text` says what happened last, `waiting` why it does not move.

    `reply` and `remote` are of the last attempt: None where nobody answered, or was asked.
    """

    id: str
    address: str
    status: str
    reason: str = ""
    text: str = ""
    reply: Reply | None = None
    remote: Remote | None = None
    attempt: int = 0
    step: int = 0
    next_attempt_at: float | None = None
    finished_at: float | None = None
    destination: str = ""
    queue: str = ""
    waiting: Wait | None = None
    dsn: RecipientDsn = NOTHING_ASKED


class MessageView(msgspec.Struct, frozen=True, kw_only=True):
    """One message with its recipients; times in epoch seconds."""

    id: str
    message_id: str
    reverse_path: str
    mail_class: str
    tenant: str
    campaign: str
    tags: tuple[str, ...]
    metadata: dict[str, str]
    size: int
    created: float
    expires: float
    ingress: str
    status: str
    recipients: tuple[RecipientView, ...]
    envelope_id: str = ""


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """One queue: counts by state, its oldest recipient, and why it waits, if it does."""

    name: str
    mail_class: str
    tenant: str
    campaign: str
    destination: str
    ready: int
    retry: int
    deferred: int
    held: int
    claimed: int
    oldest: float | None = None
    next_due: float | None = None
    lane: str = ""
    suspended: Wait | None = None
    waiting: Wait | None = None


class MessageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages; empty fields match all; addresses match whole or by `@domain`."""

    domain: str = ""
    state: str = ""
    campaign: str = ""
    sender: str = ""
    recipient: str = ""
    tenant: str = ""
    older_than_s: float = 0.0

    def fits(self, view: MessageView, now: float) -> bool:
        """Whether the message belongs."""
        return (
            self.campaign in ("", view.campaign)
            and self.tenant in ("", view.tenant)
            and (not self.sender or _address_fits(self.sender, view.reverse_path))
            and (not self.older_than_s or view.created <= now - self.older_than_s)
            and any(self._recipient_fits(item) for item in view.recipients)
        )

    def _recipient_fits(self, item: RecipientView) -> bool:
        return (
            (not self.domain or item.address.endswith("@" + self.domain))
            and self.state in ("", item.status)
            and (not self.recipient or _address_fits(self.recipient, item.address))
        )


def _address_fits(wanted: str, address: str) -> bool:
    return address.endswith(wanted) if wanted.startswith("@") else address == wanted
