"""A receiver blames our address or our sender domain: the backlog rests, nothing of it bounces."""

import pytest

from relay.store.views import RecipientView
from tests.system.conftest import Start

MESSAGES = 8


@pytest.mark.parametrize(
    ("command", "reply", "reason"),
    [
        ("RCPT", "550 5.7.25 The sending IP address has no PTR record", "reverse_dns"),
        ("end-of-data", "550 5.7.26 The sender is unauthenticated", "unauthenticated"),
    ],
)
async def test_backlog_rests_when_a_receiver_blames_us_and_goes_when_it_is_mended(
    start: Start, command: str, reply: str, reason: str
) -> None:
    def waits(views: dict[str, RecipientView]) -> bool:
        (view,) = views.values()
        return view.waiting is not None and view.waiting.reason == reason

    system = await start(workers=0)
    system.expects("queue.parked")
    system.sink.add_fault("shop.test", command, "reply", reply=reply)
    receipts = [await system.submit([f"reader{n}@shop.test"]) for n in range(MESSAGES)]
    system.start_worker()
    attempts = 0
    for receipt in receipts:
        (view,) = (await system.until_view(receipt, waits)).values()
        assert (view.status, view.step) == ("ready", 0)
        attempts += view.attempt

    await system.until_delivered(await system.submit(["ann@other.test"]))
    assert await system.events("recipient.failed", "recipient.deferred") == []
    # What was claimed is given back unsent, but for the load that was announced already.
    assert sum(fault.fired for fault in system.sink.faults()) <= 2
    assert attempts <= MESSAGES

    system.sink.clear_faults()
    await system.shift_clock(901)
    await system.until_delivered(*receipts)
    assert system.sink.counts("shop.test") == {f"reader{n}@shop.test": 1 for n in range(MESSAGES)}
