"""The figures of all processes: each adds what it counted every few seconds; `/metrics` reads them.

Not written with each message: a process that is killed takes at most `REPORT_EVERY_S` of its
counts and timings along. What must be exact (accepted, delivered, failed, …) is counted by the
transitions themselves (`Views.counters`).
"""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec
import structlog

from relay.model.errors import StoreError
from relay.model.ids import new_queue_id
from relay.store.codec import pack_nested, unpack
from relay.store.queue import Store
from relay.telemetry.meter import Histogram, Labels, Meter, read_fields
from relay.telemetry.process import describe_process

REPORT_EVERY_S = 5.0
#: A process that has not reported for so long is gone.
LIVE_S = 30.0
_FIELDS_PER_CALL = 500

_log = structlog.get_logger("relay.meter")


class MeterReporter:
    """Reports what a meter counts; `run()` until cancelled, `report()` once more at the end."""

    def __init__(self, meter: Meter, role: str, store: Callable[[], Store]) -> None:
        self._meter = meter
        self._role = role
        self._store = store
        self._process = new_queue_id()
        self._number = 0
        self._unsent: list[tuple[int, dict[str, int]]] = []

    async def run(self) -> None:
        """Report every few seconds, through every absence of the store."""
        while True:
            await self.report()
            await asyncio.sleep(REPORT_EVERY_S)

    async def report(self) -> None:
        """Add what was counted; what could not be added is kept and sent again as it is."""
        if not self._unsent:
            self._take()
        try:
            while self._unsent:
                await self._send(*self._unsent[0])
                self._unsent.pop(0)
        except StoreError as error:
            _log.debug("meter.not_reported", detail=str(error))

    def _take(self) -> None:
        fields = iter(self._meter.drain().items())
        while True:
            part = dict(islice(fields, _FIELDS_PER_CALL))
            if not part and self._unsent:
                return
            self._number += 1
            self._unsent.append((self._number, part))

    async def _send(self, number: int, counts: dict[str, int]) -> None:
        gauges = [[name, label, now] for (name, label), now in self._meter.gauges.items()]
        info = {**describe_process(self._role), "gauges": gauges}
        request = {
            "process": self._process,
            "number": number,
            "live_ms": int(LIVE_S * 1000),
            "info": pack_nested(info),
            "counts": counts,
        }
        await self._store().scripts.call("meter", request)


class Figures(msgspec.Struct, frozen=True):
    """What all processes counted and timed, by family and labels, and the processes that live."""

    counts: dict[str, dict[Labels, int]]
    histograms: dict[str, dict[Labels, Histogram]]
    processes: list[dict[str, Any]]


async def read_figures(store: Store) -> Figures:
    """The sums of all processes since the store began."""
    flat = await store.wire.call("HGETALL", store.p + "metrics")
    pairs = zip(flat[::2], flat[1::2], strict=True)
    counts, histograms = read_fields({name.decode(): int(number) for name, number in pairs})
    now_ms = int(await store.now() * 1000)
    names = await store.wire.call("ZRANGEBYSCORE", store.p + "processes", now_ms, "+inf")
    infos = [
        await store.wire.call("HGET", f"{store.p}proc:{name.decode()}", "info") for name in names
    ]
    return Figures(counts, histograms, [unpack(info) for info in infos if info is not None])
