"""`/metrics`: the counters that the store keeps, as Prometheus reads them.

The figures are the cluster's, not the process's: they are written by the same transition that
settles an attempt. Labels are bounded; there is none with a domain, an address or a campaign.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from relay import __version__
from relay.store.keys import CLASS_OF_LETTER

#: Prometheus name, help, labels, and the group of the store's counters.
_COUNTERS = (
    ("relay_messages_accepted", "Messages accepted.", ("ingress",), "messages"),
    ("relay_recipients_accepted", "Recipients accepted.", ("ingress", "class"), "accepted"),
    ("relay_recipients", "Recipients by outcome.", ("outcome", "provider"), "recipients"),
    ("relay_attempts", "Attempts by verdict.", ("verdict", "scope", "provider"), "attempts"),
    ("relay_leases_reclaimed", "Recipients taken back from dead workers.", (), "reclaimed"),
    ("relay_recipients_uncertain", "Recipients with an unknown last reply.", (), "uncertain"),
    ("relay_recipients_poisoned", "Recipients held for ending workers.", (), "poisoned"),
)


class Snapshot(Collector):
    """The store's counters of one moment."""

    def __init__(self, counters: dict[str, Any], now: float) -> None:
        self._counters = counters
        self._now = now

    def collect(self) -> Iterable[Metric]:
        """The metric families."""
        for name, text, labels, group in _COUNTERS:
            family = CounterMetricFamily(name, text, labels=labels)
            for values, number in self._counters.get(group, {}).items():
                named = [
                    CLASS_OF_LETTER.get(value, value) if label == "class" else value
                    for label, value in zip(labels, values, strict=True)
                ]
                family.add_metric(named, number)
            yield family
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "relay_queue_recipients", "Recipients by state now.", labels=["state"]
        )
        for state, number in self._counters["states"].items():
            states.add_metric([state], number)
        yield states
        oldest = self._counters.get("oldest")
        age = max(0.0, self._now - oldest) if oldest is not None else 0.0
        yield GaugeMetricFamily(
            "relay_queue_oldest_seconds", "Age of the oldest unfinished message.", value=age
        )
        for name, text in (
            ("workers", "Worker processes that hold a lease."),
            ("queues", "Queues with recipients."),
            ("unrouted", "Destinations that wait for their MX hosts."),
        ):
            yield GaugeMetricFamily(f"relay_{name}", text, value=self._counters[name])
        build = GaugeMetricFamily("relay_build_info", "The version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build


def exposition(counters: dict[str, Any]) -> tuple[bytes, str]:
    """The text for Prometheus and its media type."""
    registry = CollectorRegistry()
    registry.register(Snapshot(counters, time.time()))
    return generate_latest(registry), CONTENT_TYPE_LATEST
