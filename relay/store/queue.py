"""The store as doors and operators see it: accept, look, and the verbs of the queue."""

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from relay.model.errors import (
    Finding,
    IdempotencyConflict,
    NotFound,
    StateConflict,
    StoreFull,
    StoreUnavailable,
    SubmissionRefused,
)
from relay.model.ids import is_queue_id, is_recipient_id, new_queue_id, split_recipient_id
from relay.model.message import Receipt, ReceiptRecipient, Submission
from relay.model.state import State
from relay.settings.schema import Redis
from relay.store import connect
from relay.store.codec import encode_content, message_record, pack_nested, unpack
from relay.store.fan import Fan
from relay.store.keys import CLASS_LETTER, split_queue_name
from relay.store.reader import Views
from relay.store.scripts import Scripts
from relay.store.views import QueueMatch, Suspension
from relay.store.wire import Copies, Wire
from relay.telemetry.meter import Meter

#: Rows of one call; a larger submission is staged in chunks of this size.
ROWS_PER_CALL = 1000
#: Content above this is laid beside a script, not given to it: Lua would hash each of its octets.
BESIDE_OCTETS = 8 * 1024
#: How long it lies there.
BESIDE_S = 60
#: How long a look at memory is believed.
MEMORY_CHECK_S = 1.0
_VERB_LIMIT = 500
#: What one server has written counts.
NO_COPIES = Copies()


