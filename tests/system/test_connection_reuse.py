"""One connection carries mail of many messages, and of all domains that share their MX hosts."""

from collections import defaultdict

import pytest

from tests.system.conftest import Start


async def test_domains_of_one_site_share_a_connection(start: Start) -> None:
    system = await start(workers=0)
    addresses = [f"ann@customer{n}.hosted.test" for n in range(8)]
    receipts = [await system.submit([address]) for address in addresses]
    system.start_worker()
    await system.until_delivered(*receipts)

    seen = system.sink.receipts()
    assert {one.host for one in seen} == {"mx1.hosting.test"}
    assert len({one.session for one in seen}) == 1
    assert [one.transaction for one in seen] == list(range(1, 9))


async def test_messages_of_one_domain_share_connections(start: Start) -> None:
    system = await start(workers=0)
    receipts = [await system.submit([f"reader{n}@shop.test"]) for n in range(40)]
    system.start_worker()
    await system.until_delivered(*receipts)

    transactions = defaultdict(list)
    for one in system.sink.receipts():
        transactions[one.session].append(one.transaction)
    assert len(transactions) <= 5
    assert all(numbers == sorted(set(numbers)) for numbers in transactions.values())
    assert sum(map(len, transactions.values())) == 40


async def test_idle_connection_takes_the_next_message(start: Start) -> None:
    system = await start(RELAY_WORKER_IDLE_SESSION="20s")
    for number in range(1, 4):
        receipt = await system.submit([f"reader{number}@customer{number}.hosted.test"])
        await system.until_delivered(receipt)
    seen = system.sink.receipts()
    assert [(one.session, one.transaction) for one in seen] == [
        (seen[0].session, number) for number in (1, 2, 3)
    ]
    lanes = await system.store.wire.call("KEYS", system.store.p + "ln:*")
    claims = await system.store.wire.call("HGET", lanes[0], "k")
    assert (len(lanes), int(claims)) == (1, 3), "no claim found out that there was no more"


@pytest.mark.client_row("C89")
async def test_connection_that_died_while_idle_costs_nothing(start: Start) -> None:
    system = await start(RELAY_WORKER_IDLE_SESSION="20s")
    await system.until_delivered(await system.submit(["ann@shop.test"]))
    assert system.sink.drop_connections() == 1
    receipt = await system.submit(["bob@shop.test"])
    await system.until_delivered(receipt)
    assert (await system.recipients(receipt))["bob@shop.test"].attempt == 1
    first, second = system.sink.receipts()
    assert first.session != second.session
    assert first.host == second.host == "mx1.shop.test"
