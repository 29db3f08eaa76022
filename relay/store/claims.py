"""Leasing recipients: what a session may send now, with its content, or held if unreadable."""

from collections.abc import Iterable

import msgspec

from relay.model.dsn import RecipientDsn
from relay.model.errors import LeaseLost, NotFound, StoreError, StoreUnavailable
from relay.model.message import ClaimedMessage, ClaimedRecipient
from relay.store.codec import (
    FLAG_8BIT,
    FLAG_DSN,
    FLAG_SMTPUTF8,
    FLAG_TRACED,
    decode_content,
    decode_message,
    pack_nested,
    unpack,
)
from relay.store.holdings import Holdings
from relay.store.limits import Rate
from relay.store.queue import Store

#: Content above this is read beside the claim, not through the script (see queue.BESIDE_OCTETS).
INLINE_OCTETS = 16 * 1024


class Claim(msgspec.Struct, frozen=True):
    """What a session may send now; `backlog` is what the queue holds besides, at least.

    Nothing may be claimed for `wait_s`, until a moment of the store's clock.
    """

    messages: tuple[ClaimedMessage, ...] = ()
    backlog: int = 0
    wait_s: float = 0.0
    wait_until: float = 0.0
    reason: str = ""

    @property
    def recipients(self) -> int:
        return sum(len(message.recipients) for message in self.messages)


class Claims:
    """The claiming half of `Work`; `holder` is the incarnation, `holdings` what it has in hand."""

    store: Store
    holder: str
    holdings: Holdings

    async def claim(
        self, lane: str, *, limit: int, octets: int, rates: tuple[Rate, ...] = ()
    ) -> Claim:
        """Lease recipients of one queue of the lane; LeaseLost when our own lease is gone."""
        answer = await self.store.scripts.call(
            "claim",
            {
                "lane": lane,
                "holder": self.holder,
                "n": limit,
                "octets": octets,
                "inline": INLINE_OCTETS,
                "rates": [rate.packed() for rate in rates],
            },
        )
        word, backlog, wait_ms, reason = answer[0], answer[1], answer[2], answer[3].decode()
        if word == b"lost":
            raise LeaseLost(f"the lease of incarnation {self.holder} ran out")
        if word == b"wait":
            until = wait_ms / 1000
            wait_s = max(until - self.store.clock.now(), 0.001)
            return Claim(wait_s=wait_s, wait_until=until, reason=reason)
        queue = answer[4].decode()
        parts = [answer[position : position + 4] for position in range(5, len(answer), 4)]
        claimed = [self._claimed(queue, name, raw, rows) for name, raw, _, rows in parts]
        try:
            found = [
                await self._with_content(message, part[2])
                for message, part in zip(claimed, parts, strict=True)
                if message.recipients
            ]
        except BaseException:
            self.give_up(claimed)
            raise
        return Claim(tuple(message for message in found if message is not None), backlog)

    async def _with_content(self, message: ClaimedMessage, stored: bytes) -> ClaimedMessage | None:
        """Large contents are read beside the claim; what cannot be read is held."""
        try:
            if stored:
                content = decode_content(stored)
            else:
                content = await self.store.content(message.queue_id)
        except StoreUnavailable:
            raise
        except (StoreError, NotFound) as error:
            await self._hold(message, str(error))
            return None
        return msgspec.structs.replace(message, content=content)

    def _claimed(self, queue: str, queue_id: bytes, raw: bytes, rows: bytes) -> ClaimedMessage:
        record, name = decode_message(raw), queue_id.decode()
        recipients = tuple(
            ClaimedRecipient(
                number, address, destination, attempt, step, queue, *map(RecipientDsn.unpacked, dsn)
            )
            for number, address, destination, attempt, step, *dsn in unpack(rows)
            if not self.holdings.has(f"{name}.{number}", attempt)
        )
        for item in recipients:
            self.holdings.claimed(f"{name}.{item.number}", item.attempt)
        return ClaimedMessage(
            queue_id=name,
            reverse_path=record.reverse_path,
            recipients=recipients,
            content=b"",
            size=record.size,
            created=record.created_ms / 1000,
            expires=record.expires_ms / 1000,
            message_id=record.message_id,
            mail_class=record.mail_class,
            tenant=record.tenant,
            campaign=record.campaign,
            tags=record.tags,
            metadata=record.metadata,
            is_traced=bool(record.flags & FLAG_TRACED),
            is_8bit=bool(record.flags & FLAG_8BIT),
            needs_smtputf8=bool(record.flags & FLAG_SMTPUTF8),
            requires_tls=record.requires_tls,
            wants_dsn=bool(record.flags & FLAG_DSN),
            ret=record.ret,
            envid=record.envid,
        )

    async def _hold(self, message: ClaimedMessage, text: str) -> None:
        """Mail that cannot be read must not come back for ever, nor be thrown away."""
        items = []
        for item in message.recipients:
            event = {
                "recipient_id": f"{message.queue_id}.{item.number}",
                "queue_id": message.queue_id,
                "message_id": message.message_id,
                "address": item.address,
                "reverse_path": message.reverse_path,
                "class": message.mail_class,
                "tenant": message.tenant,
                "campaign": message.campaign,
                "tags": message.tags,
                "metadata": message.metadata,
                "attempt": item.attempt,
                "reason": "unreadable",
                "text": text,
                "queued_at": message.created,
            }
            start = (message.queue_id, item.number, item.attempt, "h", 0, False)
            items.append(
                [
                    *start,
                    "unreadable",
                    text,
                    "other",
                    "recipient.held",
                    pack_nested(event),
                    *("",) * 3,
                ]
            )
        request = {"holder": self.holder, "marks": [], "items": items, "reports": []}
        await self.store.scripts.call("settle", request)
        self.give_up([message])

    def give_up(self, messages: Iterable[ClaimedMessage]) -> None:
        """Claimed recipients whose attempt ended without an outcome; they come back soon."""
        for message in messages:
            for item in message.recipients:
                self.holdings.abandoned(f"{message.queue_id}.{item.number}", item.attempt)
