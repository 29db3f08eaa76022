"""Reading the store: messages, queues, suspensions, and why something waits.

Nothing here writes. What a list shows is kept by the transitions; no view scans recipients.
"""

import asyncio
import time
from collections.abc import AsyncIterator

from relay.model.destination import all_of
from relay.model.dsn import NOTHING_ASKED, RecipientDsn, decode_xtext
from relay.model.errors import NotFound
from relay.model.state import FINAL_STATES, State
from relay.store.answer import unpack_answer
from relay.store.codec import (
    MessageRecord,
    RecipientRecord,
    StoredMessage,
    decode_content,
    decode_message,
    decode_recipient,
    unpack,
)
from relay.store.keys import CLASS_OF_LETTER, split_queue_name
from relay.store.overview import Overview
from relay.store.views import (
    MessageFilter,
    MessageView,
    QueueMatch,
    QueueView,
    RecipientView,
    Suspension,
)
from relay.store.waits import Wait, Waits

_WORD = {
    "s": State.STAGED,
    "r": State.READY,
    "d": State.DEFERRED,
    "h": State.HELD,
    "c": State.CLAIMED,
    "D": State.DELIVERED,
    "F": State.FAILED,
    "X": State.EXPIRED,
    "C": State.CANCELLED,
    "S": State.SUPPRESSED,
}
#: Waits that stop what comes due, too.
_STOPS = frozenset({"suspended", "parked"})
_PAGE = 200
#: Messages and recipients that one page of messages looks at: a filter that few fit is followed
#: from page to page, so that no question takes longer the more is queued.
LOOKED_AT = 2000
#: Queues read side by side: their commands leave in one write.
_SIDE_BY_SIDE = 50


