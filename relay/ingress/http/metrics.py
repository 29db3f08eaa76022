"""`/metrics`: the figures of all processes, as Prometheus reads them.

They are the cluster's, not this process's. What must be exact is counted by the transition that
settles an attempt; timings, replies and the like are added by each process every few seconds.
Labels are bounded; there is none with a domain, an address or a campaign.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from relay import __version__
from relay.store.keys import CLASS_OF_LETTER
from relay.store.meters import Figures, read_figures
from relay.store.queue import Store
from relay.telemetry.meter import FAMILIES, Histogram

#: Prometheus name, help, labels, and the group of the store's counters.
_COUNTERS = (
    ("relay_messages_accepted", "Messages accepted.", ("ingress",), "messages"),
    ("relay_recipients_accepted", "Recipients accepted.", ("ingress", "class"), "accepted"),
    ("relay_recipients", "Recipients by outcome.", ("outcome", "provider"), "recipients"),
    ("relay_attempts", "Attempts by verdict.", ("verdict", "scope", "provider"), "attempts"),
    ("relay_leases_reclaimed", "Recipients taken back from dead workers.", (), "reclaimed"),
    ("relay_recipients_uncertain", "Recipients with an unknown last reply.", (), "uncertain"),
    ("relay_recipients_duplicate", "Deliveries known to be one too many.", (), "duplicates"),
    ("relay_recipients_poisoned", "Recipients held because they ended workers.", (), "poisoned"),
    (
        "relay_suppressed",
        "Recipients on the suppression list, not mailed.",
        ("reason",),
        "suppressed",
    ),
    (
        "relay_suppressions_lost",
        "Entries that the full list did not take.",
        (),
        "suppressions_lost",
    ),
    ("relay_reports_suppressed", "Reports (DSNs) over the limit.", (), "reports_suppressed"),
)
_GAUGES = (
    ("workers", "Worker processes that hold a lease."),
    ("queues", "Queues with recipients."),
    ("unrouted", "Destinations that wait for their MX hosts."),
    ("events", "Events kept for readers."),
)
#: Prometheus name, help, and the field of Redis' INFO.
_REDIS = (
    ("memory_used_bytes", "Memory that Redis uses.", "used_memory"),
    ("memory_max_bytes", "Memory that Redis may use.", "maxmemory"),
    ("clients", "Connections to Redis.", "connected_clients"),
    ("aof_size_bytes", "Size of Redis' append-only file.", "aof_current_size"),
    ("commands_per_second", "Commands that Redis carries out.", "instantaneous_ops_per_sec"),
)
_PROCESS = (
    ("resident_memory_bytes", "Memory of a process.", "rss"),
    ("start_time_seconds", "When a process began.", "since"),
    ("open_fds", "Files and sockets that a process has open.", "open_files"),
)
_PROCESS_LABELS = ("role", "host", "pid")


class Snapshot(msgspec.Struct, frozen=True):
    """All figures of one moment; `now` in epoch seconds."""

    counters: dict[str, Any]
    figures: Figures
    ages: dict[tuple[str, str], float]
    server: dict[str, str]
    now: float


async def take_snapshot(store: Store) -> Snapshot:
    """Read the figures; a few commands, however much is queued."""
    counters, figures, ages, server = await asyncio.gather(
        store.counters(), read_figures(store), store.ages(), store.server()
    )
    return Snapshot(counters, figures, ages, server, time.time())


class Families(Collector):
    """A snapshot as metric families."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """The metric families."""
        counters = self._snapshot.counters
        for name, text, labels, group in _COUNTERS:
            yield _counter(name, text, labels, counters.get(group, {}))
        figures = self._snapshot.figures
        for key, family in FAMILIES.items():
            if family.bounds:
                yield _histogram(key, figures.histograms.get(key, {}))
            else:
                rows = figures.counts.get(key, {})
                yield _counter(family.metric, family.text, family.labels, rows)
        yield from self._queue()
        yield from self._redis()
        yield from self._processes()
        build = GaugeMetricFamily("relay_build_info", "The version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build

    def _queue(self) -> Iterator[Metric]:
        counters, now = self._snapshot.counters, self._snapshot.now
        states = GaugeMetricFamily(
            "relay_queue_recipients", "Recipients by state now.", labels=["state"]
        )
        for state, number in counters["states"].items():
            states.add_metric([state], number)
        yield states
        oldest = GaugeMetricFamily(
            "relay_queue_oldest_seconds",
            "Age of the oldest recipient that waits.",
            labels=["state", "provider"],
        )
        for (state, provider), at in self._snapshot.ages.items():
            if counters["states"].get(state):
                oldest.add_metric([state, provider], max(0.0, now - at))
        yield oldest
        for name, text in _GAUGES:
            yield GaugeMetricFamily(f"relay_{name}", text, value=counters[name])

    def _redis(self) -> Iterator[Metric]:
        server = self._snapshot.server
        for name, text, field in _REDIS:
            value = float(server.get(field, 0))
            yield GaugeMetricFamily(f"relay_redis_{name}", text, value=value)
        writes = server.get("aof_last_write_status") == "ok"
        text = "Whether Redis' last write to disk went well."
        yield GaugeMetricFamily("relay_redis_aof_ok", text, value=int(writes))
        text = "Whether the store refuses new mail."
        yield GaugeMetricFamily("relay_store_full", text, value=self._snapshot.counters["is_full"])

    def _processes(self) -> Iterator[Metric]:
        processes = self._snapshot.figures.processes
        cpu = CounterMetricFamily(
            "relay_process_cpu_seconds", "CPU time of a process.", labels=_PROCESS_LABELS
        )
        gauges = {
            field: GaugeMetricFamily(f"relay_process_{name}", text, labels=_PROCESS_LABELS)
            for name, text, field in _PROCESS
        }
        connections: dict[str, int] = {}
        for process in processes:
            labels = [str(process[label]) for label in _PROCESS_LABELS]
            cpu.add_metric(labels, process["cpu_s"])
            for field, family in gauges.items():
                family.add_metric(labels, process[field])
            for name, provider, number in process["gauges"]:
                if name == "connections":
                    connections[provider] = connections.get(provider, 0) + number
        yield cpu
        yield from gauges.values()
        now_open = GaugeMetricFamily(
            "relay_connections", "SMTP sessions open now.", labels=["provider"]
        )
        for provider, number in connections.items():
            now_open.add_metric([provider], number)
        yield now_open


def _counter(
    name: str, text: str, labels: tuple[str, ...], rows: Mapping[tuple[str, ...], int]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    # What can be counted without a label is there from the beginning, so that a rise is seen.
    for values, number in (rows or ({} if labels else {(): 0})).items():
        named = [
            CLASS_OF_LETTER.get(value, value) if label == "class" else value
            for label, value in zip(labels, values, strict=True)
        ]
        family.add_metric(named, number)
    return family


def _histogram(key: str, rows: Mapping[tuple[str, ...], Histogram]) -> Metric:
    declared = FAMILIES[key]
    family = HistogramMetricFamily(declared.metric, declared.text, labels=declared.labels)
    bounds = [*(f"{bound:g}" for bound in declared.bounds), "+Inf"]
    for values, histogram in rows.items():
        buckets = list(zip(bounds, accumulate(histogram.buckets), strict=True))
        family.add_metric(list(values), buckets, sum_value=histogram.sum_s)
    return family


def exposition(snapshot: Snapshot) -> tuple[bytes, str]:
    """The text for Prometheus and its media type."""
    registry = CollectorRegistry()
    registry.register(Families(snapshot))
    return generate_latest(registry), CONTENT_TYPE_LATEST
