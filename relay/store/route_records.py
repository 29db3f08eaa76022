"""Which lane a destination's mail is in, as the store has it, and what look-ups told of it."""

from typing import Any

from relay.store.codec import unpack
from relay.store.keys import CLASS_LETTER
from relay.store.queue import Store

#: A stale route is served so long while it is looked up again.
STALE_S = 24 * 3600.0
#: Queues that find their lane in one call.
QUEUES_PER_CALL = 500
ROUTE_RETRY_S = 15.0
ROUTE_RETRY_MAX_S = 15 * 60.0


class RouteRecords:
    """The routing half of `Work`."""

    store: Store

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
