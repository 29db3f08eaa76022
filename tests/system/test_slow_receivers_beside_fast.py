"""Slow and silent receivers cost their own mail time, and nobody else's."""

from tests.system.conftest import Start


async def test_fast_domains_are_not_held_back_by_slow_ones(start: Start) -> None:
    system = await start(workers=0)
    slow = [await system.submit([f"ann@slowdot3s.number{n}.test"]) for n in range(30)]
    system.start_worker()
    await system.until_view(
        slow[-1], lambda views: {view.status for view in views.values()} == {"claimed"}
    )
    fast = [await system.submit([f"ann@number{n}.test"]) for n in range(30)]
    await system.until_delivered(*fast)
    await system.until_delivered(*slow)

    delivered = [event.data["address"] for event in await system.events("recipient.delivered")]
    assert {address.split("@")[1].startswith("slowdot") for address in delivered[:30]} == {False}
    assert len(delivered) == 60


async def test_silent_receivers_leave_room_for_others(start: Start) -> None:
    """As many receivers as there are places take a connection, where they may, and never speak."""
    system = await start(workers=0, RELAY_WORKER_MAX_SESSIONS="8")
    system.expects("site.breaker")
    silent = [await system.submit([f"ann@tarpit.number{n}.test"]) for n in range(8)]
    system.start_worker()
    await system.until_connected(5)  # half of the places and one
    fast = [await system.submit([f"ann@number{n}.test"]) for n in range(30)]
    await system.until_delivered(*fast)

    views = [view for one in silent for view in (await system.recipients(one)).values()]
    assert {(view.status, view.step, view.attempt) for view in views} == {("ready", 0, 0)}
    assert len(system.sink.counts()) == 30
