"""A worker's road in steps, each one call to the store: it can be left after any of them.

It looks only where a worker looks: at what is unrouted and at what is wanting. What it delivers is
in `sent`, as a receiver would count it.
"""

from collections import Counter
from collections.abc import AsyncGenerator

from relay.model.state import State
from relay.store.claims import Claim
from relay.store.limits import Ceilings
from relay.store.queue import Store
from relay.store.work import Work
from tests.store.mail import claimed_ids, lane_of, outcomes_of, settle, shift, tick, worker


class Road:
    """One worker; `sent` may be shared by several."""

    def __init__(self, work: Work, sent: Counter[str]) -> None:
        self.work = work
        self.sent = sent

    def lane_for(self, destination: str) -> str:
        """Every destination has a site of its own."""
        return lane_of(destination)

    async def steps(self) -> AsyncGenerator[str, None]:
        """One round of work, a name after each call."""
        work = self.work
        for destination in await work.unrouted(50):
            yield "handed out destinations"
            await work.routed(destination, self.lane_for(destination), b"site", fresh_s=10_000)
            yield "routed"
        for lane in await work.wanting("default", 50):
            yield "handed out lanes"
            async for step in self._serve(lane):
                yield step

    async def _serve(self, lane: str) -> AsyncGenerator[str, None]:
        work, token = self.work, self.work.new_token()
        ceilings = Ceilings(slots=(("all", 1000),), breakers=("site:" + lane,))
        taken = await work.take(lane, token, ceilings)
        yield "took"
        if taken.word != "ok":
            return
        while True:
            claim = await work.claim(lane, limit=2, octets=1 << 20)
            yield "claimed"
            if not claim.messages and not claim.backlog:
                break
            async for step in self._send(claim):
                yield step
        await work.release(lane, token, ceilings)
        yield "released"

    async def _send(self, claim: Claim) -> AsyncGenerator[str, None]:
        marks = [
            f"{message.queue_id}.{item.number}:{item.attempt}"
            for message in claim.messages
            for item in message.recipients
        ]
        await self.work.store.scripts.call("mark", {"holder": self.work.holder, "marks": marks})
        yield "marked"
        self.sent.update(claimed_ids(claim))
        yield "sent"
        await settle(self.work, outcomes_of(claim, State.DELIVERED))
        yield "settled"

    async def walk(self) -> int:
        """One whole round; how many steps it had."""
        return len([step async for step in self.steps()])


async def drain(store: Store, sent: Counter[str], *, rounds: int = 60) -> None:
    """Let time pass and a worker work until no recipient is left on its way.

    What is staged or held stays; AssertionError where mail is forgotten.
    """
    work = await worker(store)
    road = Road(work, sent)
    for _ in range(rounds):
        await work.begin()
        await tick(work)
        while await road.walk():
            pass
        counts = (await store.counters())["states"]
        if not any(counts.get(word, 0) for word in ("ready", "deferred", "claimed")):
            return
        await shift(store, 1000)
    raise AssertionError(f"mail is forgotten: {counts}")
