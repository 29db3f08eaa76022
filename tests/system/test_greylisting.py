"""Greylisting: the first try is refused, the next one after the short first delay gets through."""

import pytest

from tests.system.conftest import Start


async def test_greylisted_recipient_is_tried_again_soon_not_by_the_long_schedule(
    start: Start,
) -> None:
    system = await start(RELAY_RETRY_TRANSACTIONAL="1h*", RELAY_RETRY_FIRST_AFTER_RCPT="1s")
    receipt = await system.submit(["greylist@shop.test", "ann@shop.test"])
    await system.until_delivered(receipt)

    (deferred,) = await system.events("recipient.deferred")
    assert deferred.data["address"] == "greylist@shop.test"
    assert deferred.data["reply"]["code"] == 450
    assert deferred.data["next_attempt_at"] == pytest.approx(deferred.timestamp + 1, abs=0.5)
    first, second = system.sink.receipts(domain="shop.test")
    assert first.forward_paths == ("ann@shop.test",)
    assert [refusal.address for refusal in first.refused] == ["greylist@shop.test"]
    assert second.forward_paths == ("greylist@shop.test",)


async def test_receivers_hint_when_to_come_again_is_followed(start: Start) -> None:
    system = await start()
    receipt = await system.submit(["greylist+300s@shop.test"])
    views = await system.until(receipt, {"greylist+300s@shop.test": "deferred"})
    (deferred,) = await system.events("recipient.deferred")
    assert "try again in 300 seconds" in deferred.data["reply"]["text"]
    assert views["greylist+300s@shop.test"].next_attempt_at == pytest.approx(
        deferred.timestamp + 300, abs=1
    )
