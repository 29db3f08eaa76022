"""A recipient deferred by the receiver is tried again on schedule and delivered."""

import pytest

from tests.support.system import System
from tests.system.conftest import Start


@pytest.mark.parametrize("keyword", ["tempfail", "tempfail-data", "tempfail-dot"])
async def test_deferred_recipient_is_delivered_at_the_scheduled_attempt(
    system: System, keyword: str
) -> None:
    address = f"{keyword}+2@shop.test"
    receipt = await system.submit([address])
    await system.until_delivered(receipt)

    deferrals = await system.events("recipient.deferred")
    assert [event.data["attempt"] for event in deferrals] == [1, 2]
    assert {event.data["reply"]["code"] for event in deferrals} == {451}
    (delivered,) = await system.events("recipient.delivered")
    assert delivered.data["attempt"] == 3
    assert delivered.timestamp >= deferrals[1].data["next_attempt_at"]
    view = (await system.recipients(receipt))[address]
    assert (view.attempt, view.step) == (3, 2)
    assert system.sink.counts() == {address: 1}


async def test_deferred_recipient_waits_for_its_time(start: Start) -> None:
    system = await start(RELAY_RETRY_TRANSACTIONAL="1h 2h*", RELAY_RETRY_FIRST_AFTER_RCPT="10m")
    receipt = await system.submit(["tempfail+2@shop.test", "ann@shop.test"])
    views = await system.until(
        receipt, {"tempfail+2@shop.test": "deferred", "ann@shop.test": "delivered"}
    )
    first = views["tempfail+2@shop.test"]
    (event,) = await system.events("recipient.deferred")
    assert first.next_attempt_at == pytest.approx(event.data["next_attempt_at"], abs=1)
    assert first.next_attempt_at == pytest.approx(event.timestamp + 600, abs=1)

    await system.shift_clock(601)
    (_, second) = await system.until_event("recipient.deferred", 2)
    assert second.data["attempt"] == 2
    assert second.data["next_attempt_at"] == pytest.approx(
        second.data["queued_at"] + 601 + 3600, abs=60
    )

    await system.shift_clock(3601)
    await system.until_delivered(receipt)
    assert system.sink.counts() == {"tempfail+2@shop.test": 1, "ann@shop.test": 1}
