"""Cancelled mail is not sent any more; an attempt past its dot may still deliver."""

import pytest

from relay.model.errors import StateConflict
from tests.support.system import System
from tests.system.conftest import Start


async def test_ready_mail_is_cancelled(start: Start) -> None:
    system = await start(workers=0)
    receipt = await system.submit(["ann@shop.test", "bob@shop.test"])
    assert await system.store.cancel(f"{receipt.id}.1") == 1
    system.start_worker()
    await system.until(receipt, {"ann@shop.test": "cancelled", "bob@shop.test": "delivered"})
    assert system.sink.counts() == {"bob@shop.test": 1}
    assert len(await system.events("recipient.cancelled")) == 1
    with pytest.raises(StateConflict, match="cancelled, delivered"):
        await system.store.cancel(receipt.id)


async def test_deferred_mail_is_cancelled(start: Start) -> None:
    system = await start(RELAY_RETRY_FIRST_AFTER_RCPT="1h", RELAY_RETRY_TRANSACTIONAL="1h*")
    receipt = await system.submit(["tempfail+1@shop.test"])
    await system.until(receipt, {"tempfail+1@shop.test": "deferred"})
    assert await system.store.cancel(receipt.id) == 1
    await system.until(receipt, {"tempfail+1@shop.test": "cancelled"})
    assert await system.store.wire.call("ZCARD", f"{system.store.p}queues") == 0
    assert await system.store.wire.call("EXISTS", f"{system.store.p}c:{receipt.id}") == 0


async def test_claimed_mail_is_cancelled_before_its_dot(system: System) -> None:
    address = "slow+5s@shop.test"
    receipt = await system.submit([address])
    await system.until(receipt, {address: "claimed"})
    assert await system.store.cancel(receipt.id) == 1
    await system.until(receipt, {address: "cancelled"})
    assert system.sink.receipts(accepted=None) == []
    assert (await system.event_counts(address)) == {"recipient.cancelled": 1}


async def test_mail_whose_dot_is_sent_cannot_be_called_back(system: System) -> None:
    address = "slow-dot+1s@shop.test"
    receipt = await system.submit([address])
    await system.until(receipt, {address: "claimed"})
    await system.store.cancel(receipt.id)
    await system.until(receipt, {address: "delivered"})
    assert system.sink.counts() == {address: 1}
    assert await system.events("recipient.cancelled") == []
