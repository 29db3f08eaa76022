"""The store as workers see it: leases, wake-ups, sessions' slots and the tick.

Leasing recipients stands in `claims`, where their mail goes in `route_records`.
"""

import contextlib
import itertools
import socket
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from relay.model.errors import LeaseLost, StoreError
from relay.model.ids import new_queue_id
from relay.store.claims import Claims
from relay.store.clock import StepWatch, steady_s
from relay.store.codec import pack, pack_nested
from relay.store.holdings import Holdings, alert_of_poison
from relay.store.limits import Ceilings, Report, Taken
from relay.store.queue import Store
from relay.store.route_records import RouteRecords
from relay.telemetry.log import get_logger

#: A destination that was handed out is handed out again after this; DNS may take so long …
ROUTING_S = 15.0
#: … and a lane after this.
TAKING_S = 5.0
_CLOCK_SET = (
    "Redis' clock was set; the queue's own goes on as before and follows at a tenth of its speed"
)

_log = get_logger()


class Ticked(msgspec.Struct, frozen=True):
    """What a tick did and when the next timer is due (epoch seconds, 0: none)."""

    acting: bool
    worked: int = 0
    next_timer: float = 0.0
    due: tuple[str, ...] = ()
    committing: tuple[str, ...] = ()


class Work(RouteRecords, Claims):
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

    async def tell(self, kind: str, event_id: str, data: dict[str, Any]) -> None:
        """Write an event that no transition makes; StoreError where it cannot be written."""
        name = f"{self.store.p}events"
        fields = ("t", kind, "i", event_id, "d", pack(data))
        await self.store.wire.call("XADD", name, "*", *fields)

    async def report(self, report: Report) -> list[tuple[str, str, float]]:
        """Feed windows and breakers; which changed: (key, open|closed|wider, until)."""
        answer = await self.store.scripts.call(
            "report",
            {
                "windows": [list(window) for window in report.windows],
                "breakers": [list(breaker) for breaker in report.breakers],
                "lane": report.lane,
                "session": report.session,
                "silent": report.silent,
                "base_ms": int(report.base_s * 1000),
                "cap_ms": int(report.cap_s * 1000),
                "threshold": report.threshold,
            },
        )
        return [(key.decode(), word.decode(), until / 1000) for key, word, until in answer]

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
