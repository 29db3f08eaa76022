"""A host that says it cannot take mail now, on a connection that stays: another host is asked."""

import pytest

from tests.support.system import System


@pytest.mark.client_row("C64", "C91")
async def test_other_host_takes_what_one_has_no_room_for(system: System) -> None:
    system.sink.add_fault("mx1.shop.test", "MAIL", "reply", reply="452 4.3.1 No room on the disk")
    receipts = [await system.submit([f"reader{n}@shop.test"]) for n in range(3)]
    await system.until_delivered(*receipts)
    assert {one.host for one in system.sink.receipts()} == {"mx2.shop.test"}
    views = [view for one in receipts for view in (await system.recipients(one)).values()]
    assert {(view.attempt, view.step) for view in views} == {(1, 0)}
    # It was asked once a connection, and not for the mail that waited behind.
    assert system.sink.hosts()["mx1.shop.test"]["use"]["messages"] == 0


async def test_mail_waits_when_no_host_has_room(system: System) -> None:
    system.expects("site.breaker")
    system.sink.add_fault("shop.test", "MAIL", "reply", reply="452 4.3.1 No room on the disk")
    receipts = [await system.submit([f"reader{n}@shop.test"]) for n in range(3)]
    deferred = await system.until_event("recipient.deferred")
    assert {event.data["reason"] for event in deferred} == {"system_full"}
    system.sink.clear_faults("shop.test")
    await system.shift_clock(120)
    await system.until_delivered(*receipts)
    assert await system.events("recipient.failed") == []
