"""Mail that is not delivered in time expires, in whatever state it is."""

import pytest

from relay.store.codec import encode_content
from relay.store.queue import accept_request, rows_of
from relay.store.views import QueueMatch
from tests.support.system import System
from tests.system.conftest import Start

HOUR = 3600.0


async def expired(system: System, queue_id: str, address: str) -> None:
    """Wait for the end and look at what it left."""
    await system.until(queue_id, {address: "expired"})
    (event,) = await system.events("recipient.expired")
    assert event.data["address"] == address
    assert await system.store.wire.call("EXISTS", f"{system.store.p}c:{queue_id}") == 0
    assert await system.store.wire.call("ZCARD", f"{system.store.p}queues") == 0


async def test_deferred_mail_expires_with_its_last_reply(start: Start) -> None:
    system = await start(RELAY_RETRY_TRANSACTIONAL="3h*", RELAY_RETRY_FIRST_AFTER_RCPT="2h")
    receipt = await system.submit(["tempfail@shop.test"], expires_after_s=HOUR)
    await system.until(receipt, {"tempfail@shop.test": "deferred"})
    await system.shift_clock(HOUR + 1)
    await expired(system, receipt.id, "tempfail@shop.test")
    view = (await system.recipients(receipt))["tempfail@shop.test"]
    assert "451 4.3.0" in view.text


async def test_ready_mail_expires_while_its_queue_is_suspended(system: System) -> None:
    await system.store.suspend(
        QueueMatch(destination="shop.test"), reason="test", duration_s=24 * HOUR
    )
    receipt = await system.submit(["ann@shop.test"], expires_after_s=HOUR)
    await system.shift_clock(HOUR + 1)
    await expired(system, receipt.id, "ann@shop.test")
    assert system.sink.receipts(accepted=None) == []


async def test_held_mail_expires(start: Start) -> None:
    system = await start(workers=0)
    receipt = await system.submit(["ann@shop.test"], expires_after_s=HOUR)
    await system.store.hold(receipt.id)
    system.start_worker()
    await system.shift_clock(HOUR + 1)
    await expired(system, receipt.id, "ann@shop.test")
    assert system.sink.receipts(accepted=None) == []


async def test_staged_mail_that_was_never_committed_expires(system: System) -> None:
    """A door died between two chunks of a large submission."""
    draft = system.draft(["ann@shop.test", "bob@shop.test"], expires_after_s=HOUR)
    submission = system.submitter.prepare(draft).submission
    request = accept_request(submission, rows_of(submission)[:1], 1) | {"staged": True}
    await system.store.scripts.call("accept", request, encode_content(submission.content))
    assert (await system.recipients(submission.queue_id))["ann@shop.test"].status == "staged"
    await system.shift_clock(HOUR + 1)
    await expired(system, submission.queue_id, "ann@shop.test")
    assert system.sink.receipts(accepted=None) == []


@pytest.mark.parametrize(
    ("address", "state"), [("ann@shop.test", "delivered"), ("tempfail-dot@shop.test", "expired")]
)
async def test_attempt_under_way_at_expiry_decides(
    system: System, address: str, state: str
) -> None:
    system.sink.add_fault("shop.test", "MAIL", "delay", delay="1s")
    receipt = await system.submit([address], expires_after_s=HOUR)
    await system.until(receipt, {address: "claimed"})
    await system.shift_clock(HOUR + 1)
    await system.until(receipt, {address: state})
    assert (await system.event_counts(address))[f"recipient.{state}"] == 1


async def test_sender_by_smtp_is_told_of_the_expiry(start: Start) -> None:
    system = await start(RELAY_RETRY_DELAY_NOTICE="0")
    receipt = await system.submit(
        ["tempfail@shop.test"], ingress="smtp", sender="me@home.test", expires_after_s=HOUR
    )
    await system.until_event("recipient.deferred")
    await system.shift_clock(HOUR + 1)
    await system.until(receipt, {"tempfail@shop.test": "expired"})
    (seen,) = system.sink.receipts(recipient="me@home.test", at_least=1)
    content = system.sink.content(seen.number)
    assert b"Action: failed" in content
    assert b"Status: 4.3.0" in content
    assert b"Diagnostic-Code: smtp; 451 4.3.0" in content
