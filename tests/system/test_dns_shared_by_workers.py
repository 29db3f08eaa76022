"""What one worker learned from DNS the others know: the cache lies in Redis."""

from tests.system.conftest import Start


async def test_answers_of_a_worker_that_is_gone_serve_the_next_one(start: Start) -> None:
    system = await start()
    await system.until_delivered(await system.submit(["ann@shop.test"]))
    system.stop_worker(system.workers[-1])

    # Nothing is left of it but the cache: no route, and a nameserver that fails.
    await system.store.wire.call("DEL", f"{system.store.p}ro:shop.test")
    for name in ("shop.test", "mx1.shop.test", "mx2.shop.test"):
        for kind in ("MX", "A", "AAAA"):
            system.sink.set_dns(name, kind, code="SERVFAIL")
    system.start_worker()
    await system.until_delivered(await system.submit(["bob@shop.test"]))
    assert system.sink.counts() == {"ann@shop.test": 1, "bob@shop.test": 1}


async def test_failures_of_dns_are_not_shared(start: Start) -> None:
    """They may be the fault of one worker's nameserver or network."""
    system = await start(workers=0)
    system.sink.set_dns("shop.test", "MX", code="SERVFAIL")
    system.start_worker()
    receipt = await system.submit(["ann@shop.test"])
    await system.until_waiting(receipt, "ann@shop.test", "dns_unavailable")
    assert await system.store.wire.call("EXISTS", f"{system.store.p}dns:MX:shop.test") == 0
