"""A receiver that takes few connections (421): we send through those, nobody is deferred."""

from tests.support.system import UNSHAPED
from tests.system.conftest import Start


async def test_site_that_takes_two_connections_gets_all_its_mail_by_them(start: Start) -> None:
    system = await start(workers=0, RELAY_FILES_SHAPING=UNSHAPED)
    system.expects("site.breaker")
    addresses = [f"reader{n}@limit2.onemx.slowdot20ms.test" for n in range(80)]
    receipts = [await system.submit([address]) for address in addresses]
    system.start_worker()
    await system.until_delivered(*receipts)

    assert system.sink.counts() == dict.fromkeys(addresses, 1)
    assert await system.events("recipient.deferred", "recipient.uncertain") == []
    views = [view for one in receipts for view in (await system.recipients(one)).values()]
    assert {view.step for view in views} == {0}


async def test_our_ceiling_of_connections_is_kept(start: Start) -> None:
    shaping = UNSHAPED.replace("max_connections = 20", "max_connections = 3")
    system = await start(workers=0, RELAY_FILES_SHAPING=shaping)
    receipts = [await system.submit([f"reader{n}@slowdot20ms.test"]) for n in range(80)]
    system.start_worker()
    system.start_worker()
    await system.until_delivered(*receipts)
    assert system.sink.hosts()["mx1.slowdot20ms.test"]["use"]["peak"] == 3