class Store(Views):
    """One mode's queue in one Redis; every method may raise StoreUnavailable.

    Doors use `accept`, operators the verbs; the views come from `Views`.
    """

    def __init__(
        self,
        wire: Wire,
        mode: str,
        *,
        watermark: float = 0.85,
        copies: Copies = NO_COPIES,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(wire, mode)
        #: What this process counts; `MeterReporter` makes it part of the figures of all.
        self.meter = meter if meter is not None else Meter()
        self.scripts = Scripts(wire, mode, self.meter, copies)
        self._fan = Fan(wire, self.scripts)
        self._watermark = watermark
        self._memory_checked = 0.0
        self._full_because = ""

    @classmethod
    async def connect(
        cls,
        url: str,
        mode: str,
        *,
        client_name: str = "relay",
        watermark: float = 0.85,
        copies: Copies = NO_COPIES,
        meter: Meter | None = None,
    ) -> "Store":
        """Open the store; StoreUnavailable, ConfigError or ScriptMismatch say why not."""
        wire = Wire(url, client_name=client_name)
        return await cls.open(wire, mode, watermark=watermark, copies=copies, meter=meter)

    @classmethod
    async def open(
        cls,
        wire: Wire,
        mode: str,
        *,
        watermark: float = 0.85,
        copies: Copies = NO_COPIES,
        meter: Meter | None = None,
    ) -> "Store":
        """As `connect`, over a wire of the caller's, which is closed where this fails."""
        store = cls(wire, mode, watermark=watermark, copies=copies, meter=meter)
        try:
            info = await connect.server_info(wire)
            connect.check_server(info, wire.where)
            connect.warn_if_volatile(info, wire.where)
            if copies.replicas:
                about = await connect.server_info(wire, "replication")
                connect.warn_if_unguarded(about, copies, wire.where)
            await connect.stamp(wire, mode)
            await store.scripts.load()
        except BaseException:
            await wire.close()
            raise
        return store

    async def close(self) -> None:
        """Close the connections."""
        await self._fan.close()
        await self.wire.close()

    async def ping(self) -> None:
        """Return when Redis answers."""
        await self.wire.call("PING")

    async def check_schema(self) -> None:
        """ScriptMismatch where another version of relay has taken the store over."""
        await connect.check_schema(self.wire, self.mode)

    # -- accepting ---------------------------------------------------------------------------

    async def accept(self, submission: Submission) -> Receipt:
        """Make the submission durable, all of it or nothing; a replay answers the first receipt.

        Raises StoreFull, StoreUnavailable, IdempotencyConflict; SubmissionRefused where the
        suppression list has all of its recipients.
        """
        await self._refuse_when_full()
        rows = rows_of(submission)
        suppressed: list[int] = []
        staged, is_replay = len(rows) > ROWS_PER_CALL, False
        for first in range(1, len(rows) + 1, ROWS_PER_CALL):
            content = encode_content(submission.content) if first == 1 else b""
            request = accept_request(submission, rows[first - 1 : first - 1 + ROWS_PER_CALL], first)
            request["staged"] = staged
            with self._fan.way() as (wire, scripts):
                if len(content) > BESIDE_OCTETS:
                    request["beside"], content = await self._laid_beside(content, wire), b""
                answer = await scripts.call("accept", request, content)
            word, queue_id = self._accepted(answer)
            if word == "replay":
                return await self._first_receipt(queue_id, submission)
            # "staging": the hand-over under the first id was broken off; it is finished under that.
            is_replay = is_replay or word == "staging"
            submission = msgspec.structs.replace(submission, queue_id=queue_id)
            suppressed = answer[3:]
        if staged:
            suppressed = await self.commit(submission.queue_id)
        if is_replay:
            return await self._first_receipt(submission.queue_id, submission)
        addresses = (row[0] for row in rows)
        receipt = _receipt(submission.queue_id, submission.message_id, addresses, "ready")
        return _with_suppressed(receipt, suppressed) if suppressed else receipt

    async def _laid_beside(self, content: bytes, wire: Wire) -> str:
        """Put content where the script that follows on this wire takes it; the place's name.

        Lua would hash each octet, and copy it twice. What no script takes goes by itself.
        """
        name = "beside:" + new_queue_id()
        await wire.prepare("SET", self.p + name, content, "EX", BESIDE_S)
        return name

    @staticmethod
    def _accepted(answer: list[bytes]) -> tuple[str, str]:
        word, detail = answer[0].decode(), answer[1].decode()
        if word == "full":
            raise StoreFull(f"the store is full ({detail}): nothing is accepted until it drains")
        if word == "lost":
            raise StoreUnavailable("the content did not reach Redis; send the message again")
        if word == "conflict":
            raise IdempotencyConflict(
                f"this idempotency key was used for message {detail} with another payload"
            )
        if word == "suppressed":
            raise SubmissionRefused(*map(_all_suppressed, answer[2:]))
        if word == "unknown":
            raise StateConflict(f"the first rows of message {detail} are gone; send it again")
        return word, detail

    async def _first_receipt(self, queue_id: str, again: Submission) -> Receipt:
        """The receipt of a submission that came before.

        Its record may be gone (finished over an hour ago): the same payload, the same recipients.
        """
        try:
            view = await self.message(queue_id)
        except NotFound:
            return _receipt(queue_id, "", map(str, again.forward_paths), "finished")
        return Receipt(
            id=view.id,
            message_id=view.message_id,
            recipients=tuple(
                ReceiptRecipient(item.id, item.address, item.status) for item in view.recipients
            ),
            replayed=True,
        )

    async def commit(self, queue_id: str) -> list[int]:
        """Make a staged message ready; StateConflict while rows are missing.

        Answers the numbers of the recipients whom the suppression list has: they are ended.
        """
        suppressed: list[int] = []
        while True:
            answer = await self.scripts.call("commit", {"id": queue_id, "limit": 500})
            if answer[0] == b"unknown":
                raise NotFound(f"no message {queue_id}")
            if answer[0] == b"missing":
                raise StateConflict(
                    f"message {queue_id} has {answer[1]} of {answer[2]} rows; send the others first"
                )
            suppressed += answer[2:]
            if answer[1] <= 0:
                return suppressed

    async def _refuse_when_full(self) -> None:
        now = time.monotonic()
        if now - self._memory_checked > MEMORY_CHECK_S:
            info = (await self.wire.call("INFO", "memory")).decode()
            fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
            limit = int(fields.get("maxmemory", "0"))
            used = int(fields.get("used_memory", "0"))
            marked = await self.wire.call("GET", self.p + "full")
            share = f"Redis uses over {self._watermark:.0%} of its memory limit"
            over = limit > 0 and used >= limit * self._watermark
            self._full_because = share if over else (marked or b"").decode()
            self._memory_checked = now
        if self._full_because:
            raise StoreFull(f"the store is full: {self._full_because}")

    # -- verbs on messages -------------------------------------------------------------------

    async def retry(self, target: str, *, actor: str = "") -> int:
        """Try deferred recipients now; answers how many were changed."""
        return await self._verb("retry", target, "", "", actor)

    async def hold(self, target: str, reason: str = "", *, actor: str = "") -> int:
        """Keep recipients from being attempted until released."""
        return await self._verb("hold", target, "held", reason or "held by an operator", actor)

    async def release(self, target: str, *, actor: str = "") -> int:
        """Let held recipients go on."""
        return await self._verb("release", target, "", "", actor)

    async def cancel(self, target: str, reason: str = "", *, actor: str = "") -> int:
        """End recipients without a report; an attempt under way may still deliver."""
        return await self._verb("cancel", target, "cancelled", reason or "cancelled", actor)

    async def bounce(self, target: str, text: str = "", *, actor: str = "") -> int:
        """Fail recipients; where the sender is to be told, with the report (store/deadlines.py)."""
        return await self._verb("bounce", target, "bounced", text or "failed by an operator", actor)

    async def _verb(self, verb: str, target: str, reason: str, text: str, actor: str) -> int:
        """Apply a verb to a queue-id or recipient-id; NotFound, StateConflict where none fits."""
        queue_id, only = target, 0
        if is_recipient_id(target):
            queue_id, only = split_recipient_id(target)
        elif not is_queue_id(target):
            raise NotFound(f"{target!r} is neither a queue-id nor a recipient-id")
        request = {"id": queue_id, "only": only, "limit": _VERB_LIMIT, "verb": verb}
        request |= {"reason": reason, "text": text, "actor": actor}
        changed, start = 0, 1
        while start:
            answer = await self.scripts.call("verb", {**request, "from": start})
            if answer[0] == b"unknown":
                raise NotFound(f"no message {queue_id}")
            changed, start = changed + answer[1], answer[2]
        if changed == 0:
            await self._explain_conflict(verb, target, queue_id, only)
        return changed

    async def _explain_conflict(self, verb: str, target: str, queue_id: str, only: int) -> None:
        view = await self.message(queue_id)
        concerned = [item for item in view.recipients if only in (0, int(item.id.split(".")[1]))]
        if not concerned:
            raise NotFound(f"no recipient {target}")
        states = ", ".join(sorted({item.status for item in concerned}))
        raise StateConflict(f"cannot {verb} {target}: it is {states}")

    # -- verbs on queues ---------------------------------------------------------------------

    async def suspend(
        self, match: QueueMatch, *, reason: str, duration_s: float, actor: str = ""
    ) -> Suspension:
        """Stop attempts of all matching queues, present and to come, for a while."""
        suspension_id = new_queue_id()
        _, until_ms = await self.scripts.call(
            "suspend",
            {
                "verb": "rule",
                "id": suspension_id,
                "match": list(_letters(match)),
                "for_ms": int(duration_s * 1000),
                "reason": reason,
                "actor": actor,
            },
        )
        affected = await self._follow(suspension_id, match)
        return Suspension(
            id=suspension_id,
            match=match,
            reason=reason,
            until=until_ms / 1000,
            actor=actor,
            queues=affected,
        )

    async def resume(self, which: "str | QueueMatch") -> int:
        """End a suspension by id, or all suspensions whose match is this one; how many ended."""
        ended = 0
        for suspension in await self.suspensions():
            if which in (suspension.id, suspension.match):
                await self.scripts.call("suspend", {"verb": "over", "id": suspension.id})
                await self._follow(suspension.id, suspension.match)
                ended += 1
        if ended == 0:
            raise NotFound(f"no suspension of {which}")
        return ended

    async def follow_suspension(self, suspension_id: str) -> None:
        """Finish putting a suspension in force, or ending it, where its caller did not."""
        match = await self.match_of(suspension_id)
        await self._follow(suspension_id, match if match is not None else QueueMatch())

    async def _follow(self, suspension_id: str, match: QueueMatch) -> int:
        """Let the queues follow a suspension that was made or ended; how many there are."""
        affected = 0
        async for names in self._matching(match):
            request = {"verb": "follow", "queues": names}
            affected += (await self.scripts.call("suspend", request))[0]
        await self.scripts.call("suspend", {"verb": "done", "id": suspension_id})
        return affected

    async def flush(self, match: QueueMatch) -> int:
        """Try all deferred recipients of the matching queues now."""
        flushed = 0
        async for names in self._matching(match):
            rest = names
            while rest:
                changed, stopped = await self.scripts.call(
                    "suspend", {"verb": "flush", "queues": rest, "limit": 500}
                )
                flushed += changed
                rest = rest[rest.index(stopped.decode()) :] if stopped else []
        return flushed

    async def park(self, match: QueueMatch, *, for_s: float, reason: str, text: str) -> None:
        """Let queues rest by an internal cause; costs no step."""
        request = {"verb": "park", "for_ms": int(for_s * 1000), "reason": reason, "text": text}
        async for names in self._matching(match):
            await self.scripts.call("suspend", {**request, "queues": names})

    async def _matching(self, match: QueueMatch) -> AsyncIterator[list[str]]:
        """Names of the matching queues, at most 200 at a time."""
        if match.destination:
            pages = [await self.queues_to(match.destination)]
        else:
            pages = [[name async for name in self._queue_names(match)]]
        for page in pages:
            fitting = [name for name in page if match.fits(*split_queue_name(name))]
            for start in range(0, len(fitting), 200):
                yield fitting[start : start + 200]


def copies_of(settings: Redis) -> Copies:
    """What the settings say of replicas."""
    return Copies(settings.replicas, settings.replica_timeout)


def _letters(match: QueueMatch) -> tuple[str, str, str, str]:
    letter = CLASS_LETTER[match.mail_class] if match.mail_class else ""
    return letter, match.tenant, match.campaign, match.destination


def _receipt(queue_id: str, message_id: str, addresses: Iterable[str], status: str) -> Receipt:
    return Receipt(
        id=queue_id,
        message_id=message_id,
        recipients=tuple(
            ReceiptRecipient(f"{queue_id}.{number}", address, status)
            for number, address in enumerate(addresses, start=1)
        ),
        replayed=status == "finished",
    )


def _with_suppressed(receipt: Receipt, numbers: Sequence[int]) -> Receipt:
    recipients = list(receipt.recipients)
    for number in numbers:
        ended = msgspec.structs.replace(recipients[number - 1], status=str(State.SUPPRESSED))
        recipients[number - 1] = ended
    return msgspec.structs.replace(receipt, recipients=tuple(recipients), suppressed=len(numbers))


def _all_suppressed(packed: bytes) -> Finding:
    name, reason, since_ms = unpack(packed)
    since = datetime.fromtimestamp(since_ms / 1000, UTC)
    return Finding(
        "to",
        "recipient_suppressed",
        f"{name} is on the suppression list since {since:%Y-%m-%d}: {reason}",
        f"nobody is left to send it to; `relay suppress remove {name}` if it may get mail again",
    )


def rows_of(submission: Submission) -> list[list[str]]:
    """Address and destination ("" where it is the domain) of each recipient; what its DSN asks."""
    rows = [
        [str(path), destination if destination != path.domain else ""]
        for path, destination in zip(submission.forward_paths, submission.destinations, strict=True)
    ]
    if submission.dsn is not None:
        for row, asked in zip(rows, submission.dsn.recipients, strict=False):
            if packed := asked.packed():
                row.append(packed)
    return rows


def accept_request(submission: Submission, rows: list[list[str]], first: int) -> dict[str, object]:
    """What `add_message` of the scripts takes (see `lua/_accept.lua`)."""
    request: dict[str, object] = {
        "id": submission.queue_id,
        "m": pack_nested(message_record(submission)),
        "expires_ms": int(submission.expires_after_s * 1000),
        "notice_ms": int(submission.delay_notice_after_s * 1000),
        "first": first,
        "rcpt": rows,
        "staged": False,
        "ingress": submission.ingress,
        "tenant": submission.tenant,
        "idem": submission.idempotency_key,
        "digest": submission.digest,
    }
    if submission.hourly_limit:
        request |= {"hourly": submission.hourly_limit, "reports_on": submission.reports_on}
    return request
