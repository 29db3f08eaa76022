"""The bootstep that runs the delivery engine in a thread of the worker process.

Started after the pool, stopped before it: a warm shutdown drains the engine, then Celery goes.
"""

import asyncio
import os
import sys
import threading
from typing import Any

import structlog
import uvloop
from celery import bootsteps
from celery.exceptions import WorkerShutdown
from celery.worker import state

from relay.delivery.engine import Engine
from relay.model.errors import RelayError
from relay.settings.schema import Settings
from relay.store.connect import check_store

#: How long routing and handing over may take when the worker is told to end.
HAND_OVER_S = 5.0

_log = structlog.get_logger("relay.engine")


class EngineThread:
    """An engine on a loop of its own; `call` may be used from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._engine = Engine(settings, drain_s=settings.up.drain, on_mismatch=end_worker)
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._is_ending = False
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

    def start(self) -> None:
        """Run the engine; returns at once, the engine waits for Redis by itself."""
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._starting = self._loop.create_task(self._start(), name="engine-start")
        self._loop.run_forever()
        self._loop.close()

    async def _start(self) -> None:
        try:
            await self._engine.start()
        except Exception as error:
            # A worker without its engine would swallow wake-ups: end the process, aloud.
            end_worker(error)
            return
        self._ready.set()
        for verb in ("route", "deliver"):
            self._begin(verb)

    def call(self, verb: str) -> None:
        """Hand a wake-up over; one that comes while its kind is under way makes it run again."""
        if self._ready.is_set():
            self._loop.call_soon_threadsafe(self._begin, verb)

    def _begin(self, verb: str) -> None:
        if self._is_ending:
            return
        if verb == "deliver":
            self._engine.heed_wake_up()
        if verb in self._running:
            # It may be past the moment of looking: dropping this one could lose a wake-up.
            self._again.add(verb)
            return
        work = getattr(self._engine, verb)
        task = self._running[verb] = self._loop.create_task(work(), name=verb)
        task.add_done_callback(lambda done: self._ended(verb, done))

    def _ended(self, verb: str, task: "asyncio.Task[None]") -> None:
        del self._running[verb]
        if task.cancelled():
            return
        if task.exception() is not None:
            _log.error("engine.task_failed", verb=verb, exc_info=task.exception())
        if verb in self._again:
            self._again.discard(verb)
            self._begin(verb)

    def stop(self) -> None:
        """Drain and end the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _end(self) -> None:
        # What was handed out to us is not handed out to others for seconds: we finish it.
        self._is_ending = True
        if self._running:
            await asyncio.wait(self._running.values(), timeout=HAND_OVER_S)
        if self._ready.is_set():
            await self._engine.drain()
        else:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)


def end_worker(error: Exception) -> None:
    """Have Celery end this worker in good order, saying why; 78: waiting would heal nothing."""
    if isinstance(error, RelayError):
        print(f"relay: {error}", file=sys.stderr, flush=True)
        state.should_stop = os.EX_CONFIG
    else:
        _log.error("engine.not_started", exc_info=error)
        state.should_stop = os.EX_SOFTWARE


_running: list[EngineThread] = []


def running_engine() -> EngineThread:
    """The engine of this process; RuntimeError where the worker was started without its step."""
    if not _running:
        raise RuntimeError("the delivery engine is not running in this process")
    return _running[0]


class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Celery's documented extension point: one engine a worker process."""

    requires = frozenset({"celery.worker.components:Pool"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._thread: EngineThread | None = None

    def start(self, parent: Any) -> None:
        """Start the engine, unless the store is not for us: then nothing in it is touched."""
        settings: Settings = parent.app.relay_settings
        try:
            asyncio.run(check_store(settings.redis.url, str(settings.delivery.mode)))
        except RelayError as error:
            end_worker(error)
            raise WorkerShutdown(os.EX_CONFIG) from None
        self._thread = EngineThread(settings)
        _running[:] = [self._thread]
        self._thread.start()

    def stop(self, parent: Any) -> None:
        """Drain it."""
        if self._thread is not None:
            self._thread.stop()
        _running.clear()
