"""Mail that comes all the time while something is broken."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.chaos.figures import submit
from tests.support.ledger import Ledger
from tests.support.system import System

DOMAINS = 100
#: So many messages come together, so often: a few hundred a second.
_TOGETHER, _EVERY_S = 10, 0.04


class Traffic:
    """`taken`: the addresses that mail was accepted for, one message each."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.taken: list[str] = []

    async def run(self) -> None:
        """Submit until cancelled; what has begun is finished."""
        while True:
            first = len(self.taken)
            addresses = [
                f"r{number}@slowdot100ms.domain{number % DOMAINS}.test"
                for number in range(first, first + _TOGETHER)
            ]
            submitting = asyncio.ensure_future(submit(self._system, addresses))
            try:
                await asyncio.shield(submitting)
            finally:
                await submitting
                self.taken += addresses
            await asyncio.sleep(_EVERY_S)

    def check(self, ledger: Ledger) -> None:
        """AssertionError unless all of it arrived and ended once, each copy too many reported."""
        arrived = {path for _, path in ledger.copies}
        assert arrived == set(self.taken)
        assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
        assert ledger.accepted == len(ledger.ends) == len(self.taken)
        hidden = ledger.doubled - ledger.uncertain - ledger.duplicates
        assert not hidden, sorted(hidden)[:10]


@contextlib.asynccontextmanager
async def traffic(system: System) -> AsyncIterator[Traffic]:
    """Mail comes as long as the block runs."""
    one = Traffic(system)
    task = asyncio.create_task(one.run())
    try:
        yield one
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
