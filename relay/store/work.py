"""The store as workers see it: routes, slots, claims, leases and the tick."""

import contextlib
import itertools
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from relay.model.errors import LeaseLost, NotFound, StoreError, StoreUnavailable
from relay.model.ids import new_queue_id
from relay.model.message import ClaimedMessage, ClaimedRecipient
from relay.store.clock import StepWatch, steady_s
from relay.store.codec import (
    FLAG_8BIT,
    FLAG_DSN,
    FLAG_SMTPUTF8,
    decode_content,
    decode_message,
    pack,
    pack_nested,
    unpack,
)
from relay.store.holdings import Holdings, alert_of_poison
from relay.store.keys import CLASS_LETTER
from relay.store.queue import Store
from relay.telemetry.log import get_logger

#: Content above this is read beside the claim, not through the script (see queue.BESIDE_OCTETS).
INLINE_OCTETS = 16 * 1024
#: A stale route is served so long while it is looked up again.
STALE_S = 24 * 3600.0
#: Queues that find their lane in one call.
QUEUES_PER_CALL = 500
#: A destination that was handed out is handed out again after this; DNS may take so long …
ROUTING_S = 15.0
#: … and a lane after this.
TAKING_S = 5.0
ROUTE_RETRY_S = 15.0
ROUTE_RETRY_MAX_S = 15 * 60.0
_CLOCK_SET = (
    "Redis' clock was set; the queue's own goes on as before and follows at a tenth of its speed"
)

_log = get_logger()


class Rate(msgspec.Struct, frozen=True):
    """A rate limit under a key: events per second and how many may come at once (GCRA)."""

    key: str
    per_second: float
    burst: int = 1

    def packed(self) -> list[Any]:
        return [self.key, 1_000_000 / self.per_second, max(self.burst, 1)]


class Ceilings(msgspec.Struct, frozen=True):
    """All that binds a session: slots (key, ceiling), feedback windows, rates, breakers."""

    slots: tuple[tuple[str, int], ...]
    windows: dict[str, int] = {}
    rates: tuple[Rate, ...] = ()
    breakers: tuple[str, ...] = ()


class Taken(msgspec.Struct, frozen=True):
    """Answer to take: ok, idle (no work) or no, with the limit that binds."""

    word: str
    probing: bool = False
    key: str = ""
    limit: int = 0
    until: float = 0.0
    reason: str = ""


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


class Ticked(msgspec.Struct, frozen=True):
    """What a tick did and when the next timer is due (epoch seconds, 0: none)."""

    acting: bool
    worked: int = 0
    next_timer: float = 0.0
    due: tuple[str, ...] = ()
    committing: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """What a connection taught.

    windows: (key, successes or 0 for a failure, limit, initial); breakers: (key, good, reason,
    text). With a `lane`, no breaker opens while another session of it lives, of whatever worker.
    """

    windows: tuple[tuple[str, int, int, int], ...] = ()
    breakers: tuple[tuple[str, bool, str, str], ...] = ()
    lane: str = ""
    base_s: float = 15.0
    cap_s: float = 900.0
    threshold: int = 1


