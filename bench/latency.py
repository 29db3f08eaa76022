"""Latencies: when a message was submitted, when the receiver accepted it."""

import statistics

from relay.sim.client import SinkClient


def quantile(samples: list[float], share: float) -> float:
    """The value below which this share of the samples lies."""
    return statistics.quantiles(samples, n=1000, method="inclusive")[round(share * 1000) - 1]


def shape(samples: list[float]) -> str:
    """Middle and tail in milliseconds."""
    return f"p50 {quantile(samples, 0.5):.1f} ms, p99 {quantile(samples, 0.99):.1f} ms"


class Watch:
    """What a simulated internet received, by recipient: `accepted()` adds what came since."""

    def __init__(self, sink: SinkClient, *, reverse_path: str = "") -> None:
        self._sink = sink
        self._reverse_path = reverse_path
        self._after = 0
        self.accepted_at: dict[str, float] = {}

    def look(self) -> None:
        """Take in the receipts since the last look."""
        for receipt in self._sink.receipts(
            after=self._after, reverse_path=self._reverse_path, limit=100_000
        ):
            self._after = max(self._after, receipt.number)
            for address in receipt.forward_paths:
                self.accepted_at.setdefault(address, receipt.time)
