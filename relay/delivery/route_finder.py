"""Turns unrouted destinations into routes: look-ups side by side, one record each.

A destination whose nameservers are silent takes seconds: nobody waits for it. Once its look-up is
slow it gives its place among the quick ones back, so that thousands of dead domains cost the
living ones nothing.
"""

import asyncio

import structlog

from relay.delivery.context import Context
from relay.model.errors import StoreError

#: Destinations whose look-up has just begun …
QUICK = 50
#: … and those under way altogether, quick and slow.
UNDER_WAY = 1000
#: A look-up that takes longer than this is a slow one.
SLOW_S = 1.0

_log = structlog.get_logger("relay.routing")


class RouteFinder:
    """`find_all()` takes up all that is asked for; `stop()` abandons what is under way."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._quick: set[str] = set()
        self._moved = asyncio.Event()
        self._is_stopped = False

    async def find_all(self) -> None:
        """Begin the look-up of every destination that asks for a route, as there is room."""
        while (room := await self._room()) > 0:
            names = await self._context.work.unrouted(room)
            for name in names:
                if name not in self._under_way:
                    self._begin(name)
            if len(names) < room:
                return

    async def stop(self) -> None:
        """Abandon all look-ups; their destinations are handed out again."""
        self._is_stopped = True
        self._moved.set()
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _room(self) -> int:
        """How many look-ups may begin, once one may; 0: none any more."""
        while not self._is_stopped:
            room = min(QUICK - len(self._quick), UNDER_WAY - len(self._under_way))
            if room > 0:
                return room
            self._moved.clear()
            await self._moved.wait()
        return 0

    def _begin(self, destination: str) -> None:
        task = asyncio.create_task(self._find(destination), name=f"route:{destination}")
        self._under_way[destination] = task
        self._quick.add(destination)

    async def _find(self, destination: str) -> None:
        patience = asyncio.get_running_loop().call_later(SLOW_S, self._is_slow, destination)
        try:
            await self._record(destination)
        except StoreError as error:
            _log.warning("route.not_recorded", destination=destination, detail=str(error))
        finally:
            patience.cancel()
            del self._under_way[destination]
            self._is_slow(destination)

    def _is_slow(self, destination: str) -> None:
        """It takes no place among the quick ones any more."""
        self._quick.discard(destination)
        self._moved.set()

    async def _record(self, destination: str) -> None:
        try:
            await self._context.routes.find(destination)
        except StoreError:
            raise
        except Exception:
            _log.exception("route.crashed", destination=destination)
            await self._context.work.unroutable(
                destination, "internal_error", "The route could not be computed; see the log."
            )
