"""We open no more connections to a site than we were told to."""

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
