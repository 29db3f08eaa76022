"""A worker is killed: another one takes its mail over, and says so where it may arrive twice."""

from tests.support.system import System
from tests.system.conftest import Start

LEASE_S = 15.0


async def take_over(system: System) -> None:
    """Kill the first worker, start another, let the lease of the dead one run out."""
    system.kill_worker(system.workers[0])
    system.start_worker()
    await system.shift_clock(LEASE_S + 1)


async def test_mail_before_its_dot_is_taken_over_and_arrives_once(system: System) -> None:
    addresses = ["slow+30s@shop.test", "ann@shop.test"]
    receipt = await system.submit(addresses)
    await system.until(receipt, dict.fromkeys(addresses, "claimed"))
    system.sink.drop_connections()  # what the dead worker had begun goes with it
    await take_over(system)
    (lost,) = await system.until_event("worker.lost")
    assert lost.data["incarnation"]
    await system.until_view(receipt, lambda views: {view.attempt for view in views.values()} == {2})
    assert await system.events("recipient.uncertain") == []


async def test_mail_past_its_dot_is_reported_and_sent_again(system: System) -> None:
    receipt = await system.submit(["ann@slowdot30s.test"])
    await system.until_marked()
    await take_over(system)
    (uncertain,) = await system.until_event("recipient.uncertain")
    assert uncertain.data["address"] == "ann@slowdot30s.test"
    assert uncertain.data["policy"] == "retry"
    await system.until_view(receipt, lambda views: views["ann@slowdot30s.test"].attempt == 2)


async def test_mail_past_its_dot_is_held_where_that_is_the_policy(start: Start) -> None:
    system = await start(RELAY_WORKER_UNCERTAIN_TRANSACTIONAL="hold")
    receipt = await system.submit(["ann@slowdot30s.test"])
    await system.until_marked()
    await take_over(system)
    views = await system.until(receipt, {"ann@slowdot30s.test": "held"})
    assert views["ann@slowdot30s.test"].reason == "uncertain"


async def test_slots_of_a_killed_worker_come_back(start: Start) -> None:
    shaping = '["default"]\nmax_connections = 1\n'
    system = await start(RELAY_FILES_SHAPING=shaping)
    stuck = await system.submit(["stall@shop.test"])
    await system.until(stuck, {"stall@shop.test": "claimed"})
    await system.store.cancel(stuck.id)
    waiting = await system.submit(["ann@shop.test"])
    await take_over(system)
    await system.until_delivered(waiting)
    assert (await system.recipients(stuck))["stall@shop.test"].status == "cancelled"


async def test_second_worker_goes_on_when_the_first_is_killed(start: Start) -> None:
    system = await start(workers=0)
    addresses = [f"reader{n}@slowdot50ms.number{n % 20}.test" for n in range(300)]
    receipts = [await system.submit([address]) for address in addresses]
    system.start_worker()
    system.start_worker()
    await system.until_event("recipient.delivered", 50)
    system.kill_worker(system.workers[0])
    await system.shift_clock(LEASE_S + 1)
    await system.until_delivered(*receipts)

    uncertain = {event.data["address"] for event in await system.events("recipient.uncertain")}
    arrived = system.sink.counts()
    assert set(arrived) == set(addresses)
    assert {address for address, copies in arrived.items() if copies > 1} <= uncertain
