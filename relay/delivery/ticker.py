"""Lets time pass in the store: due mail, dead incarnations, deadlines, half-made commits.

Every engine runs one; a short lock in Redis lets one act at a time.
"""

import asyncio

import structlog

from relay.delivery.context import Context
from relay.delivery.deadlines import do_what_is_due
from relay.model.errors import ScriptMismatch, StoreError, StoreUnavailable
from relay.store.deadlines import Deadlines
from relay.store.work import Ticked

BUSY_EVERY_S = 0.1
IDLE_EVERY_S = 1.0
STANDBY_EVERY_S = 0.5

_log = structlog.get_logger("relay.ticker")


class Ticker:
    """`run()` until cancelled; `hurry()` makes the next tick come at once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._deadlines = Deadlines(context.work.store)
        self._settings = context.directory.settings
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Do not sleep: something happened."""
        self._hurry.set()

    async def run(self) -> None:
        """Tick until cancelled, through every absence of Redis."""
        while True:
            pause_s = STANDBY_EVERY_S
            try:
                ticked = await self._tick()
                for queue_id in ticked.due:
                    await do_what_is_due(self._deadlines, queue_id, self._context.directory)
                for queue_id in ticked.committing:
                    await self._context.work.store.commit(queue_id)
                pause_s = self._pause_s(ticked)
            except (StoreUnavailable, ScriptMismatch):
                pass  # the lease's keeper says so
            except StoreError as error:
                _log.error("ticker.failed", detail=str(error))
            except Exception:  # out of memory, say: the next tick may have it
                _log.exception("ticker.failed")
            self._hurry.clear()
            try:
                async with asyncio.timeout(pause_s):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def _tick(self) -> Ticked:
        worker = self._settings.worker
        return await self._context.work.tick(
            pools=tuple(worker.pools),
            uncertain=self._context.uncertain_policies,
            keep_events=self._settings.events.keep,
        )

    def _pause_s(self, ticked: Ticked) -> float:
        if not ticked.acting:
            return STANDBY_EVERY_S
        if ticked.worked or ticked.due:
            return BUSY_EVERY_S
        if ticked.next_timer:
            until_timer = ticked.next_timer - self._context.work.store.clock.now()
            return min(max(until_timer, 0.01), IDLE_EVERY_S)
        return IDLE_EVERY_S
