"""What the settler hands over, and how often it asks Redis for that."""

import asyncio

from relay.model.state import State
from relay.store.queue import Store
from relay.store.settler import LIMIT, Settler
from tests.store import mail

LANE = mail.lane_of("one.test")


async def calls_of_functions(store: Store) -> int:
    text = (await store.wire.call("INFO", "commandstats")).decode()
    line = next(line for line in text.splitlines() if line.startswith("cmdstat_fcall:"))
    return int(line.split("calls=")[1].split(",")[0])


async def test_marks_of_sessions_at_one_moment_are_one_call(store: Store) -> None:
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    await store.accept(mail.submission("a@one.test", "b@one.test", "c@one.test"))
    claim = await work.claim(LANE, limit=3, octets=1 << 20)
    held = [f"{rid}:1" for rid in mail.claimed_ids(claim)]
    settler = Settler(work)
    before = await calls_of_functions(store)
    sent = await asyncio.gather(*(settler.mark([mark], confirmed=False) for mark in held))
    await store.ping()
    assert sent == [True, True, True]
    assert await calls_of_functions(store) == before + 1
    marked = await store.wire.call("SMEMBERS", f"{store.p}is:{work.holder}")
    assert sorted(raw.decode() for raw in marked) == sorted(held)


async def test_session_that_is_cancelled_takes_no_other_sessions_mark_along(store: Store) -> None:
    work = await mail.worker(store)
    settler = Settler(work)
    tasks = [asyncio.create_task(settler.mark([f"x.{n}:1"], confirmed=False)) for n in (1, 2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await tasks[1]
    assert tasks[0].cancelled()


async def test_no_further_dot_is_marked_while_too_many_outcomes_are_unsettled(store: Store) -> None:
    """What a crash leaves unknown is bounded, and so is the memory while Redis is away."""
    settler = Settler(await mail.worker(store))
    outcomes = [mail.outcome("0" * 20, n, 1, State.DELIVERED) for n in range(1, LIMIT + 1)]
    await settler.settle(outcomes[:-1])
    assert await settler.mark(["x.1:1"], confirmed=False)
    await settler.settle(outcomes[-1:])
    waiting = asyncio.create_task(settler.mark(["x.2:1"], confirmed=False))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    settler.start()
    assert await waiting
    assert await settler.stop(within_s=10)


async def test_outcomes_of_sessions_at_one_moment_are_one_call(store: Store) -> None:
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    receipts = [await store.accept(mail.submission("a@one.test")) for _ in range(20)]
    claim = await work.claim(LANE, limit=20, octets=1 << 20)
    settler = Settler(work)
    settler.start()
    before = await calls_of_functions(store)
    for outcome in mail.outcomes_of(claim, State.DELIVERED):
        await settler.settle([outcome])
    assert await settler.stop(within_s=10)
    assert await calls_of_functions(store) == before + 1
    for receipt in receipts:
        assert await mail.states(store, receipt.id) == ["delivered"]
