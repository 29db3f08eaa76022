"""Domains whose nameservers are silent cost their own mail time, and no other look-up."""

import asyncio

from tests.system.conftest import Start

SILENT = 150


async def test_live_domains_are_routed_while_silent_ones_are_looked_up(start: Start) -> None:
    system = await start(workers=0, RELAY_DNS_TIMEOUT="20s", RELAY_DNS_LIFETIME="60s")
    silent = await system.submit([f"ann@dnstimeout.number{n}.test" for n in range(SILENT)])
    live = [f"ann@number{n}.test" for n in range(30)]
    receipt = await system.submit(live)
    worker = system.start_worker()
    await system.until_delivered(receipt)
    late = await system.submit(["bob@late.test"])
    await system.until_delivered(late)

    views = (await system.recipients(silent)).values()
    assert {(view.status, view.step, view.attempt) for view in views} == {("ready", 0, 0)}
    assert {view.waiting.reason for view in views if view.waiting} == {"mx_lookup"}
    assert system.sink.counts() == dict.fromkeys([*live, "bob@late.test"], 1)
    assert await asyncio.to_thread(system.stop_worker, worker) == 0
