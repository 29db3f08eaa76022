"""What a claim is sent as: loads of one mail transaction each."""

from collections.abc import Iterator

import msgspec

from relay.delivery.values import Transaction
from relay.model.dsn import NOTHING_ASKED, Dsn
from relay.model.message import ClaimedMessage, ClaimedRecipient
from relay.store.claims import Claim


class Load(msgspec.Struct, eq=False):
    """Recipients of one message on their way in one transaction.

    `tried` holds the addresses of hosts that broke it; `reconnected`: an idle connection was found
    dead when it was to carry this, which is nobody's fault, once. `dotted`: the final dot may be
    on its way.
    """

    message: ClaimedMessage
    recipients: tuple[ClaimedRecipient, ...]
    transaction: Transaction
    tried: frozenset[str] = frozenset()
    reconnected: bool = False
    dotted: bool = False

    @property
    def marks(self) -> list[str]:
        """The `sending` marks of its recipients."""
        return [f"{self.message.queue_id}.{item.number}:{item.attempt}" for item in self.recipients]

    @property
    def recipient_ids(self) -> list[str]:
        return [f"{self.message.queue_id}.{item.number}" for item in self.recipients]

    @property
    def claimed(self) -> ClaimedMessage:
        """The message with the recipients of this load only."""
        return msgspec.structs.replace(self.message, recipients=self.recipients)

    def carry(self, message: ClaimedMessage) -> None:
        """Carry this form of the message instead."""
        self.message = message
        self.transaction = load_of(message, self.recipients).transaction

    def of(self, recipients: tuple[ClaimedRecipient, ...]) -> "Load":
        """The same message for some of its recipients."""
        load = load_of(self.message, recipients)
        load.tried, load.reconnected = self.tried, self.reconnected
        return load


def load_of(message: ClaimedMessage, recipients: tuple[ClaimedRecipient, ...]) -> Load:
    """The load of these recipients of a message."""
    transaction = Transaction(
        reverse_path=message.reverse_path,
        forward_paths=tuple(item.address for item in recipients),
        content=message.content,
        size=message.size,
        is_8bit=message.is_8bit,
        needs_smtputf8=message.needs_smtputf8,
        dsn=_dsn_of(message, recipients),
        key=message.queue_id,
    )
    return Load(message, recipients, transaction)


def _dsn_of(message: ClaimedMessage, recipients: tuple[ClaimedRecipient, ...]) -> Dsn | None:
    asked = tuple(item.dsn for item in recipients if item.dsn is not NOTHING_ASKED)
    if asked:
        asked = tuple(item.dsn for item in recipients)
    elif not message.ret and not message.envid:
        return None
    return Dsn(message.ret, message.envid, asked)


def loads_of(claim: Claim, recipients_per_transaction: int) -> Iterator[Load]:
    """A claim as loads; a claim is of one destination, so only the count splits a message."""
    size = max(recipients_per_transaction, 1)
    for message in claim.messages:
        for start in range(0, len(message.recipients), size):
            yield load_of(message, message.recipients[start : start + size])


def without_expired(claim: Claim, now: float) -> tuple[Claim, Claim]:
    """What may still be sent of a claim, and what is past its deadline by the store's clock."""
    live = tuple(item for item in claim.messages if item.expires > now)
    expired = tuple(item for item in claim.messages if item.expires <= now)
    return Claim(live), Claim(expired)
