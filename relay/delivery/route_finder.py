"""Turns unrouted destinations into routes: look-ups side by side, one record each."""

import asyncio

import structlog

from relay.delivery.context import Context
from relay.delivery.routing import Unroutable, encode_site, pool_of, resolve_destination
from relay.model.errors import StoreError
from relay.model.lane import Lane
from relay.model.verdict import Severity

#: Destinations looked up at the same time.
SIDE_BY_SIDE = 50
#: A refusal of DNS is believed for so long.
REFUSAL_FRESH_S = 300.0

_log = structlog.get_logger("relay.routing")


class RouteFinder:
    """`find_all()` works until nothing is unrouted."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._places = asyncio.Semaphore(SIDE_BY_SIDE)
        self._under_way: set[str] = set()

    async def find_all(self) -> None:
        """Route everything that is asked for now."""
        while True:
            names = await self._context.work.unrouted(SIDE_BY_SIDE)
            fresh = [name for name in names if name not in self._under_way]
            await asyncio.gather(*(self._find(name) for name in fresh))
            if len(names) < SIDE_BY_SIDE:
                return

    async def _find(self, destination: str) -> None:
        self._under_way.add(destination)
        try:
            async with self._places:
                await self._route(destination)
        except StoreError as error:
            _log.warning("route.not_recorded", destination=destination, detail=str(error))
        except Exception:
            _log.exception("route.crashed", destination=destination)
            await self._context.work.unroutable(
                destination, "internal_error", "The route could not be computed; see the log."
            )
        finally:
            self._under_way.discard(destination)

    async def _route(self, destination: str) -> None:
        context, directory = self._context, self._context.directory
        found = await resolve_destination(
            destination,
            resolver=directory.resolver,
            routes=directory.routes,
            shaping=directory.shaping,
            settings=directory.settings,
            random=context.random,
        )
        if not isinstance(found, Unroutable):
            record = encode_site(found)
            await context.work.routed(destination, str(found.lane), record, fresh_s=found.ttl_s)
        elif found.verdict.severity is Severity.PERMANENT:
            # A site of its own that is nowhere: its mail gets the verdict, no packet leaves.
            lane = Lane(f"!{destination}", pool_of(directory.settings), "none")
            record = encode_site(found)
            await context.work.routed(destination, str(lane), record, fresh_s=REFUSAL_FRESH_S)
        else:
            verdict = found.verdict
            _log.info("route.unknown", destination=destination, reason=verdict.reason)
            await context.work.unroutable(destination, verdict.reason, verdict.text)
