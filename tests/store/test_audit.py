"""The audit sees what is wrong: each structure is broken by hand once."""

from collections.abc import Awaitable, Callable

import pytest

from relay.model.state import State
from relay.model.suppression import Suppression
from relay.store.audit import audit
from relay.store.limits import Ceilings
from relay.store.queue import Store
from relay.store.suppressions import Suppressions
from relay.store.work import Work
from tests.store import mail

LANE = mail.lane_of("one.test")
CEILINGS = Ceilings(slots=(("key", 5),))
#: Recipients of the one message: claimed, deferred, held, ready.
ID = "0000000000000000000A"
Breakage = Callable[[Store, Work], Awaitable[object]]


async def prepared(store: Store) -> Work:
    """One message with recipients in four states and a session."""
    work = await mail.worker(store)
    await store.accept(mail.submission(*(f"r{n}@one.test" for n in range(4)), queue_id=ID))
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    await work.take(LANE, work.new_token(), CEILINGS)
    # A message at a time is claimed whole, so what is not to be claimed waits aside.
    await store.hold(f"{ID}.3")
    await store.hold(f"{ID}.4")
    claim = await work.claim(LANE, limit=2, octets=1 << 20)
    await mail.settle(work, mail.outcomes_of(claim, State.DEFERRED, delay_s=60)[1:])
    await store.release(f"{ID}.4")
    await Suppressions(store).add([Suppression(name="old@two.test")], most=10, keep_s=60.0)
    assert await mail.states(store, ID) == ["claimed", "deferred", "held", "ready"]
    return work


def command(*parts: str) -> Breakage:
    """A breakage by one command; keys begin with the prefix."""

    async def run(store: Store, work: Work) -> object:
        name, key, *rest = (part.format(id=ID, holder=work.holder) for part in parts)
        return await store.wire.call(name, store.p + key, *rest)

    return run


QUEUE = "q:t|default||one.test"
BREAKAGES: dict[str, Breakage] = {
    "content is amiss": command("HDEL", "m:{id}", "b"),
    "which does not exist": command("SET", "c:ORPHAN", "x"),
    "will miss its deadline": command("ZREM", "deadlines", "{id}"),
    "counts 3 open recipients, there are 4": command("HINCRBY", "m:{id}", "o", "-1"),
    "has 3 of 4 recipients": command("HDEL", "m:{id}", "2"),
    "unreadable recipient record": command("HSET", "m:{id}", "2", "\x93"),
    "is in no list": command("DEL", QUEUE + ":r"),
    "is not due in queue": command("DEL", QUEUE + ":d"),
    "is not among the held": command("DEL", QUEUE + ":h"),
    "is not among the claims": command("DEL", "ic:{holder}"),
    "as held, which it is not": command("ZADD", QUEUE + ":h", "1", "{id}.1"),
    "holds {id}.3, which is not claimed": command("SADD", "ic:{holder}", "{id}.3"),
    "is claimed by two incarnations": command("SADD", "ic:ANOTHER", "{id}.1"),
    "states are counted as": command("HINCRBY", "states", "held", "1"),
    "the view of one.test": command("HINCRBY", "v:one.test", "7", "1"),
    "counts {{'r': 2": command("HINCRBY", QUEUE, "r", "1"),
    "is missing in an index": command("ZREM", "queues", "t|default||one.test"),
    "is not (only) in its lane": command("HSET", QUEUE, "on", "elsewhere|default|none|"),
    "without its queues": command("DEL", "lt:" + LANE),
    "has deferred mail and no timer": command("DEL", "timers"),
    "which is not known": command("ZREM", "incarnations", "{holder}"),
    "for a recipient that it does not hold": command("SADD", "is:{holder}", "{id}.2:1"),
    "for an attempt that is over": command("SADD", "is:{holder}", "{id}.1:7"),
    "hangs on nobody": command("SADD", "sl:key", "token"),
    "is noted and not held": command("DEL", "sl:key"),
    "of default is not shown as it is": command("ZADD", "sups:default", "1", "old@two.test"),
    "of default does not end as it says": command("DEL", "supx:default"),
    "and does not exist": command("SADD", "committing", "NOBODY"),
}


async def test_audit_of_a_sound_store_finds_nothing(store: Store) -> None:
    await prepared(store)
    assert await audit(store) == []


@pytest.mark.parametrize("expected", BREAKAGES)
async def test_audit_finds_each_breach(store: Store, expected: str) -> None:
    work = await prepared(store)
    await BREAKAGES[expected](store, work)
    found = await audit(store)
    assert [text for text in found if expected.format(id=ID) in text], found


async def test_audit_finds_queue_that_nobody_will_look_at(store: Store) -> None:
    await store.accept(mail.submission("ann@two.test"))
    await store.wire.call("DEL", store.p + "unrouted")
    assert await audit(store) == [
        "queue t|default||two.test has ready mail and nobody will look at it"
    ]


async def test_audit_finds_lane_that_nobody_will_look_at(store: Store) -> None:
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    await store.accept(mail.submission("ann@one.test"))
    assert await audit(store) == []
    await store.wire.call("DEL", store.p + "wanting:default")
    assert await audit(store) == [f"lane {LANE} has queues and nobody will look at it"]
