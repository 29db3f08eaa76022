"""All MX hosts refuse connections: the breaker opens, mail waits at no cost, one session probes."""

from tests.support.system import System

MESSAGES = 20


async def test_mail_for_a_dead_site_waits_and_goes_when_it_is_back(system: System) -> None:
    system.expects("site.breaker")
    system.sink.add_fault("shop.test", "connect", "refuse")
    receipts = [await system.submit([f"reader{n}@shop.test"]) for n in range(MESSAGES)]
    await system.until_event("site.suspended")

    for receipt in receipts:
        waiting = await system.until_waiting(
            receipt, receipt.recipients[0].address, "connect_failed"
        )
        assert ".shop.test [127." in waiting.text and "connection refused" in waiting.text
    queue = await system.queue("shop.test")
    assert (queue.ready, queue.claimed, queue.deferred) == (MESSAGES, 0, 0)
    assert await connections_tried(system, 2) == ["mx1.shop.test", "mx2.shop.test"]

    # The breaker lets one session probe: each host is asked once more, then it opens for longer.
    await system.shift_clock(16)
    first, second = await system.until_event("site.suspended", 2)
    assert second.data["until"] - second.timestamp > 2 * (first.data["until"] - first.timestamp)
    assert await connections_tried(system, 4) == ["mx1.shop.test", "mx2.shop.test"] * 2

    system.sink.clear_faults()
    await system.shift_clock(61)
    await system.until_delivered(*receipts)
    (resumed,) = await system.until_event("site.resumed")
    assert {"site", "host", "provider", "source", "account"} <= resumed.data.keys()
    assert resumed.data == {**first.data, "reason": "", "text": "", "until": None}
    (delivered, *_) = await system.events("recipient.delivered")
    assert first.data["site"] == delivered.data["remote"]["site"]
    assert (first.data["host"], first.data["source"]) == ("mx1.shop.test", "default")
    assert first.data["reason"] == "connect_failed" and "key" not in first.data
    assert system.sink.counts("shop.test") == {f"reader{n}@shop.test": 1 for n in range(MESSAGES)}
    assert await system.events("recipient.deferred") == []
    views = [view for item in receipts for view in (await system.recipients(item)).values()]
    assert {(view.attempt, view.step) for view in views} == {(1, 0)}


async def connections_tried(system: System, count: int) -> list[str]:
    """Hosts to which a connection failed, in order, of which there are to be so many."""
    lines = await system.logged(count, event="session.failed")
    return [line["mx_host"] for line in lines]
