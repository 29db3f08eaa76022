"""Daemons that are started before Redis ask for it again and again, then do their work."""

from tests.system.conftest import Start
from tests.system.test_redis_restarted import ABSENCE


async def test_worker_and_door_started_without_redis_join_it(start: Start) -> None:
    system = await start(workers=0)
    system.expects(*ABSENCE)
    system.redis.kill()
    worker = system.start_worker()
    system.start_smtpd()
    await system.until_logged("store.unavailable")
    assert worker.poll() is None
    system.redis.start()
    receipt = await system.submit_again(["ann@shop.test"])
    await system.until_delivered(receipt)
    # It asked at growing intervals, and said so each time in one line.
    pauses = [
        line["again_in_s"] for line in system.log_lines() if line["event"] == "store.unavailable"
    ]
    assert pauses == sorted(pauses)
    assert worker.poll() is None