class Views(Overview):
    """The reading half of the store."""

    # -- messages ----------------------------------------------------------------------------

    async def message(self, queue_id: str) -> MessageView:
        """One message; NotFound where it is unknown or finished over an hour ago."""
        fields = await self._fields(self.p + "m:" + queue_id)
        if b"m" not in fields:
            raise NotFound(f"no message {queue_id} (finished ones are kept for an hour)")
        record = decode_message(fields[b"m"])
        buckets = range(1, (record.count + 49) // 50)
        for more in await asyncio.gather(
            *(self._fields(f"{self.p}b:{queue_id}:{bucket}") for bucket in buckets)
        ):
            fields |= more
        waits = Waits(self.wire, self.p, self.now)
        recipients = []
        for number in range(1, record.count + 1):
            raw = fields.get(b"%d" % number)
            if raw is not None:
                recipients.append(
                    await self._recipient(queue_id, number, record, decode_recipient(raw), waits)
                )
        return _message_view(queue_id, record, tuple(recipients))

    async def _recipient(
        self, queue_id: str, number: int, m: MessageRecord, rec: RecipientRecord, waits: Waits
    ) -> RecipientView:
        state = _WORD[rec.state]
        destination = rec.destination or rec.address.rpartition("@")[2]
        queue = "|".join((m.class_letter, m.tenant, m.campaign, destination))
        due = rec.due_ms / 1000 if rec.due_ms else None
        remote, reply = unpack_answer(rec.answer)
        return RecipientView(
            id=f"{queue_id}.{number}",
            address=rec.address,
            status=str(state),
            reason=rec.reason,
            text=rec.text or str(reply or ""),
            reply=reply,
            remote=remote,
            attempt=rec.attempt,
            step=rec.step,
            next_attempt_at=due if state is State.DEFERRED else None,
            finished_at=due if state in FINAL_STATES else None,
            destination=destination,
            queue=queue,
            waiting=await self._wait(state, rec, queue, waits),
            dsn=RecipientDsn.unpacked(rec.dsn) if rec.dsn else NOTHING_ASKED,
        )

    @staticmethod
    async def _wait(state: State, rec: RecipientRecord, queue: str, waits: Waits) -> Wait | None:
        """Why the recipient does not move; a deferred or held one says it in its text."""
        if state is State.READY:
            return await waits.of_queue(queue)
        if state is State.CLAIMED:
            return await waits.of_attempt(rec.attempt, rec.holder, rec.wish)
        if state is State.STAGED:
            return Wait("staged", "staged", "its submission is not complete yet")
        return None

    async def content(self, queue_id: str) -> bytes:
        """The content as it will be sent; NotFound once the message is finished."""
        stored = await self.wire.call("HGET", self.p + "m:" + queue_id, "b")
        if stored is None:
            stored = await self.wire.call("GET", self.p + "c:" + queue_id)
        if stored is None:
            raise NotFound(f"no content of {queue_id}: it is unknown or finished")
        return decode_content(stored)

    async def messages(
        self, which: MessageFilter, *, limit: int = 50, cursor: str = ""
    ) -> tuple[list[MessageView], str]:
        """Live messages, then finished ones, that fit; the cursor of the next page or "".

        A page may have less than `limit`, even nothing, and be followed by another one.
        """
        source, _, offset_text = (cursor or "deadlines:0").partition(":")
        offset, found, looked, now = int(offset_text), list[MessageView](), 0, time.time()
        while source:
            async for position, view in self._messages_from(source, offset):
                if len(found) == limit or looked >= LOOKED_AT:
                    return found, f"{source}:{position}"
                looked += 1 + (len(view.recipients) if view is not None else 0)
                if view is not None and which.fits(view, now):
                    found.append(view)
            source, offset = ("finished", 0) if source == "deadlines" else ("", 0)
        return found, ""

    async def _messages_from(
        self, source: str, offset: int
    ) -> AsyncIterator[tuple[int, MessageView | None]]:
        """Messages of an index, newest first, with their positions; None for one that went."""
        while True:
            ids = await self.wire.call("ZREVRANGE", self.p + source, offset, offset + _PAGE - 1)
            for raw in ids:
                yield offset, await self._message_or_none(raw.decode())
                offset += 1
            if len(ids) < _PAGE:
                return

    async def _message_or_none(self, queue_id: str) -> MessageView | None:
        try:
            return await self.message(queue_id)
        except NotFound:
            return None

    # -- queues ------------------------------------------------------------------------------

    async def _queue_names(self, match: QueueMatch) -> AsyncIterator[str]:
        """Names of matching queues in lexical order, read in pages."""
        start = "-"
        while True:
            names = await self.wire.call(
                "ZRANGEBYLEX", self.p + "queues", start, "+", "LIMIT", 0, 500
            )
            for raw in names:
                name = raw.decode()
                if match.fits(*split_queue_name(name)):
                    yield name
            if len(names) < 500:
                return
            start = b"(" + names[-1]

    async def queues_to(self, destination: str) -> list[str]:
        """Names of all queues that are meant by a destination."""
        found: list[str] = []
        for one in all_of(destination):
            names = await self.wire.call("ZRANGE", self.p + "dest:" + one, 0, -1)
            found += [name.decode() for name in names]
        return found

    async def queues(self, match: QueueMatch, *, limit: int = 1000) -> list[QueueView]:
        """The first matching queues by name."""
        waits, names, views = Waits(self.wire, self.p, self.now), list[str](), list[QueueView]()
        if match.destination:
            members = await self.queues_to(match.destination)
            names = [name for name in members if match.fits(*split_queue_name(name))][:limit]
        else:
            async for name in self._queue_names(match):
                names.append(name)
                if len(names) == limit:
                    break
        for start in range(0, len(names), _SIDE_BY_SIDE):
            some = names[start : start + _SIDE_BY_SIDE]
            read = await asyncio.gather(*(self._queue(name, waits) for name in some))
            views += [view for view in read if view is not None]
        return views

    async def _queue(self, name: str, waits: Waits) -> QueueView | None:
        key = self.p + "q:" + name
        fields = {k.decode(): v.decode() for k, v in (await self._fields(key)).items()}
        counts = {letter: int(fields.get(letter, 0)) for letter in "rydhc"}
        if not any(counts.values()):
            return None  # it ended, or is kept for a moment because mail comes to it often
        mail_class, tenant, campaign, destination = split_queue_name(name)
        due = await self.wire.call("ZRANGE", key + ":d", 0, 0, "WITHSCORES")
        waiting = await waits.of_queue(name)
        if not counts["r"] + counts["y"] and (waiting is None or waiting.kind not in _STOPS):
            waiting = await self._of_rest(key, counts, due) or waiting
        suspended = waiting if waiting is not None and waiting.kind == "suspended" else None
        return QueueView(
            name=name,
            mail_class=mail_class,
            tenant=tenant,
            campaign=campaign,
            destination=destination,
            ready=counts["r"],
            retry=counts["y"],
            deferred=counts["d"],
            held=counts["h"],
            claimed=counts["c"],
            oldest=min((await self.oldest_of(name)).values(), default=None),
            next_due=float(due[1]) / 1000 if due else None,
            lane=fields.get("on", ""),
            suspended=suspended,
            waiting=waiting,
        )

    async def _of_rest(self, key: str, counts: dict[str, int], due: list[bytes]) -> Wait | None:
        """Why a queue without ready mail waits: what the next one that comes due was told."""
        if due:
            return await self._told("deferred", due[0], float(due[1]) / 1000)
        if counts["h"]:
            (first,) = await self.wire.call("ZRANGE", key + ":h", 0, 0)
            return await self._told("held", first, None)
        if counts["c"]:
            return Wait("attempt", "under_way", f"attempts under way: {counts['c']}")
        return None

    async def _told(self, kind: str, recipient_id: bytes, until: float | None) -> Wait | None:
        record = await self._record_of(recipient_id.decode())
        if record is None:
            return None
        _, reply = unpack_answer(record.answer)
        return Wait(kind, record.reason, record.text or str(reply or ""), until)

    async def suspensions(self) -> list[Suspension]:
        """Suspensions in force."""
        found, now = [], await self.now()
        for raw_id, raw in (await self._fields(self.p + "suspensions")).items():
            record = unpack(raw)
            if record["until"] / 1000 <= now:
                continue
            match = _match(record["match"])
            found.append(
                Suspension(
                    id=raw_id.decode(),
                    match=match,
                    reason=record["reason"],
                    until=record["until"] / 1000,
                    actor=record["actor"],
                )
            )
        return sorted(found, key=lambda item: item.until)

    async def match_of(self, suspension_id: str) -> QueueMatch | None:
        """Which queues a suspension concerns, whether in force or being ended."""
        raw = await self.wire.call("HGET", self.p + "suspensions", suspension_id)
        return _match(unpack(raw)["match"]) if raw is not None else None


def _match(letters: list[str]) -> QueueMatch:
    letter, tenant, campaign, destination = letters
    return QueueMatch(
        mail_class=CLASS_OF_LETTER.get(letter, ""),
        tenant=tenant,
        campaign=campaign,
        destination=destination,
    )


def _message_view(
    queue_id: str, record: StoredMessage, recipients: tuple[RecipientView, ...]
) -> MessageView:
    states = sorted({item.status for item in recipients})
    return MessageView(
        id=queue_id,
        message_id=record.message_id,
        reverse_path=record.reverse_path,
        mail_class=record.mail_class,
        tenant=record.tenant,
        campaign=record.campaign,
        tags=record.tags,
        metadata=record.metadata,
        size=record.size,
        created=record.created_ms / 1000,
        expires=record.expires_ms / 1000,
        ingress=record.ingress,
        status=states[0] if len(states) == 1 else "mixed",
        recipients=recipients,
        envelope_id=decode_xtext(record.envid),
    )
