"""How long the oldest recipient waits, by state and provider: a sweep over the queues.

Never a scan of recipients: of each queue the heads of its lists are looked at. One process at a
time sweeps, a few queues every few seconds, and writes down what all of them came to. With few
queues the figures are seconds old, with 20,000 some minutes: they are hours when they matter.
"""

import asyncio
from collections.abc import Callable

import structlog

from relay.model.errors import StoreError
from relay.model.ids import new_queue_id
from relay.store.codec import pack, unpack
from relay.store.queue import Store
from relay.telemetry.meter import OTHER

STEP_EVERY_S = 5.0
QUEUES_PER_STEP = 200
#: Another process goes on where the one that swept has not been heard of for so long.
_MINE_MS = 15_000
#: What the last sweep found is not believed any longer than this.
_KEPT_S = 3600

_log = structlog.get_logger("relay.ages")


class AgeSweep:
    """`run()` until cancelled; `provider_of` reads the provider of a site record, if it has one."""

    def __init__(self, store: Callable[[], Store], provider_of: Callable[[bytes], str]) -> None:
        self._open_store = store
        self._provider_of = provider_of
        self._name = new_queue_id()
        self._after = "-"
        self._found: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Sweep as long as no other process does."""
        while True:
            try:
                store = self._open_store()
                if await self._is_mine(store):
                    await self.step(store)
            except StoreError as error:
                _log.debug("ages.not_swept", detail=str(error))
            await asyncio.sleep(STEP_EVERY_S)

    async def _is_mine(self, store: Store) -> bool:
        """Two at once would do no harm."""
        key = store.p + "sweeper"
        holder = await store.wire.call("GET", key)
        if holder is not None and holder.decode() != self._name:
            return False
        await store.wire.call("SET", key, self._name, "PX", _MINE_MS)
        return True

    async def step(self, store: Store) -> None:
        """Look at some queues; after the last one write down what all of them came to."""
        key = store.p + "queues"
        names = await store.wire.call(
            "ZRANGEBYLEX", key, self._after, "+", "LIMIT", 0, QUEUES_PER_STEP
        )
        await asyncio.gather(*(self._look(store, raw.decode()) for raw in names))
        if len(names) == QUEUES_PER_STEP:
            self._after = "(" + names[-1].decode()
            return
        rows = [[state, provider, at] for (state, provider), at in self._found.items()]
        await store.wire.call("SET", store.p + "oldest", pack(rows), "EX", _KEPT_S)
        self._after, self._found = "-", {}

    async def _look(self, store: Store, queue: str) -> None:
        ages = await store.oldest_of(queue)
        if not ages:
            return
        provider = await self._provider(store, queue)
        for state, at in ages.items():
            self._found[state, provider] = min(at, self._found.get((state, provider), at))

    async def _provider(self, store: Store, queue: str) -> str:
        wire, p = store.wire, store.p
        route = await wire.call("GET", p + "ro:" + queue.split("|", 3)[3])
        lane = unpack(route)["lane"] if route is not None else ""
        site = await wire.call("HGET", p + "ln:" + lane, "site") if lane else None
        return (self._provider_of(site) if site is not None else "") or OTHER
