"""SIGTERM: what is on the wire is finished and recorded, the rest goes back; nothing is lost."""

import signal

from tests.support.system import UNSHAPED
from tests.system.conftest import Start


async def test_worker_that_is_told_to_stop_finishes_what_it_has_on_the_wire(start: Start) -> None:
    system = await start(workers=0, RELAY_FILES_SHAPING=UNSHAPED)
    system.sink.add_fault("shop.test", "end-of-data", "delay", delay="500ms")
    addresses = [f"reader{n}@shop.test" for n in range(40)]
    receipts = [await system.submit([address]) for address in addresses]
    worker = system.start_worker()
    await system.until_event("recipient.delivered")

    assert system.stop_worker(worker) == 0
    queue = await system.queue("shop.test")
    delivered = {event.data["address"] for event in await system.events("recipient.delivered")}
    assert system.sink.counts() == dict.fromkeys(delivered, 1)
    assert 0 < len(delivered) < 40
    assert (queue.claimed, queue.deferred) == (0, 0)
    assert queue.ready + queue.retry == 40 - len(delivered)

    system.sink.clear_faults()
    system.start_worker()
    await system.until_delivered(*receipts)
    assert system.sink.counts() == dict.fromkeys(addresses, 1)
    assert set(await system.event_counts()) == {"message.accepted", "recipient.delivered"}


async def test_answer_that_does_not_come_in_time_leaves_the_mail_uncertain(start: Start) -> None:
    system = await start(RELAY_UP_DRAIN="200ms")
    receipt = await system.submit(["slow-dot+30s@shop.test"])
    await system.until_marked()
    assert system.stop_worker(system.workers[0]) == 0
    system.sink.drop_connections()

    system.sink.reset()
    system.start_worker()
    (uncertain,) = await system.until_event("recipient.uncertain")
    assert uncertain.data["recipient_id"] == f"{receipt.id}.1"


async def test_mail_before_its_dot_goes_back_unharmed_when_there_is_no_time(start: Start) -> None:
    system = await start(RELAY_UP_DRAIN="200ms")
    address = "slow+30s+a@shop.test"
    receipt = await system.submit([address, "ann@elsewhere.test"])
    await system.until(receipt, {address: "claimed", "ann@elsewhere.test": "delivered"})
    system.workers[0].send_signal(signal.SIGTERM)
    views = await system.until(receipt, {address: "ready"})
    assert views[address].step == 0
    assert await system.events("recipient.uncertain", "recipient.deferred") == []


async def test_session_that_is_only_being_opened_does_not_keep_a_worker(start: Start) -> None:
    """Its peer is silent for minutes, and it may take hours to stop: it ends well before both."""
    system = await start(RELAY_UP_DRAIN="1h")
    receipt = await system.submit(["ann@onemx.tarpit.test", "bob@shop.test"])
    await system.until_waiting(receipt, "ann@onemx.tarpit.test", "session_opening")
    assert system.stop_worker(system.workers[0]) == 0
    view = (await system.recipients(receipt))["ann@onemx.tarpit.test"]
    assert (view.status, view.step, view.attempt) == ("ready", 0, 0)
    assert await system.events("site.suspended", "recipient.deferred") == []
