"""Receipts: what every simulated receiver got, for assertions; bounded in memory.

Receipts and whole contents are kept for the newest messages only; counts per recipient and the
detection of duplicates go on for millions. Whoever asserts on exact numbers asks the counts.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterator

import msgspec

from relay.sim.content import Examined


class Limits(msgspec.Struct, frozen=True):
    """What is kept at most."""

    receipts: int = 100_000
    contents: int = 10_000
    contents_octets: int = 64 * 1024 * 1024
    counted: int = 2_000_000


class Refusal(msgspec.Struct, frozen=True):
    """A recipient that was refused at RCPT, and how."""

    address: str
    reply: str


class Peer(msgspec.Struct, frozen=True):
    """The session a message came by; `tls` is the version or empty, `auth_user` may be empty."""

    host: str
    local_address: str
    remote: str
    hello: str
    session: int
    tls: str = ""
    cipher: str = ""
    auth_user: str = ""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One mail transaction that reached its final dot; `is_accepted` when it was answered 250.

    `transaction` counts the MAIL commands of the session from 1. `flags` name what was wrong or
    odd: bare_cr_or_lf, nul, line_too_long, undeclared_8bit, early_talker (before the greeting),
    unoffered_pipelining, talked_before_354, injected_before_tls.
    """

    number: int
    time: float
    peer: Peer
    transaction: int
    reverse_path: str
    forward_paths: tuple[str, ...]
    refused: tuple[Refusal, ...]
    mail_parameters: str
    recipient_parameters: tuple[str, ...]
    reply: str
    is_accepted: bool
    size: int
    sha256: str
    message_id: str
    campaign: str
    flags: tuple[str, ...]

    @property
    def host(self) -> str:
        """The name of the MX host that got it."""
        return self.peer.host

    @property
    def session(self) -> int:
        """The number of the session it came by."""
        return self.peer.session

    @property
    def tls(self) -> str:
        """The TLS version it came by, empty in the clear."""
        return self.peer.tls

    @property
    def auth_user(self) -> str:
        """Who was authenticated, empty for nobody."""
        return self.peer.auth_user


class ReceiptFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which receipts; empty fields match all. `accepted` None also shows refused messages."""

    recipient: str = ""
    domain: str = ""
    host: str = ""
    reverse_path: str = ""
    message_id: str = ""
    campaign: str = ""
    session: int = 0
    after: int = 0
    accepted: bool | None = True

    def matches(self, receipt: Receipt) -> bool:
        """Whether the receipt is one of those."""
        if self.accepted is not None and receipt.is_accepted != self.accepted:
            return False
        if self.recipient and self.recipient.lower() not in map(str.lower, receipt.forward_paths):
            return False
        suffix = f"@{self.domain.lower()}"
        if self.domain and not any(p.lower().endswith(suffix) for p in receipt.forward_paths):
            return False
        pairs = (
            (self.host, receipt.peer.host),
            (self.reverse_path, receipt.reverse_path),
            (self.message_id.strip("<>"), receipt.message_id.strip("<>")),
            (self.campaign, receipt.campaign),
            (self.session, receipt.peer.session),
        )
        return all(not wanted or wanted == found for wanted, found in pairs)


class Counters(msgspec.Struct):
    """Totals since the start or the last clear; `duplicates` by (Message-ID, recipient)."""

    messages: int = 0
    recipients: int = 0
    duplicates: int = 0
    octets: int = 0
    refused_messages: int = 0
    refused_recipients: int = 0
    sessions: int = 0
    tls_sessions: int = 0
    uncounted: int = 0


class Transaction(msgspec.Struct):
    """A mail transaction in progress."""

    number: int
    reverse_path: str
    mail_parameters: str = ""
    is_8bit: bool = False
    forward_paths: list[str] = []
    refused: list[Refusal] = []
    recipient_parameters: list[str] = []


class Mailbox:
    """All receipts of a sink; one event loop writes, the same one reads."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.counters = Counters()
        self._numbers = itertools.count(1)
        self._receipts: deque[Receipt] = deque()
        self._contents: dict[int, bytes] = {}
        self._contents_octets = 0
        self._counts: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._seen: set[int] = set()
        self._arrived = asyncio.Event()

    def clear(self) -> None:
        """Forget everything; receipt numbers go on."""
        self.counters = Counters()
        self._receipts.clear()
        self._contents.clear()
        self._contents_octets = 0
        self._counts.clear()
        self._refusals.clear()
        self._seen.clear()

    def record(
        self, peer: Peer, transaction: Transaction, content: bytes, examined: Examined, reply: str
    ) -> Receipt:
        """Keep a transaction that was answered with `reply` after its final dot."""
        is_accepted = reply.startswith("2")
        receipt = Receipt(
            number=next(self._numbers),
            time=time.time(),
            peer=peer,
            transaction=transaction.number,
            reverse_path=transaction.reverse_path,
            forward_paths=tuple(transaction.forward_paths),
            refused=tuple(transaction.refused),
            mail_parameters=transaction.mail_parameters,
            recipient_parameters=tuple(transaction.recipient_parameters),
            reply=reply,
            is_accepted=is_accepted,
            size=len(content),
            sha256=examined.sha256,
            message_id=examined.message_id,
            campaign=examined.campaign,
            flags=examined.flags,
        )
        self._receipts.append(receipt)
        if len(self._receipts) > self.limits.receipts:
            self._drop_content(self._receipts.popleft().number)
        self._keep_content(receipt.number, content)
        if is_accepted:
            self._count(receipt)
        else:
            self.counters.refused_messages += 1
        self._arrived.set()
        return receipt

    def refuse(self, address: str) -> None:
        """Count a recipient refused at RCPT."""
        self.counters.refused_recipients += 1
        self._add(self._refusals, address)

    def _count(self, receipt: Receipt) -> None:
        counters = self.counters
        counters.messages += 1
        counters.octets += receipt.size
        for path in receipt.forward_paths:
            counters.recipients += 1
            self._add(self._counts, path)
            if receipt.message_id:
                key = hash((receipt.message_id, path.lower()))
                if key in self._seen:
                    counters.duplicates += 1
                elif len(self._seen) < self.limits.counted:
                    self._seen.add(key)

    def _add(self, counts: dict[str, int], address: str) -> None:
        address = address.lower()
        known = counts.get(address)
        if known is not None:
            counts[address] = known + 1
        elif len(counts) < self.limits.counted:
            counts[address] = 1
        else:
            self.counters.uncounted += 1

    def _keep_content(self, number: int, content: bytes) -> None:
        self._contents[number] = content
        self._contents_octets += len(content)
        while len(self._contents) > self.limits.contents or (
            self._contents_octets > self.limits.contents_octets
        ):
            self._drop_content(next(iter(self._contents)))

    def _drop_content(self, number: int) -> None:
        self._contents_octets -= len(self._contents.pop(number, b""))

    def _newest_first(self, wanted: ReceiptFilter) -> Iterator[Receipt]:
        for receipt in reversed(self._receipts):
            if receipt.number <= wanted.after:
                return
            if wanted.matches(receipt):
                yield receipt

    def receipts(self, wanted: ReceiptFilter | None = None, limit: int = 1000) -> list[Receipt]:
        """The newest `limit` receipts that match, oldest first."""
        found = list(itertools.islice(self._newest_first(wanted or ReceiptFilter()), limit))
        found.reverse()
        return found

    def content(self, number: int) -> bytes | None:
        """The content (dots unstuffed) of a receipt, None when it is not kept any more."""
        return self._contents.get(number)

    def count(self, recipient: str) -> int:
        """How many messages this recipient accepted; counted for far longer than receipts."""
        return self._counts.get(recipient.lower(), 0)

    def counts(self, domain: str = "") -> dict[str, int]:
        """Recipient -> accepted messages, of one domain or of all."""
        suffix = f"@{domain.lower()}" if domain else ""
        return {address: n for address, n in self._counts.items() if address.endswith(suffix)}

    def refusals(self, domain: str = "") -> dict[str, int]:
        """Recipient -> refusals at RCPT, of one domain or of all."""
        suffix = f"@{domain.lower()}" if domain else ""
        return {address: n for address, n in self._refusals.items() if address.endswith(suffix)}

    async def wait(
        self, at_least: int = 1, wanted: ReceiptFilter | None = None, *, timeout_s: float = 10.0
    ) -> list[Receipt]:
        """The matching receipts once there are so many; TimeoutError says how many there were."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while len(found := self.receipts(wanted, max(at_least, 1000))) < at_least:
            rest_s = deadline - loop.time()
            if rest_s <= 0:
                raise TimeoutError(f"{len(found)} of {at_least} receipts after {timeout_s:g} s")
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), rest_s)
            except TimeoutError:
                continue
            await asyncio.sleep(min(0.01, rest_s))  # let a burst arrive: one look for many
        return found
