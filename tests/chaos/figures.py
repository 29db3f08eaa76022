"""What scenarios measure beside what they assert."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from tests.support.ledger import submit_all
from tests.support.system import System


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so great a share of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class Samples:
    """A number read again and again while the block runs: `highest`, `mean`, all `values`."""

    def __init__(self, read: Callable[[], float], *, every_s: float = 0.1) -> None:
        self._read = read
        self._every_s = every_s
        self.values: list[float] = []

    @property
    def highest(self) -> float:
        return max(self.values, default=0)

    @property
    def mean(self) -> float:
        return sum(self.values) / max(len(self.values), 1)

    async def __aenter__(self) -> "Samples":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            self.values.append(await asyncio.to_thread(self._read))
            await asyncio.sleep(self._every_s)


def connections(system: System) -> Samples:
    """Connections that the simulated internet has open."""
    return Samples(lambda: system.sink.status()["connections"])


async def submit(system: System, addresses: Sequence[str]) -> None:
    """A message for each address, many at a time."""
    drafts = (system.draft([address]) for address in addresses)
    await submit_all(system, [system.submitter.prepare(draft).submission for draft in drafts])


async def delivered(system: System) -> int:
    """Recipients delivered so far."""
    counts = (await system.store.counters())["recipients"]
    return sum(count for (outcome, _), count in counts.items() if outcome == "delivered")


async def waits_in_queue(system: System, domain: str = "") -> list[float]:
    """Seconds from acceptance to delivery of each recipient, of one domain's suffix if given."""
    return [
        event.data["delays"]["in_queue"]
        for event in await system.events("recipient.delivered")
        if event.data["address"].endswith(domain)
    ]
