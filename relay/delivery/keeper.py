"""Keeps the incarnation's lease alive from a thread of its own.

A loop that is busy must not lose its lease, and one that hangs must not keep it: the thread stops
renewing when the engine's loop has not ticked for `HANGS_S`.
"""

import asyncio
import threading
import time
from collections.abc import Callable

import structlog

from relay.model.errors import LeaseLost, RelayError, ScriptMismatch
from relay.store.clock import steady_s
from relay.store.queue import Store
from relay.store.wire import Wire
from relay.store.work import Work

#: Shares of a lease (15 s): how often it is renewed, how long an answer to that is waited for.
RENEW_EVERY = 0.2
ANSWER_WITHIN = 1 / 3
RETRY_EVERY_S = 0.5
HANGS_S = 60.0

_log = structlog.get_logger("relay.lease")


class LeaseKeeper:
    """Begins, renews and ends the lease of `work`.

    Tells the loop which recipients were revoked, that the lease was lost with all that hung on it,
    and that another version took the store over.
    """

    def __init__(
        self,
        url: str,
        work: Work,
        *,
        on_revoked: Callable[[list[str]], None],
        on_lost: Callable[[], None],
        on_mismatch: Callable[[ScriptMismatch], None],
    ) -> None:
        self._url = url
        self._work = work
        self._on_revoked = on_revoked
        self._on_lost = on_lost
        self._on_mismatch = on_mismatch
        self._engine_loop = asyncio.get_running_loop()
        self._loop_seen = time.monotonic()
        self._renewed_at = float("-inf")
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._main, name="lease", daemon=True)

    @property
    def age_s(self) -> float:
        """Seconds since the last renewal that Redis confirmed was asked for."""
        return steady_s() - self._renewed_at

    async def start(self) -> None:
        """Begin the lease; returns when Redis has it."""
        self._thread.start()
        while not self._begun.is_set():
            self.saw_loop()
            await asyncio.sleep(0.02)

    def saw_loop(self) -> None:
        """Called by the engine's loop again and again: it is alive."""
        self._loop_seen = time.monotonic()

    def doubt(self) -> None:
        """Others have what we held, whatever our clock says: ask for the lease before any dot."""
        self._renewed_at = float("-inf")
        self._hurry.set()

    async def stop(self) -> None:
        """End the lease; what is still held returns at once."""
        self._stop.set()
        self._hurry.set()
        await asyncio.to_thread(self._thread.join, 10.0)

    def _main(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        store: Store | None = None
        while not self._stop.is_set():
            pause_s = RETRY_EVERY_S
            try:
                if store is None:
                    store = await self._connect()
                if time.monotonic() - self._loop_seen < HANGS_S:
                    await self._renew(store)
                    pause_s = RENEW_EVERY * self._work.lease_s
                else:
                    _log.error("lease.withheld", text="the engine's loop hangs")
            except ScriptMismatch as error:
                self._engine_loop.call_soon_threadsafe(self._on_mismatch, error)
                await asyncio.to_thread(self._stop.wait)
                break
            except RelayError as error:
                _log.warning("lease.not_renewed", detail=str(error))
            except Exception:  # out of memory, say: without a lease this worker would be no use
                _log.exception("lease.not_renewed")
            await asyncio.to_thread(self._hurry.wait, pause_s)
            self._hurry.clear()
        if store is not None:
            await self._end(store)

    async def _connect(self) -> Store:
        within_s = ANSWER_WITHIN * self._work.lease_s
        wire = Wire(self._url, client_name="relay-lease", reply_deadline_s=within_s)
        return await Store.open(wire, self._work.store.mode)

    async def _renew(self, store: Store) -> None:
        work, began = self._work, steady_s()
        try:
            if not self._begun.is_set():
                await work.begin(store)
                self._begun.set()
            revoked = await work.renew(store)
        except LeaseLost:
            _log.warning("lease.lost", incarnation=work.holder)
            self._engine_loop.call_soon_threadsafe(self._on_lost)
            await work.begin(store)
            revoked = []
        # The moment of asking counts, not that of the answer.
        self._renewed_at = began
        if revoked:
            self._engine_loop.call_soon_threadsafe(self._on_revoked, revoked)

    async def _end(self, store: Store) -> None:
        try:
            if self._begun.is_set():
                await self._work.end(store)
        except RelayError as error:
            _log.warning("lease.not_ended", detail=str(error))
        await store.close()
