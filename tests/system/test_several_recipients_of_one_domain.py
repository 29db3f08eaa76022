"""Recipients of one domain share one mail transaction: the content crosses the wire once."""

from tests.support.system import System


async def test_recipients_of_one_domain_share_one_transaction(system: System) -> None:
    addresses = [f"reader{number}@shop.test" for number in range(50)]
    receipt = await system.submit(addresses)
    await system.until_delivered(receipt)

    (seen,) = system.sink.receipts(domain="shop.test")
    assert set(seen.forward_paths) == set(addresses)
    assert seen.transaction == 1
    delivered = await system.events("recipient.delivered")
    assert {event.data["address"] for event in delivered} == set(addresses)
    assert {event.data["remote"]["host"] for event in delivered} == {seen.host}
    views = (await system.recipients(receipt)).values()
    assert [view.attempt for view in views] == [1] * 50


async def test_one_refused_recipient_leaves_the_others_delivered(system: System) -> None:
    receipt = await system.submit(["ann@shop.test", "reject@shop.test", "bob@shop.test"])
    views = await system.until(
        receipt,
        {"ann@shop.test": "delivered", "bob@shop.test": "delivered", "reject@shop.test": "failed"},
    )

    (seen,) = system.sink.receipts(domain="shop.test")
    assert seen.forward_paths == ("ann@shop.test", "bob@shop.test")
    assert [refusal.address for refusal in seen.refused] == ["reject@shop.test"]
    assert views["reject@shop.test"].text.startswith("550 5.1.1")
    assert await system.event_counts("ann@shop.test") == {"recipient.delivered": 1}
    assert await system.event_counts("reject@shop.test") == {"recipient.failed": 1}
