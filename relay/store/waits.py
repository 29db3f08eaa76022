"""Why a queue is not moving: one reason, one sentence, and when it will be tried next."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from relay.store.codec import unpack
from relay.store.limit_key import LimitKey
from relay.store.wire import Wire


class Wait(msgspec.Struct, frozen=True):
    """A wait's kind, stable reason, sentence, and end (epoch seconds) where it is known."""

    kind: str
    reason: str
    text: str
    until: float | None = None


#: What binds a session, by the reason that `take` and sessions give; {} is whose limit it is.
_LIMITS = {
    "connection_limit": "{} has as many connections as shaping, or its own answers, allow",
    "connection_rate": "connections to {} are opened no faster than shaping allows",
    "message_rate": "mail to {} is sent no faster than shaping allows",
    "breaker_probing": "one session is trying whether {} takes mail again",
    "session_opening": "{} is being connected to and has not let us in yet",
}


def limit_text(reason: str, key: str) -> str:
    """The sentence of a limit, which names whom its key is about."""
    return _LIMITS.get(reason, f"{reason} of {{}} is reached").format(LimitKey.parse(key).name)


class Waits:
    """Explains queues; remembers what it read, so use one for one answer."""

    def __init__(self, wire: Wire, prefix: str, clock: Callable[[], Awaitable[float]]) -> None:
        """`clock` asks for the store's, epoch seconds."""
        self._wire = wire
        self._p = prefix
        self._clock = clock
        self._now_ms = 0.0
        self._known: dict[str, Wait | None] = {}
        self._holders: dict[str, str] = {}

    async def of_queue(self, queue: str) -> Wait | None:
        """The first thing that keeps the queue's ready recipients; None where nothing does."""
        if queue not in self._known:
            self._known[queue] = await self._find(queue)
        return self._known[queue]

    async def of_attempt(self, attempt: int, holder: str, wish: str) -> Wait:
        """Why a claimed recipient does not move: somebody has it right now."""
        if holder not in self._holders:
            raw = await self._wire.call("HGET", self._p + "workers", holder)
            about = unpack(raw) if raw is not None else {}
            where = f" by worker {about.get('pid', '?')} on {about['host']}" if about else ""
            self._holders[holder] = where
        then = f"; {_WISHES[wish]} unless this ends it" if wish in _WISHES else ""
        text = f"attempt {attempt} is under way{self._holders[holder]}{then}"
        return Wait("attempt", "under_way", text)

    async def _find(self, queue: str) -> Wait | None:
        now_ms = self._now_ms = self._now_ms or await self._clock() * 1000
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
        text = reason if reason.startswith("suspended") else f"suspended: {reason}"
        return Wait("suspended", "suspended", text, until_ms / 1000)

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
            text = _text(raw) or limit_text(reason, _text(key))
            return Wait("lane", reason, text, float(pu) / 1000)
        sessions = await self._wire.call("SCARD", self._p + "ls:" + lane)
        note = await self._wire.call("GET", self._p + "nt:" + lane)
        reason, key, until = unpack(note) if note is not None else ("", "", 0.0)
        # Where others of the lane are at work, one that is being opened keeps nothing.
        if reason and (reason != "session_opening" or sessions == 1):
            return Wait("session", reason, limit_text(reason, key), until or None)
        site, pool = lane.split("|")[:2]
        if sessions:
            many = f"{sessions} sessions with" if sessions > 1 else "a session with"
            text = f"{many} {site.partition('~')[0]} will take it in its turn"
            return Wait("session", "in_turn", text)
        since = await self._wire.call("ZSCORE", self._p + "wanting:" + pool, lane)
        if since is not None and float(since) < now_ms - 5000:
            return Wait("worker", "no_worker", f"no worker of pool {pool} has taken it up yet")
        return Wait("worker", "handed_out", f"a worker of pool {pool} is asked to take it up")


#: What an operator said while an attempt was under way.
_WISHES = {
    "hold": "it is held afterwards",
    "cancel": "it is cancelled afterwards",
    "bounce": "it is bounced afterwards",
}


def _text(raw: bytes | None) -> str:
    return raw.decode("utf-8", "replace") if raw else ""
