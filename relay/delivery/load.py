"""What a claim is sent as: loads of one mail transaction each."""

from collections.abc import Iterator

import msgspec

from relay.delivery.values import Transaction
from relay.model.dsn import NOTHING_ASKED, Dsn
from relay.model.message import ClaimedMessage, ClaimedRecipient
from relay.policy.reverse_path import ReversePaths
from relay.settings.schema import Verp
from relay.store.claims import Claim


class Load(msgspec.Struct, eq=False):
    """Recipients of one message on their way in one transaction.

    `tried` holds the addresses of hosts that broke it; `reconnected`: an idle connection was found
    dead when it was to carry this, which is nobody's fault, once. `dotted`: the final dot may be
    on its way. The first `signature_octets` of the content are our signatures. `stays_8bit`: it
    cannot be made 7-bit.
    """

    message: ClaimedMessage
    recipients: tuple[ClaimedRecipient, ...]
    transaction: Transaction
    tried: frozenset[str] = frozenset()
    reconnected: bool = False
    dotted: bool = False
    signature_octets: int = 0
    stays_8bit: bool = False

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

    @property
    def _reverse_path(self) -> str:
        return self.transaction.reverse_path

    @property
    def is_convertible(self) -> bool:
        """Whether it is 8-bit and may be made 7-bit; that would not help what needs SMTPUTF8."""
        message = self.message
        return message.is_8bit and not (self.stays_8bit or message.needs_smtputf8)

    @property
    def unsigned(self) -> ClaimedMessage:
        """The message without our signatures."""
        message, octets = self.message, self.signature_octets
        if not octets:
            return message
        content = message.content[octets:]
        return msgspec.structs.replace(message, content=content, size=message.size - octets)

    def carry(self, message: ClaimedMessage, signature_octets: int = 0) -> None:
        """Carry this form of the message instead."""
        self.message, self.signature_octets = message, signature_octets
        self.transaction = load_of(message, self.recipients, self._reverse_path).transaction

    def of(self, recipients: tuple[ClaimedRecipient, ...]) -> "Load":
        """The same message for some of its recipients."""
        load = load_of(self.message, recipients, self._reverse_path)
        load.tried, load.reconnected = self.tried, self.reconnected
        load.signature_octets, load.stays_8bit = self.signature_octets, self.stays_8bit
        return load


def load_of(
    message: ClaimedMessage,
    recipients: tuple[ClaimedRecipient, ...],
    reverse_path: str | None = None,
) -> Load:
    """The load of these recipients of a message; `reverse_path` is another than the sender's.

    Then reports of the hosts behind come to us: we ask for none, and write the sender's ourselves.
    """
    path = message.reverse_path if reverse_path is None else reverse_path
    transaction = Transaction(
        reverse_path=path,
        forward_paths=tuple(item.address for item in recipients),
        content=message.content,
        size=message.size,
        is_8bit=message.is_8bit,
        needs_smtputf8=message.needs_smtputf8,
        dsn=_dsn_of(message, recipients) if path == message.reverse_path else None,
        requires_tls=message.requires_tls,
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


def loads_of(
    claim: Claim, recipients_per_transaction: int, paths: ReversePaths | None = None
) -> Iterator[Load]:
    """A claim as loads; a claim is of one destination, so the count splits a message, and wishes.

    With `paths` its reverse-paths are theirs, and where they name recipients so does each load.
    """
    size = max(recipients_per_transaction, 1)
    for message in claim.messages:
        if paths is not None:
            yield from _with_token(message, size, paths)
            continue
        for part in _parts(message.recipients, size):
            yield load_of(message, part)


def _parts(
    recipients: tuple[ClaimedRecipient, ...], size: int
) -> Iterator[tuple[ClaimedRecipient, ...]]:
    """As many as a transaction may have; those who are to be reported of alike.

    OpenSMTPD 6.8 keeps one NOTIFY for all recipients: it refuses a NEVER beside others (553), and
    sends reports that nobody asked for.
    """
    if any(item.dsn is not NOTHING_ASKED for item in recipients):
        alike: dict[str, list[ClaimedRecipient]] = {}
        for item in recipients:
            alike.setdefault(item.dsn.notify, []).append(item)
        groups = [tuple(group) for group in alike.values()]
    else:
        groups = [recipients]
    for group in groups:
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _with_token(message: ClaimedMessage, size: int, paths: ReversePaths) -> Iterator[Load]:
    recipients, queue_id = message.recipients, message.queue_id
    verp, domain = paths.manner(
        message.reverse_path,
        tenant=message.tenant,
        mail_class=message.mail_class,
        destination=recipients[0].destination,
    )
    if verp is Verp.RECIPIENT:
        for recipient in recipients:
            path = paths.encode(queue_id, recipient.number, domain, recipient.address)
            yield load_of(message, (recipient,), path)
        return
    common = None if verp is Verp.OFF else paths.encode(queue_id, 0, domain)
    for part in _parts(recipients, size):
        yield load_of(message, part, common)


def without_expired(claim: Claim, now: float) -> tuple[Claim, Claim]:
    """What may still be sent of a claim, and what is past its deadline by the store's clock."""
    live = tuple(item for item in claim.messages if item.expires > now)
    expired = tuple(item for item in claim.messages if item.expires <= now)
    return Claim(live), Claim(expired)
