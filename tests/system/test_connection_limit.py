"""Connections to a site: as many as it takes, and no more than we were told to."""

from tests.support.system import UNSHAPED
from tests.system.conftest import Start


async def test_our_ceiling_of_connections_is_kept(start: Start) -> None:
    shaping = UNSHAPED.replace("max_connections = 20", "max_connections = 3")
    system = await start(workers=0, RELAY_FILES_SHAPING=shaping)
    receipts = [await system.submit([f"reader{n}@slowdot20ms.test"]) for n in range(80)]
    system.start_worker()
    system.start_worker()
    await system.until_delivered(*receipts)
    assert system.sink.hosts()["mx1.slowdot20ms.test"]["use"]["peak"] == 3


async def test_connections_to_a_site_that_takes_mail_grow_towards_the_ceiling(start: Start) -> None:
    """Each message taken counts, not only connections that end: a first window is 5."""
    system = await start(workers=0, RELAY_FILES_SHAPING=UNSHAPED)
    receipts = [await system.submit([f"reader{n}@slowdot50ms.test"]) for n in range(600)]
    system.start_worker()
    system.start_worker()
    await system.until_delivered(*receipts)
    assert system.sink.hosts()["mx1.slowdot50ms.test"]["use"]["peak"] > 10
