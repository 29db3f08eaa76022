"""A worker dies after it was handed work and before it took it up: others are handed it anew."""

from relay.store.work import ROUTING_S, TAKING_S, Work
from tests.support.system import System
from tests.system.conftest import Start


def another_worker(system: System) -> Work:
    """A worker's dealings with the store, without any of its deeds."""
    return Work(system.store, lease_s=15, info={"pid": 0})


async def test_destination_of_a_worker_that_died_looking_it_up_is_routed(start: Start) -> None:
    system = await start(workers=0)
    receipt = await system.submit(["ann@shop.test"])
    assert await another_worker(system).unrouted(50) == ["shop.test"]
    assert await another_worker(system).unrouted(50) == []
    system.start_worker()
    await system.shift_clock(ROUTING_S + 1)
    await system.until_delivered(receipt)


async def test_lane_of_a_worker_that_died_before_its_session_is_served(start: Start) -> None:
    system = await start()
    await system.until_delivered(await system.submit(["ann@shop.test"]))
    assert system.stop_worker(system.workers[0]) == 0
    receipt = await system.submit(["bob@shop.test"])
    (lane,) = await another_worker(system).wanting("default", 50)
    assert lane.startswith("mx1.shop.test")
    assert await another_worker(system).wanting("default", 50) == []
    system.start_worker()
    await system.shift_clock(TAKING_S + 1)
    await system.until_delivered(receipt)


async def test_lane_of_a_worker_that_died_before_its_claim_is_served(start: Start) -> None:
    """Its session was waiting for the greeting: no recipient hangs on it, only the lane."""
    system = await start(RELAY_FILES_SHAPING='["default"]\nmax_connections = 1\n')
    system.sink.add_fault("shop.test", "connect", "stall")
    receipt = await system.submit(["ann@shop.test"])
    await system.until_host("mx1.shop.test", sessions=1)
    system.kill_worker(system.workers[0])
    system.sink.clear_faults()
    system.start_worker()
    await system.shift_clock(16)
    await system.until_delivered(receipt)
