"""F17: what a tick, a page or a message costs does not depend on how much is queued.

Counted are the commands that Redis carries out, inside scripts too, and the octets that it answers:
both are the same on every machine. Its microseconds are told beside them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from relay.model.state import State
from relay.store.queue import Store
from relay.store.views import MessageFilter, QueueMatch
from relay.store.work import Work
from tests.store import mail
from tests.support.redis_server import RedisServer

#: Names among which Zipf chooses the recipients' domains.
DOMAINS = 20_000
SITES = 500
PER_MESSAGE = 20
#: Deferred mail is due again after so long: nothing of it while costs are counted.
LATER_S = (3600.0, 86400.0)
#: Recipients of a domain of its own that come due at once.
DUE = 100
KEEP_EVENTS = 10_000
_NOT_COUNTED = ("config|resetstat", "info")


class Cost(msgspec.Struct, frozen=True):
    """What one operation cost Redis."""

    commands: int
    octets: int
    microseconds: int


class Backlog(msgspec.Struct, frozen=True):
    """So many recipients are deferred; what each operation cost then."""

    recipients: int
    queues: int
    memory_octets: int
    costs: dict[str, Cost]


class Size(msgspec.Struct, frozen=True):
    """Deferred recipients: few, and many."""

    small: int
    large: int


SHORT = Size(small=3_000, large=15_000)
LONG = Size(small=5_000, large=1_000_000)


async def run(folder: Path, size: Size) -> str:
    """Count with few and with many deferred recipients, each in a Redis of its own; the figures."""
    small = await _in_new_store(folder / "small", size.small)
    large = await _in_new_store(folder / "large", size.large)
    assert_flat(small, large)
    return table(small, large)


async def _in_new_store(folder: Path, recipients: int) -> Backlog:
    redis = RedisServer(folder, max_memory="4gb", options=("--appendonly", "no"))
    redis.start()
    try:
        store = await Store.connect(redis.url, "sink", client_name="backlog")
        try:
            return await measure(store, recipients)
        finally:
            await store.close()
    finally:
        redis.stop()


async def measure(store: Store, recipients: int) -> Backlog:
    """Fill an empty store with deferred mail, sizes of domains by Zipf, and count."""
    work = await mail.worker(store, lease_s=100_000.0)
    await fill(store, work, recipients)
    counters = await store.counters()
    assert counters["states"]["deferred"] == recipients
    assert counters["queues"] >= 1000
    memory = await _info(store, "memory")
    costs = {name: await cost(store, act) for name, act in operations(store, work).items()}
    costs["tick with 100 due"] = await cost_of_due(store, work)
    return Backlog(recipients, counters["queues"], int(memory["used_memory"]), costs)


async def fill(store: Store, work: Work, recipients: int) -> None:
    """Accept, route, claim and defer, as life does it."""
    random = Random(17)
    for start in range(0, recipients, 20_000):
        count = min(20_000, recipients - start)
        addresses = [
            f"reader{number}@d{int(DOMAINS ** random.random())}.example.test"
            for number in range(start, start + count)
        ]
        messages = [
            mail.submission(*addresses[at : at + PER_MESSAGE], mail_class="bulk")
            for at in range(0, count, PER_MESSAGE)
        ]
        for at in range(0, len(messages), 50):
            await asyncio.gather(*map(store.accept, messages[at : at + 50]))
        await route_all(work)
        await defer_all(work, lambda: random.uniform(*LATER_S))
        await tick(work)


async def route_all(work: Work) -> None:
    """Give every destination that asks for it its lane."""
    while names := await work.unrouted(500):
        lanes = {name: mail.lane_of(f"site{hash_of(name) % SITES}.test") for name in names}
        await asyncio.gather(
            *(work.routed(name, lane, b"", fresh_s=1e6) for name, lane in lanes.items())
        )


def hash_of(name: str) -> int:
    """The same in every run, unlike `hash`."""
    return sum(map(ord, name)) * 31 + len(name)


async def defer_all(work: Work, delay_s: Callable[[], float]) -> None:
    """Claim all that is ready and settle it as deferred."""
    while lanes := await work.wanting("default", 500):
        await asyncio.gather(*(_defer_lane(work, lane, delay_s) for lane in lanes))


async def _defer_lane(work: Work, lane: str, delay_s: Callable[[], float]) -> None:
    while True:
        claim = await work.claim(lane, limit=50, octets=1 << 20)
        if not claim.messages:
            return
        outcomes = mail.outcomes_of(claim, State.DEFERRED, delay_s=delay_s())
        await mail.settle(work, outcomes)
        for outcome in outcomes:
            rid = f"{outcome.queue_id}.{outcome.number}"
            work.holdings.settled(rid, outcome.attempt)


async def tick(work: Work) -> int:
    """One tick; how much it moved."""
    ticked = await work.tick(
        pools=("default",), uncertain=mail.NO_UNCERTAINTY, keep_events=KEEP_EVENTS
    )
    return ticked.worked


def operations(store: Store, work: Work) -> dict[str, Callable[[], Awaitable[Any]]]:
    """What is done over and over, by name."""
    return {
        "tick, nothing due": lambda: tick(work),
        "accept": lambda: store.accept(mail.submission("ann@fresh.example.test")),
        "route, claim, defer": lambda: _one_round(work),
        "status page": store.counters,
        "queues page (50)": lambda: store.queues(QueueMatch(), limit=50),
        "queues page (1,000)": lambda: store.queues(QueueMatch(), limit=1000),
        "queues of a domain": lambda: store.queues(QueueMatch(destination="fresh.example.test")),
        "messages page (50)": lambda: store.messages(MessageFilter(), limit=50),
        "messages, none fits": lambda: store.messages(MessageFilter(campaign="none"), limit=50),
        "suspensions": store.suspensions,
        "events": lambda: store.latest_events(100),
    }


async def _one_round(work: Work) -> None:
    await route_all(work)
    await defer_all(work, lambda: LATER_S[1])


async def cost_of_due(store: Store, work: Work) -> Cost:
    """A tick that finds some recipients due, all of one domain, among all the others."""
    addresses = [f"reader{number}@due.example.test" for number in range(DUE)]
    await store.accept(mail.submission(*addresses))
    await route_all(work)
    await defer_all(work, lambda: 30.0)
    await mail.shift(store, 31.0)
    moved = list[int]()

    async def act() -> None:
        moved.append(await tick(work))

    counted = await cost(store, act)
    assert (await store.counters())["states"]["ready"] == DUE
    await defer_all(work, lambda: LATER_S[1])
    return counted


async def cost(store: Store, act: Callable[[], Awaitable[Any]]) -> Cost:
    """What Redis does while `act` runs."""
    await store.wire.call("CONFIG", "RESETSTAT")
    await act()
    commands = await _info(store, "commandstats")
    stats = await _info(store, "stats")
    calls, microseconds = dict[str, int](), dict[str, int]()
    for key, said in commands.items():
        name = key.removeprefix("cmdstat_")
        if name not in _NOT_COUNTED:
            fields = dict(item.split("=") for item in said.split(","))
            calls[name], microseconds[name] = int(fields["calls"]), int(fields["usec"])
    # A script's time has that of its commands in it.
    spent = microseconds.get("fcall") or sum(microseconds.values())
    return Cost(sum(calls.values()), int(stats["total_net_output_bytes"]), spent)


async def _info(store: Store, section: str) -> dict[str, str]:
    text = (await store.wire.call("INFO", section)).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def table(small: Backlog, large: Backlog) -> str:
    """The figures side by side."""
    lines = [
        f"F17  {large.recipients:,} recipients deferred in {large.queues:,} queues "
        f"({large.memory_octets / large.recipients:.0f} octets each), beside {small.recipients:,}: "
        "commands in Redis, octets answered"
    ]
    for name, of_large in large.costs.items():
        of_small = small.costs[name]
        lines.append(
            f"     {name:22} {of_small.commands:6} → {of_large.commands:6} commands   "
            f"{of_small.octets:8} → {of_large.octets:8} octets   {of_large.microseconds:6} µs"
        )
    return "\n".join(lines)


def assert_flat(small: Backlog, large: Backlog) -> None:
    """Nothing costs more commands the more is queued, nor answers without bound.

    Answers may double: the page of queues looks at up to 20 recipients of each, and once a second
    an accept asks for Redis' memory (1.5 KB).
    """
    for name, of_large in large.costs.items():
        of_small = small.costs[name]
        assert of_large.commands <= 1.05 * of_small.commands + 2, f"{name}: {of_small} {of_large}"
        assert of_large.octets <= 2 * of_small.octets + 2000, f"{name}: {of_small} {of_large}"
