"""A message to one recipient arrives, byte for byte, and both sides say so."""

from tests.support.system import System


async def test_message_arrives_at_the_mx_host_of_its_domain(system: System) -> None:
    receipt = await system.submit(["ann@gmail.test"], text="hello\r\n.leading dot")
    await system.until_delivered(receipt)

    (seen,) = system.sink.receipts(recipient="ann@gmail.test")
    assert seen.reverse_path == "news@example.org"
    assert seen.host.endswith("google.test")
    content = system.sink.content(seen.number)
    assert b"\r\n.leading dot\r\n" in content
    assert f"id {receipt.id};".encode() in content

    (event,) = await system.events("recipient.delivered")
    assert event.data["recipient_id"] == f"{receipt.id}.1"
    assert event.data["remote"]["host"] == seen.host
    assert event.data["reply"]["code"] == 250
    view = (await system.recipients(receipt))["ann@gmail.test"]
    assert view.attempt == 1


async def test_nothing_of_a_delivered_message_stays_but_its_record(system: System) -> None:
    receipt = await system.submit(["ann@gmail.test"])
    await system.until_delivered(receipt)
    wire, prefix = system.store.wire, system.store.p
    assert await wire.call("EXISTS", f"{prefix}c:{receipt.id}") == 0
    assert await wire.call("ZCARD", f"{prefix}queues") == 0
