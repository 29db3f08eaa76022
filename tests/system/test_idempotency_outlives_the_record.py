"""A key that was used is answered with the first ids for a day, whatever became of the record."""

import msgspec

from relay.model.ids import new_queue_id
from tests.support.system import System


async def test_replay_after_the_record_is_gone_answers_the_first_ids(system: System) -> None:
    prepared = system.submitter.prepare(system.draft(["ann@gmail.test", "bob@gmail.test"]))
    first = msgspec.structs.replace(
        prepared.submission, idempotency_key="order-7", digest="the payload"
    )
    receipt = await system.store.accept(first)
    await system.until_delivered(receipt)
    await system.store.wire.call("DEL", f"{system.store.p}m:{receipt.id}")

    again = msgspec.structs.replace(first, queue_id=new_queue_id())
    replay = await system.store.accept(again)

    assert replay.replayed
    assert replay.id == receipt.id
    assert [item.id for item in replay.recipients] == [item.id for item in receipt.recipients]
    assert {item.status for item in replay.recipients} == {"finished"}
    assert system.sink.counts("gmail.test") == {"ann@gmail.test": 1, "bob@gmail.test": 1}
