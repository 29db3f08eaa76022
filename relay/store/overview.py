"""Reading the store as a whole: events, counters, ages, workers, the server.

Nothing here grows with what is queued.
"""

import asyncio
from typing import Any

from relay.model.ids import accepted_at
from relay.store import connect
from relay.store.clock import StoreClock, steady_s
from relay.store.codec import RecipientRecord, decode_recipient, unpack
from relay.store.events import StoredEvent, read_event
from relay.store.keys import prefix
from relay.store.wire import Wire

#: Entries of a list that are looked at for one that is not stale.
_STALE_HEADS = 20


class Overview:
    """What holds for the store as a whole; `Views` adds messages and queues."""

    def __init__(self, wire: Wire, mode: str) -> None:
        self.wire = wire
        self.mode = mode
        self.p = prefix(mode)
        self.clock = StoreClock()

    async def now(self) -> float:
        """Ask for the store's clock, epoch seconds."""
        asked_at = steady_s()
        now = await self._ask_clock()
        self.clock.heard(now, asked_at=asked_at)
        return now

    async def _ask_clock(self) -> float:
        fields = ("shift_ms", "frozen_ms", "step_ms")
        shift, frozen, step = await self.wire.call("HMGET", self.p + "meta", *fields)
        if frozen is not None:
            return int(frozen) / 1000
        ahead_ms = int(shift or 0) + int(step or 0)
        return (await connect.server_time_ms(self.wire) + ahead_ms) / 1000

    async def events(
        self, after: str = "0", *, limit: int = 100, block_s: float = 0.0
    ) -> list[StoredEvent]:
        """Events after a cursor ("0": from the oldest kept, "$": only new ones).

        `block_s` > 0 waits that long for one; use a store of one's own for that.
        """
        block = ("BLOCK", int(block_s * 1000)) if block_s > 0 else ()
        reply = await self.wire.call(
            "XREAD", "COUNT", limit, *block, "STREAMS", self.p + "events", after
        )
        return [read_event(*entry) for entry in reply[0][1]] if reply else []

    async def latest_events(self, limit: int = 100) -> list[StoredEvent]:
        """The newest events, newest first."""
        reply = await self.wire.call("XREVRANGE", self.p + "events", "+", "-", "COUNT", limit)
        return [read_event(*entry) for entry in reply]

    async def counters(self) -> dict[str, Any]:
        """Counters of all workers since the store began, and the states now."""
        flat = {k.decode(): int(v) for k, v in (await self._fields(self.p + "counters")).items()}
        states = {k.decode(): int(v) for k, v in (await self._fields(self.p + "states")).items()}
        groups: dict[str, Any] = {"states": states}
        groups |= {kind: {} for kind in ("messages", "accepted", "recipients", "attempts")}
        for name, value in flat.items():
            kind, *labels = name.split(":")
            group = groups.setdefault(kind, {})
            group[tuple(labels)] = value
        alive = ("ZCOUNT", self.p + "incarnations", f"({int(await self.now() * 1000)}", "+inf")
        groups["workers"] = await self.wire.call(*alive)
        groups["queues"] = await self.wire.call("ZCARD", self.p + "queues")
        groups["unrouted"] = await self.wire.call("ZCARD", self.p + "unrouted")
        groups["events"] = await self.wire.call("XLEN", self.p + "events")
        groups["is_full"] = await self.wire.call("EXISTS", self.p + "full")
        groups["oldest"] = await self._oldest()
        return groups

    async def server(self) -> dict[str, str]:
        """What Redis says of itself: memory, persistence, clients, commands."""
        return await connect.server_info(self.wire, "memory", "persistence", "clients", "stats")

    async def workers(self) -> list[dict[str, Any]]:
        """The worker processes that hold a lease now."""
        key, now_ms = self.p + "incarnations", int(await self.now() * 1000)
        alive = set(await self.wire.call("ZRANGEBYSCORE", key, f"({now_ms}", "+inf"))
        return [
            {"incarnation": raw_id.decode(), **unpack(raw)}
            for raw_id, raw in (await self._fields(self.p + "workers")).items()
            if raw_id in alive
        ]

    # -- ages --------------------------------------------------------------------------------

    async def oldest_of(self, queue: str) -> dict[str, float]:
        """When the oldest of a queue was accepted, by state, as the heads of its lists tell.

        Exact for ready mail and for queues of up to 20 deferred recipients.
        """
        key = self.p + "q:" + queue
        first, again, deferred, held = await asyncio.gather(
            self._first_ready(key + ":r"),
            self._first_ready(key + ":y"),
            self.wire.call("ZRANGE", key + ":d", 0, 19),
            self.wire.call("ZRANGE", key + ":h", 0, 0),
        )
        heads = {"ready": [*first, *again], "deferred": deferred, "held": held}
        return {
            state: min(accepted_at(head.decode()) for head in found)
            for state, found in heads.items()
            if found
        }

    async def _first_ready(self, key: str) -> list[bytes]:
        """The first recipient-id of a list whose recipient is ready: entries go stale in lists."""
        for raw in await self.wire.call("LRANGE", key, 0, _STALE_HEADS):
            record = await self._record_of(raw.decode())
            if record is not None and record.state == "r":
                return [raw]
        return []

    async def _record_of(self, recipient_id: str) -> RecipientRecord | None:
        """A recipient's record; None where it is gone."""
        queue_id, _, number = recipient_id.partition(".")
        bucket = (int(number) - 1) // 50
        where = f"b:{queue_id}:{bucket}" if bucket else f"m:{queue_id}"
        raw = await self.wire.call("HGET", self.p + where, number)
        return decode_recipient(raw) if raw is not None else None

    async def ages(self) -> dict[tuple[str, str], float]:
        """When the oldest was accepted by state and provider, at the last sweep (store/ages.py)."""
        raw = await self.wire.call("GET", self.p + "oldest")
        return {(state, provider): at for state, provider, at in unpack(raw)} if raw else {}

    async def _oldest(self) -> float | None:
        """When the oldest unfinished message was accepted; exact for up to 100 of them."""
        ids = await self.wire.call("ZRANGE", self.p + "deadlines", 0, 99)
        swept = (await self.ages()).values() if len(ids) == 100 else ()
        return min((*(accepted_at(raw.decode()) for raw in ids), *swept), default=None)

    async def _fields(self, key: str) -> dict[bytes, bytes]:
        flat = await self.wire.call("HGETALL", key)
        return dict(zip(flat[::2], flat[1::2], strict=True))