class Work:
    """One incarnation's dealings with the store."""

    def __init__(self, store: Store, *, lease_s: float, info: dict[str, Any]) -> None:
        self.store = store
        self.lease_s = lease_s
        self.info = {"host": socket.gethostname(), "since": time.time(), **info}
        self.holder = new_queue_id()
        self.holdings = Holdings(store)
        self._tokens = itertools.count(1)
        self._step_watch = StepWatch()

    def new_token(self) -> str:
        """A token for a session's slots."""
        return f"{self.holder}:{next(self._tokens)}"

    # -- leases ------------------------------------------------------------------------------

    async def begin(self, over: Store | None = None) -> None:
        """Start a lease under a fresh incarnation, `over` a connection of the caller's own."""
        self.holder = new_queue_id()
        await self._lease({"begin": True}, over)

    async def renew(self, over: Store | None = None) -> list[str]:
        """Renew the lease; recipient-ids that verbs revoked; LeaseLost when it is gone."""
        answer = await self._lease({}, over)
        if answer[0] == b"lost":
            raise LeaseLost(f"the lease of incarnation {self.holder} ran out")
        return [rid.decode() for rid in answer[1:]]

    async def end(self, over: Store | None = None) -> None:
        """Give the lease up: what is still held returns at the next tick."""
        await self._lease({"stop": True}, over)

    async def _lease(self, more: dict[str, Any], over: Store | None) -> list[bytes]:
        request = {"holder": self.holder, "lease_ms": int(self.lease_s * 1000), **more}
        request["info"] = pack_nested(self.info)
        store = over if over is not None else self.store
        answer: list[bytes] = await store.scripts.call("lease", request)
        return answer

    async def reconcile(self, uncertain: dict[str, str]) -> int:
        """Give back what we hold by the store's account only; how much that was."""
        return await self.holdings.reconcile(self.holder, uncertain)

    # -- wake-ups ----------------------------------------------------------------------------

    async def unrouted(self, limit: int) -> list[str]:
        """Destinations whose route is asked for; handed out again unless they are routed soon."""
        return await self._hand_out("unrouted", "route", limit, ROUTING_S)

    async def wanting(
        self, pool: str, limit: int, *, stays: bool = False, late: bool = False
    ) -> list[str]:
        """Lanes of a pool that want a session; handed out again unless they are taken soon.

        Who `stays` looks again within a moment, so no task need be posted; one that is `late`
        leaves new work to other workers, too.
        """
        request = {"stays": stays, "late": late}
        return await self._hand_out(f"wanting:{pool}", f"egress.{pool}", limit, TAKING_S, request)

    async def _hand_out(
        self, name: str, queue: str, limit: int, again_s: float, more: dict[str, bool] | None = None
    ) -> list[str]:
        request = {"list": name, "queue": queue, "limit": limit, "again_ms": int(again_s * 1000)}
        request |= more or {}
        return [raw.decode() for raw in await self.store.scripts.call("hand_out", request)]

    async def pass_on(self, pool: str) -> None:
        """A wake-up found no room here: another worker, if there is one, may have it."""
        request = {"list": f"wanting:{pool}", "queue": f"egress.{pool}", "task": "relay.deliver"}
        await self.store.scripts.call("hand_out", request)

    async def put_back(self, pool: str, lanes: Sequence[str]) -> None:
        """Lanes that this process has no room for."""
        await self.store.scripts.call("hand_out", {"list": f"wanting:{pool}", "back": list(lanes)})

    # -- routes ------------------------------------------------------------------------------

    async def routed(
        self,
        destination: str,
        lane: str,
        site: bytes,
        *,
        fresh_s: float,
        stale_s: float = STALE_S,
    ) -> None:
        """Record a destination's lane; it is served for `stale_s` while it is looked up again."""
        request = {"lane": lane, "fresh_ms": int(fresh_s * 1000)}
        request["stale_ms"] = int(max(fresh_s, stale_s) * 1000)
        await self._route(destination, request, site)

    async def unroutable(self, destination: str, reason: str, text: str) -> None:
        """Record that the route is not known yet; it is asked for again by itself."""
        request: dict[str, Any] = {"reason": reason, "text": text}
        request["retry_ms"] = int(ROUTE_RETRY_S * 1000)
        request["max_retry_ms"] = int(ROUTE_RETRY_MAX_S * 1000)
        await self._route(destination, request)

    async def failures_in_a_row(self, destination: str) -> int | None:
        """Failed look-ups since the last good one; None where it has no route to hosts."""
        raw = await self.store.wire.call("GET", self.store.p + "ro:" + destination)
        route: dict[str, Any] = unpack(raw) if raw is not None else {"lane": ""}
        if route["lane"][:1] in ("", "!") or route["stale"] <= await self.store.now() * 1000:
            return None
        return int(route["fails"])

    async def _route(self, destination: str, request: dict[str, Any], *site: bytes) -> None:
        request |= {"destination": destination, "limit": QUEUES_PER_CALL}
        after: str | None = ""
        while after is not None:
            _, last = await self.store.scripts.call("route", {**request, "after": after}, *site)
            after = last.decode() or None

    async def site_of(self, lane: str) -> bytes | None:
        """The site record of a lane."""
        raw: bytes | None = await self.store.wire.call("HGET", self.store.p + "ln:" + lane, "site")
        return raw

    async def has_served(self, lane: str) -> bool:
        """Whether the lane's hosts have taken sessions of late."""
        return bool(await self.store.wire.call("HEXISTS", self.store.p + "ln:" + lane, "k"))

    async def destinations_of(self, lane: str, limit: int) -> list[str]:
        """Destinations whose mail is in a lane now, at most `limit`, by name."""
        wire, prefix = self.store.wire, self.store.p
        found: set[str] = set()
        for letter in CLASS_LETTER.values():
            for tenant in await wire.call("ZRANGE", f"{prefix}l{letter}:{lane}", 0, limit - 1):
                key = f"{prefix}lq:{lane}:{letter}:{tenant.decode()}"
                queues = await wire.call("ZRANGE", key, 0, limit - 1)
                found |= {queue.decode().rpartition("|")[2] for queue in queues}
        return sorted(found)[:limit]

    # -- sessions ----------------------------------------------------------------------------

    async def take(self, lane: str, token: str, ceilings: Ceilings) -> Taken:
        """All slots of a session or none."""
        answer = await self.store.scripts.call(
            "take",
            {
                "lane": lane,
                "holder": token.partition(":")[0],
                "token": token,
                "slots": [list(slot) for slot in ceilings.slots],
                "windows": ceilings.windows,
                "rates": [rate.packed() for rate in ceilings.rates],
                "breakers": list(ceilings.breakers),
            },
        )
        word = answer[0].decode()
        if word == "ok":
            self.holdings.took(token)
            return Taken("ok", probing=bool(answer[1]))
        if word == "idle":
            return Taken("idle")
        return Taken(
            "no",
            key=answer[1].decode(),
            limit=answer[2],
            until=answer[3] / 1000,
            reason=answer[4].decode(),
        )

    async def release(self, lane: str, token: str, ceilings: Ceilings) -> None:
        """Give a session's slots back."""
        self.holdings.released(token)
        request = {"lane": lane, "holder": token.partition(":")[0], "token": token}
        slots = [key for key, _ in ceilings.slots]
        probes = [*ceilings.breakers, *ceilings.windows]
        await self.store.scripts.call("release", {**request, "slots": slots, "probes": probes})

    async def park_lane(self, lane: str, for_s: float, reason: str, text: str) -> None:
        """Let a lane rest: it is offered to no worker before."""
        request = {"verb": "park", "queues": [], "lane": lane, "for_ms": int(for_s * 1000)}
        await self.store.scripts.call("suspend", {**request, "reason": reason, "text": text})

    async def note(self, lane: str, reason: str, key: str, *, for_s: float, until: float) -> None:
        """Say what keeps the lane's session from mail (`waits.limit_text`); costs nothing more."""
        packed = pack([reason, key, until])
        name = f"{self.store.p}nt:{lane}"
        with contextlib.suppress(StoreError):
            await self.store.wire.call("SET", name, packed, "PX", max(int(for_s * 1000), 1))

    async def report(self, report: Report) -> list[tuple[str, str, float]]:
        """Feed windows and breakers; which changed: (key, open|closed|wider, until)."""
        answer = await self.store.scripts.call(
            "report",
            {
                "windows": [list(window) for window in report.windows],
                "breakers": [list(breaker) for breaker in report.breakers],
                "lane": report.lane,
                "base_ms": int(report.base_s * 1000),
                "cap_ms": int(report.cap_s * 1000),
                "threshold": report.threshold,
            },
        )
        return [(key.decode(), word.decode(), until / 1000) for key, word, until in answer]

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
            ClaimedRecipient(number, address, destination, attempt, step, queue)
            for number, address, destination, attempt, step in unpack(rows)
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
            is_8bit=bool(record.flags & FLAG_8BIT),
            needs_smtputf8=bool(record.flags & FLAG_SMTPUTF8),
            wants_dsn=bool(record.flags & FLAG_DSN),
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

    # -- time --------------------------------------------------------------------------------

    async def tick(
        self, *, pools: tuple[str, ...], uncertain: dict[str, str], keep_events: int
    ) -> Ticked:
        """Let time pass: see `lua/tick.lua`."""
        request = {
            "holder": self.holder,
            "limit": 500,
            "grace_ms": int((self.lease_s + 15) * 1000),
            "keep": keep_events,
            "pools": list(pools),
            "uncertain": uncertain,
            "slew_ms": self._step_watch.slew_ms(),
        }
        answer = await self._tick(request, expected=self._step_watch.expected_ms())
        if answer[0] == b"busy":
            return Ticked(acting=False)
        for raw in answer[7]:
            await self.store.follow_suspension(raw.decode())
        alert_of_poison(answer[8])
        return Ticked(
            acting=True,
            worked=answer[3],
            next_timer=answer[4] / 1000,
            due=tuple(raw.decode() for raw in answer[5]),
            committing=tuple(raw.decode() for raw in answer[6]),
        )

    async def _tick(self, request: dict[str, Any], *, expected: int) -> list[Any]:
        """Tick; where Redis' clock was set, once more, and the store's goes on as before."""
        asked_at = steady_s()
        request["expected"] = expected
        answer: list[Any] = await self.store.scripts.call("tick", request)
        if answer[0] == b"stepped":
            _, _, shown_ms, step_ms = answer
            by_ms = self._step_watch.step_ms(shown_ms, asked_at=asked_at)
            if by_ms:
                _log.warning("store.clock_set", by_s=by_ms / 1000, text=_CLOCK_SET)
                request["undo"] = {"from": step_ms, "by": -by_ms}
            return await self._tick(request, expected=0)
        self.store.clock.heard(answer[1] / 1000, asked_at=asked_at)
        self._step_watch.heard(answer[2], asked_at=asked_at)
        return answer


class RedisDnsCache:
    """The resolver's second level, shared by all workers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, key: str) -> bytes | None:
        """A cached answer."""
        try:
            raw: bytes | None = await self._store.wire.call("GET", f"{self._store.p}dns:{key}")
        except StoreError:
            return None
        return raw

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Remember an answer, as far as there is room: looking things up must not need any."""
        with contextlib.suppress(StoreError):
            await self._store.wire.call(
                "SET", f"{self._store.p}dns:{key}", value, "PX", max(int(ttl_s * 1000), 1)
            )
