"""Why a queue is not moving: one reason, one sentence, and when it will be tried next."""

import time
from typing import Any

import msgspec

from relay.store.codec import unpack
from relay.store.wire import Wire


class Wait(msgspec.Struct, frozen=True):
    """A wait's kind, stable reason, sentence, and end (epoch seconds) where it is known."""

    kind: str
    reason: str
    text: str
    until: float | None = None


class Waits:
    """Explains queues; remembers what it read, so use one for one answer."""

    def __init__(self, wire: Wire, prefix: str) -> None:
        self._wire = wire
        self._p = prefix
        self._known: dict[str, Wait | None] = {}

    async def of_queue(self, queue: str) -> Wait | None:
        """The first thing that keeps the queue's ready recipients; None where nothing does."""
        if queue not in self._known:
            self._known[queue] = await self._find(queue)
        return self._known[queue]

    async def _find(self, queue: str) -> Wait | None:
        now_ms = time.time() * 1000
        su, si, pu, pr, pt, lane = await self._wire.call(
            "HMGET", self._p + "q:" + queue, "su", "si", "pu", "pr", "pt", "on"
        )
        if su is not None and float(su) > now_ms:
            return await self._suspension(si, float(su))
        if pu is not None and float(pu) > now_ms:
            return Wait("parked", _text(pr), _text(pt), float(pu) / 1000)
        if not lane:
            return await self._of_route(queue.split("|", 3)[3], now_ms)
        return await self._of_lane(lane.decode(), now_ms)

    async def _suspension(self, suspension_id: bytes, until_ms: float) -> Wait:
        raw = await self._wire.call("HGET", self._p + "suspensions", suspension_id)
        reason = unpack(raw)["reason"] if raw is not None else "suspended"
        return Wait("suspended", "suspended", f"suspended: {reason}", until_ms / 1000)

    async def _of_route(self, destination: str, now_ms: float) -> Wait | None:
        raw = await self._wire.call("GET", self._p + "ro:" + destination)
        route: dict[str, Any] = unpack(raw) if raw is not None else {}
        if route.get("until", 0) > now_ms:
            return Wait("routing", route["reason"], route["text"], route["until"] / 1000)
        asked = await self._wire.call("ZSCORE", self._p + "unrouted", destination)
        if asked is not None:
            return Wait(
                "routing", "mx_lookup", f"the MX hosts of {destination} are being looked up"
            )
        return None

    async def _of_lane(self, lane: str, now_ms: float) -> Wait | None:
        pu, pr, key = await self._wire.call("HMGET", self._p + "ln:" + lane, "pu", "pr", "pt")
        if pu is not None and float(pu) > now_ms:
            reason = _text(pr)
            raw = await self._wire.call("HGET", self._p + "br:" + _text(key), "text")
            text = _text(raw) or f"{reason} of {_text(key)} is reached"
            return Wait("lane", reason, text, float(pu) / 1000)
        pool = lane.split("|")[1]
        since = await self._wire.call("ZSCORE", self._p + "wanting:" + pool, lane)
        if since is not None and float(since) < now_ms - 5000:
            return Wait("worker", "no_worker", f"no worker of pool {pool} has taken it up yet")
        return None


def _text(raw: bytes | None) -> str:
    return raw.decode("utf-8", "replace") if raw else ""
