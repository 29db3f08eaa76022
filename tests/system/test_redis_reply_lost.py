"""Redis does what it was asked and its reply is lost: the mail is neither stuck nor doubled.

The connection of a living worker breaks at the worst moment of each script; what the script gave
to the worker without its knowledge (slots, recipients, lanes) comes back.
"""

import asyncio
from pathlib import Path

import pytest

from relay.model.message import Receipt
from tests.support.lossy_proxy import lossy_proxy
from tests.support.system import WAIT_S, System
from tests.system.conftest import Start
from tests.system.test_redis_restarted import ABSENCE


@pytest.mark.parametrize(
    "script", ["hand_out", "route", "take", "report", "claim", "settle", "release", "tick"]
)
async def test_lost_reply_neither_loses_nor_doubles_mail(
    start: Start, tmp_path: Path, script: str
) -> None:
    path = tmp_path / "proxy.sock"
    system = await start(
        workers=0,
        RELAY_REDIS_URL=f"unix://{path}",
        RELAY_FILES_SHAPING='["default"]\nmax_connections = 1\nconnection_rate = "unlimited"\n',
        RELAY_WORKER_IDLE_SESSION="100ms",
    )
    system.expects(*ABSENCE)
    async with lossy_proxy(path, system.redis.socket) as proxy:
        proxy.lose(script)
        first = await system.submit(["ann@shop.test", "bob@shop.test"])
        system.start_worker()
        await proxy.lost.wait()
        await until_delivered_while_time_flies(system, first)
        second = await system.submit(["eve@shop.test"])
        await until_delivered_while_time_flies(system, second)
        assert await asyncio.to_thread(system.stop_worker, system.workers[0]) == 0
    assert system.sink.counts() == {"ann@shop.test": 1, "bob@shop.test": 1, "eve@shop.test": 1}
    assert await system.events("recipient.uncertain", "recipient.duplicate", "worker.lost") == []


async def until_delivered_while_time_flies(system: System, receipt: Receipt) -> None:
    """What was handed out unheard is handed out again only after a while."""
    async with asyncio.timeout(WAIT_S):
        while {view.status for view in (await system.recipients(receipt)).values()} != {
            "delivered"
        }:
            await system.shift_clock(1)
            await asyncio.sleep(0.1)
