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
