"""The account of a large run on both sides: each recipient ended once, each copy is explained."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec

from relay.model.message import Submission
from tests.support.system import RECEIPTS, System

FINAL = (
    "recipient.delivered",
    "recipient.failed",
    "recipient.expired",
    "recipient.cancelled",
    "recipient.held",
)
#: Submissions under way at one time.
AT_ONCE = 100


class Ledger(msgspec.Struct):
    """What is known after a run; recipients are named by queue-id and address."""

    accepted: int
    ends: dict[tuple[str, str], list[str]]
    copies: Counter[tuple[str, str]]
    uncertain: set[tuple[str, str]]
    duplicates: set[tuple[str, str]]

    @property
    def doubled(self) -> set[tuple[str, str]]:
        """Recipients that got their mail more than once."""
        return {name for name, copies in self.copies.items() if copies > 1}

    def __str__(self) -> str:
        ends = Counter(end for ends in self.ends.values() for end in ends)
        return (
            f"accepted {self.accepted}, ended {dict(ends)}, arrived {self.copies.total()} copies "
            f"for {len(self.copies)}, doubled {len(self.doubled)}, "
            f"uncertain {len(self.uncertain)}, duplicates {len(self.duplicates)}"
        )


async def submit_all(system: System, submissions: Sequence[Submission]) -> None:
    """Hand them all over, many at a time, each until the store has taken it."""
    waiting = iter(submissions)

    async def hand_over() -> None:
        for submission in waiting:
            await system.accept_again(submission)

    await asyncio.gather(*(hand_over() for _ in range(AT_ONCE)))


async def until_all_ended(system: System, *, within_s: float) -> None:
    """Wait until no recipient is on its way any more."""
    async with asyncio.timeout(within_s):
        while True:
            states = (await system.store.counters())["states"]
            if not any(states.get(name) for name in ("staged", "ready", "deferred", "claimed")):
                return
            await asyncio.sleep(0.2)


async def balance(system: System) -> Ledger:
    """Read the events of our side and the receipts of the other."""
    stream = await system.store.wire.call("XINFO", "STREAM", system.store.p + "events")
    known = dict(zip(stream[::2], stream[1::2], strict=True))
    assert known[b"length"] == known[b"entries-added"], "old events are gone: keep more"
    ledger = Ledger(0, {}, Counter(), set(), set())
    for event in await system.events():
        if event.type == "message.accepted":
            ledger.accepted += event.data["recipients"]
            continue
        if "recipient_id" not in event.data:
            continue
        name = (event.data["queue_id"], event.data["address"])
        if event.type in FINAL:
            ledger.ends.setdefault(name, []).append(event.type.removeprefix("recipient."))
        elif event.type == "recipient.uncertain":
            ledger.uncertain.add(name)
        elif event.type == "recipient.duplicate":
            ledger.duplicates.add(name)
    receipts = await asyncio.to_thread(system.sink.receipts, limit=RECEIPTS)
    assert len(receipts) < RECEIPTS, "old receipts are gone: keep more"
    for seen in receipts:
        queue_id = seen.message_id.strip("<>").partition("@")[0]
        ledger.copies.update((queue_id, path) for path in seen.forward_paths)
    return ledger
