"""The delivery engine of a worker process: sessions, settler, ticker and lease on one loop.

Tasks only hand names over (`offer_lanes`, `offer_destinations`); losing a task or running it twice
does no harm. `drain` finishes the transactions under way and commits their outcomes.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable

import structlog

from relay.delivery.attempt import serve
from relay.delivery.context import Context
from relay.delivery.directory import load_directory
from relay.delivery.keeper import LeaseKeeper
from relay.delivery.lanes import Lanes
from relay.delivery.route_finder import RouteFinder
from relay.delivery.routing import doubt_of_name, provider_of
from relay.delivery.ticker import Ticker
from relay.model.errors import ScriptMismatch, StoreError, StoreUnavailable
from relay.net.resolver import Resolver
from relay.settings.schema import Settings
from relay.store.ages import AgeSweep
from relay.store.dns_cache import RedisDnsCache
from relay.store.limits import Taken
from relay.store.meters import MeterReporter
from relay.store.queue import Store, copies_of
from relay.store.settler import Settler
from relay.store.work import Work

#: Lanes and destinations handed over at once.
HAND_OVER = 50
#: After work came the engine looks for more so often, for so long.
LOOK_EVERY_S = 0.003
ATTEND_S = 0.02
#: A look that comes so late shows a loop that has enough to do.
LATE_S = 0.015
#: A wake-up that finds no room goes to another worker after this, so that it does not go round and
#: round where all are full.
PASS_ON_S = 0.05
#: A store that is absent is asked for again after this, twice that, … at most this.
_RECONNECT_S, _RECONNECT_MAX_S = 0.25, 5.0
_GIVE_UP_S = 1.0
#: Shares of a lease (15 s).
RECONCILE_EVERY = 2 / 15
LOOK_AT_LEASE = 1 / 30
LAST_REPORT_S = 1.0

_log = structlog.get_logger("relay.engine")


class Engine:
    """Everything of one process that delivers; all methods run on its loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        drain_s: float,
        on_mismatch: Callable[[ScriptMismatch], None],
    ) -> None:
        """`on_mismatch` is called when another version of relay takes the store over."""
        self.settings = settings
        self._on_mismatch = on_mismatch
        self._drain_s = drain_s
        self._tasks: list[asyncio.Task[None]] = []
        self._lanes = Lanes(settings.worker, self._serve)
        self._passing_on: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the store (waiting for it), take a lease and begin to tick."""
        assert self.settings.delivery.mode is not None
        mode = self.settings.delivery.mode.value
        self._store = await self._connect(mode)
        await self._store.now()
        cache = RedisDnsCache(self._store)
        self._resolver = Resolver.from_settings(self.settings, cache, meter=self._store.meter)
        self._reporter = MeterReporter(self._store.meter, "worker", lambda: self._store)
        info = {"pid": os.getpid(), "pools": list(self.settings.worker.pools)}
        work = Work(self._store, lease_s=self.settings.worker.lease, info=info)
        self._keeper = LeaseKeeper(
            self.settings.redis.url,
            work,
            on_revoked=self._revoke,
            on_lost=self._retreat,
            on_mismatch=self._give_up,
        )
        self._settler = Settler(work, on_fenced=self._keeper.doubt)
        directory = load_directory(self.settings, self._resolver, cache)
        self._context = Context(directory, work, self._settler, self._keeper, self._lanes)
        self._ticker = Ticker(self._context)
        self._finder = RouteFinder(self._context)
        self._settler.start()
        await self._keeper.start()
        self._tasks = [
            asyncio.create_task(self._ticker.run(), name="ticker"),
            asyncio.create_task(self._show_life(), name="pulse"),
            asyncio.create_task(self._watch_lease(), name="lease-watch"),
            asyncio.create_task(self._reconcile(), name="reconcile"),
            asyncio.create_task(self._reporter.run(), name="meter"),
            asyncio.create_task(AgeSweep(lambda: self._store, provider_of).run(), name="ages"),
        ]
        if directory.signer is not None:
            self._tasks.append(asyncio.create_task(directory.signer.watch(), name="dkim"))
        if (results := self._context.tls_results) is not None:
            self._tasks.append(asyncio.create_task(results.run(), name="tls-reports"))
        if self._resolver.lacks_dnssec:
            text = "no resolver is on loopback, and dns.trust_ad is off: there is no DANE"
            _log.warning("engine.dns_not_trusted", text=text)
        if doubt := doubt_of_name(self.settings):
            _log.warning("engine.name_not_public", text=doubt)
        _log.info("engine.started", mode=mode, incarnation=work.holder, **info)

    async def _connect(self, mode: str) -> Store:
        pause_s = _RECONNECT_S
        while True:
            try:
                return await Store.connect(
                    self.settings.redis.url,
                    mode,
                    client_name="relay-worker",
                    copies=copies_of(self.settings.redis),
                )
            except StoreUnavailable as error:
                _log.warning("store.unavailable", detail=str(error), again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RECONNECT_MAX_S)

    async def _serve(self, lane: str) -> Taken:
        return await serve(lane, self._context)

    def _revoke(self, recipient_ids: list[str]) -> None:
        self._context.revoked.update(recipient_ids)

    def _give_up(self, error: ScriptMismatch) -> None:
        """Nothing more can be recorded: what is on its way is left to the store's new owner."""
        self._drain_s = _GIVE_UP_S
        self._on_mismatch(error)

    async def _show_life(self) -> None:
        while True:
            self._keeper.saw_loop()
            await asyncio.sleep(1.0)

    async def _watch_lease(self) -> None:
        """End sessions before their slots are given to others."""
        while True:
            await asyncio.sleep(LOOK_AT_LEASE * self.settings.worker.lease)
            if self._context.is_losing_lease:
                self._retreat()

    def _retreat(self) -> None:
        """End sessions whose slots are others' now, or are about to be."""
        if ended := self._lanes.retreat():
            _log.warning("lease.sessions_ended", sessions=ended)

    async def _reconcile(self) -> None:
        """Give back what replies that were lost with a connection left on our account."""
        context = self._context
        while True:
            await asyncio.sleep(RECONCILE_EVERY * self.settings.worker.lease)
            try:
                given_back = await context.work.reconcile(context.uncertain_policies)
            except StoreError:
                continue
            except Exception:
                _log.exception("holdings.failed")
                continue
            if given_back:
                _log.info("holdings.given_back", count=given_back)

    # -- work that tasks announce ------------------------------------------------------------

    def heed_wake_up(self) -> None:
        """A wake-up came: where there is no room for what it announces, it is passed on."""
        if self._lanes.places <= 0 and (self._passing_on is None or self._passing_on.done()):
            self._passing_on = asyncio.create_task(self._pass_on(), name="pass-on")

    async def _pass_on(self) -> None:
        await asyncio.sleep(PASS_ON_S)
        if self._lanes.places <= 0 and not self._lanes.is_draining:
            with contextlib.suppress(StoreError):
                for pool in self.settings.worker.pools:
                    await self._context.work.pass_on(pool)

    async def deliver(self) -> None:
        """Take up lanes that want a session, as far as there is room, until they cease to come."""
        await asyncio.gather(*map(self._attend, self.settings.worker.pools))

    async def _attend(self, pool: str) -> None:
        """While lanes keep coming we look by ourselves: a task for each of them would cost more."""
        try:
            found_at, late = time.monotonic(), False
            while (found := await self._take_up(pool, stays=True, late=late)) is not None:
                now = time.monotonic()
                if found:
                    found_at = now
                elif now - found_at > ATTEND_S:
                    break
                await asyncio.sleep(LOOK_EVERY_S)
                late = time.monotonic() - now > LATE_S
            # From here on a wake-up is pushed again: what came before that is seen now.
            await self._take_up(pool, stays=False)
        except StoreError as error:
            _log.warning("deliver.store_unavailable", detail=str(error))

    async def _take_up(self, pool: str, *, stays: bool, late: bool = False) -> int | None:
        """Lanes taken up; None where there is no room for more."""
        taken_up = 0
        while await self._lanes.make_room():
            limit = min(HAND_OVER, self._lanes.places)
            names = await self._context.work.wanting(pool, limit, stays=stays, late=late)
            await self._offer(pool, names)
            taken_up += len(names)
            if len(names) < limit:
                return taken_up
            if self._lanes.room <= 0:
                break
        # What is left waits for others, too.
        await self._context.work.wanting(pool, 0)
        return taken_up if await self._lanes.make_room() else None

    async def _offer(self, pool: str, names: Iterable[str]) -> None:
        refused = [lane for lane in names if not self._lanes.offer(lane)]
        if refused:
            self._lanes.give_way(len(refused))
            await self._context.work.put_back(pool, refused)

    async def route(self) -> None:
        """Look up the destinations whose route is asked for."""
        try:
            await self._finder.find_all()
        except StoreError as error:
            _log.warning("route.store_unavailable", detail=str(error))

    # -- the end -----------------------------------------------------------------------------

    async def drain(self) -> None:
        """Finish what is on the wire, settle it, and give the rest back."""
        await self._finder.stop()
        await self._lanes.drain(within_s=self._drain_s)
        settled = await self._settler.stop(within_s=self._drain_s)
        if self._passing_on is not None:
            self._tasks.append(self._passing_on)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError, StoreError):
            if (results := self._context.tls_results) is not None:
                await asyncio.wait_for(results.flush(), LAST_REPORT_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reporter.report(), LAST_REPORT_S)
        await self._keeper.stop()
        if self._context.directory.sts is not None:
            await self._context.directory.sts.aclose()
        await self._resolver.aclose()
        if (signer := self._context.directory.signer) is not None:
            signer.close()
        await self._store.close()
        _log.info("engine.stopped", settled=settled)
