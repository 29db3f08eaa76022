"""Large content goes by BDAT where it may, by DATA where a server only pretends to know it."""

import pytest

from tests.support.system import System
from tests.system.conftest import Start

#: Three blocks; two such messages fit into one claim. Each line begins with a dot.
LARGE = "\r\n".join(f".{number:06}{'x' * 70}" for number in range(4000))


@pytest.mark.client_row("C61")
async def test_large_content_arrives_the_same_by_every_way(system: System) -> None:
    domains = ("chunking.test", "nopipelining.chunking.test", "badchunking.test", "shop.test")
    for domain in domains:
        receipt = await system.submit([f"ann@{domain}", f"reject@{domain}"], text=LARGE)
        await system.until(receipt, {f"ann@{domain}": "delivered", f"reject@{domain}": "failed"})
        (seen,) = system.sink.receipts(domain=domain)
        assert system.sink.content(seen.number).endswith(f"\r\n\r\n{LARGE}\r\n".encode())
        views = (await system.recipients(receipt)).values()
        assert {(view.attempt, view.step) for view in views} == {(1, 0)}
        (host,) = (one for one in system.sink.hosts().items() if one[0] == f"mx1.{domain}")
        assert host[1]["use"]["sessions"] == (2 if domain == "badchunking.test" else 1)


async def test_refusal_within_chunks_costs_nothing_but_the_message(start: Start) -> None:
    system = await start(workers=0)
    refused = await system.submit(["reject-in-data@chunking.test"], text=LARGE)
    taken = await system.submit(["ann@chunking.test"], text=LARGE)
    cut = await system.submit(["lose-reply@onemx.chunking.test"], text=LARGE)
    system.start_worker()
    await system.until(refused, {"reject-in-data@chunking.test": "failed"})
    await system.until_delivered(taken)
    assert system.sink.hosts()["mx1.chunking.test"]["use"]["sessions"] == 1
    (uncertain,) = await system.until_event("recipient.uncertain")
    assert uncertain.data["queue_id"] == cut.id
