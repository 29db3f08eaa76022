"""Redis is killed and comes back: mail flows again within seconds, nothing is lost or doubled."""

import asyncio

import pytest

from relay.model.errors import StoreUnavailable
from tests.support.system import System

#: What an absent Redis makes the processes say.
ABSENCE = (
    "store.unavailable",
    "lease.not_renewed",
    "session.store_unavailable",
    "deliver.store_unavailable",
    "route.store_unavailable",
    "route.not_recorded",
    "consumer: Connection to broker lost",
    "consumer: Cannot connect to",
)


async def test_mail_flows_again_after_a_restart_of_redis(system: System) -> None:
    system.expects(*ABSENCE)
    before = await system.submit(["ann@shop.test", "tempfail+1@shop.test"])
    await system.until(before, {"ann@shop.test": "delivered"})
    system.redis.restart()
    after = await system.submit_again(["bob@shop.test", "ann@elsewhere.test"])
    await system.until_delivered(before, after)
    assert system.sink.counts() == {
        "ann@shop.test": 1,
        "tempfail+1@shop.test": 1,
        "bob@shop.test": 1,
        "ann@elsewhere.test": 1,
    }


async def test_outcome_of_an_attempt_outlives_the_absence_of_redis(system: System) -> None:
    system.expects(*ABSENCE)
    addresses = [f"reader{n}@slowdot1s.test" for n in range(3)]
    receipt = await system.submit(addresses)
    await system.until_marked(3)
    system.redis.kill()
    await asyncio.to_thread(system.sink.receipts, domain="slowdot1s.test", at_least=1)
    with pytest.raises(StoreUnavailable):
        await system.submit(["ann@shop.test"])
    system.redis.start()
    await system.until_delivered(receipt)
    assert system.sink.counts() == dict.fromkeys(addresses, 1)
    assert await system.events("recipient.uncertain", "recipient.duplicate") == []


async def test_worker_that_starts_before_redis_waits_for_it(system: System) -> None:
    system.expects(*ABSENCE)
    system.redis.kill()
    system.kill_worker(system.workers[0])
    system.start_worker()
    await system.until_logged("store.unavailable")
    system.redis.start()
    receipt = await system.submit_again(["ann@shop.test"])
    await system.until_delivered(receipt)
