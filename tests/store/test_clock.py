"""What a process takes for the store's time."""

import asyncio
import time

import pytest

from relay.store.clock import LATELY_S, StepWatch, StoreClock, steady_s
from relay.store.queue import Store
from relay.store.work import Ticked, Work
from tests.store import mail

HOUR_MS = 3_600_000


def test_clock_follows_what_was_heard_and_not_the_wall() -> None:
    clock = StoreClock()
    assert abs(clock.now() - time.time()) < 60
    clock.heard(1000.0, asked_at=steady_s())
    assert 1000.0 <= clock.now() < 1060.0
    clock.heard(5000.0, asked_at=steady_s())
    assert 5000.0 <= clock.now() < 5060.0


def test_answer_that_took_long_says_less_than_one_that_came_at_once() -> None:
    clock = StoreClock()
    clock.heard(1000.0, asked_at=steady_s())
    clock.heard(1020.0, asked_at=steady_s() - 30)
    assert 1000.0 <= clock.now() < 1020.0 + 60
    clock.heard(1040.0, asked_at=steady_s() - 30)
    assert 1040.0 <= clock.now() < 1041.0 + 60


async def test_tick_tells_the_stores_time(store: Store) -> None:
    worker = await mail.worker(store)
    await mail.shift(store, 86_400)
    await mail.tick(worker)
    assert abs(store.clock.now() - time.time() - 86_400) < 60
    other = await mail.worker(store)
    await mail.shift(store, 86_400)
    await mail.tick(other)  # busy: another ticker acts
    assert abs(store.clock.now() - time.time() - 2 * 86_400) < 60


@pytest.mark.parametrize("by_ms", [HOUR_MS, -HOUR_MS])
async def test_step_of_the_servers_clock_ends_no_lease_and_moves_no_time(
    store: Store, by_ms: int
) -> None:
    """The store sees the sum of the server's clock and `step_ms`: setting either is the same."""
    worker, other = await mail.worker(store), await mail.worker(store)
    await mail.tick(worker)
    before = await store.now()
    await set_clock(store, by_ms)
    assert abs(await store.now() - before) > 3000
    await other.renew()
    await mail.tick(worker)
    assert abs(await store.now() - before) < 60
    assert await step(store) == pytest.approx(0, abs=60_000)
    await worker.renew()
    await other.renew()
    assert "worker.lost" not in await mail.event_types(store)


async def test_step_is_let_in_slowly(store: Store) -> None:
    worker = await mail.worker(store)
    await mail.tick(worker)
    await store.wire.call("HSET", store.p + "meta", "step_ms", 3000)
    for _ in range(3):
        await mail.tick(worker)
    assert 0 < await step(store) <= 3000
    await store.wire.call("HSET", store.p + "meta", "step_ms", 1)
    async with asyncio.timeout(10):
        while await step(store):
            await asyncio.sleep(0.02)
            await mail.tick(worker)


async def test_ticker_that_dies_before_its_clock_is_put_back_is_followed_by_another(
    store: Store,
) -> None:
    worker, other = await mail.worker(store), await mail.worker(store)
    await mail.tick(worker)
    await store.wire.call("PEXPIRE", store.p + "ticker", HOUR_MS)
    assert (await tick(other)).acting


def test_slow_answer_is_no_step() -> None:
    watch = StepWatch()
    assert watch.expected_ms() == 0
    watch.heard(1_000_000, asked_at=steady_s())
    assert watch.expected_ms() == pytest.approx(1_000_000, abs=LATELY_S * 1000)
    assert watch.step_ms(985_000, asked_at=steady_s() - 30) == 0
    assert watch.step_ms(1_020_000, asked_at=steady_s()) == pytest.approx(20_000, abs=3000)
    assert watch.step_ms(900_000, asked_at=steady_s()) == pytest.approx(-100_000, abs=3000)


async def tick(worker: Work) -> Ticked:
    return await worker.tick(pools=(), uncertain=mail.NO_UNCERTAINTY, keep_events=100)


async def set_clock(store: Store, by_ms: int) -> None:
    await store.wire.call("HINCRBY", store.p + "meta", "step_ms", by_ms)


async def step(store: Store) -> int:
    return int(await store.wire.call("HGET", store.p + "meta", "step_ms") or 0)
