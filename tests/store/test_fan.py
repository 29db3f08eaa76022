"""Submissions by several wires: more of them only when many are under way, each message once."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.model.errors import StoreUnavailable
from relay.store.fan import BUSY, MOST_WIRES
from relay.store.queue import BESIDE_OCTETS, Store
from tests.store import mail
from tests.support.redis_server import RedisServer


async def wires(store: Store) -> int:
    """Connections that are open under the name of the store under test."""
    clients = (await store.wire.call("CLIENT", "LIST")).decode().splitlines()
    return sum("name=test " in line for line in clients)


async def accept_at_once(store: Store, count: int, content: bytes = b"Subject: a\r\n\r\n") -> None:
    submissions = [mail.submission("ann@near.test", content=content) for _ in range(count)]
    receipts = await asyncio.gather(*(store.accept(one) for one in submissions))
    assert [one.id for one in receipts] == [one.queue_id for one in submissions]


async def test_few_submissions_go_by_one_wire(store: Store) -> None:
    for _ in range(3):
        await accept_at_once(store, BUSY)
    assert await wires(store) == 1


async def test_many_submissions_go_by_several_wires_each_message_once(store: Store) -> None:
    await accept_at_once(store, BUSY * (MOST_WIRES + 4))
    assert await wires(store) == MOST_WIRES
    count = BUSY * (MOST_WIRES + 4)
    assert await store.wire.call("HGET", store.p + "states", "ready") == str(count).encode()


async def test_content_beside_the_script_goes_by_the_same_wire(store: Store) -> None:
    """By another one it might come behind the script, which would refuse the message."""
    body = random.Random(1).randbytes(4 * BESIDE_OCTETS)
    await accept_at_once(store, 200, b"Subject: a\r\n\r\n" + body.hex().encode())
    assert await wires(store) == MOST_WIRES
    assert await store.wire.call("KEYS", store.p + "beside:*") == []


async def test_all_wires_are_closed_with_the_store(store: Store, redis_server: RedisServer) -> None:
    other = await Store.connect(redis_server.url, "sink", client_name="other")
    await accept_at_once(other, 100)
    await other.close()
    async with asyncio.timeout(30):
        while "name=other " in (await store.wire.call("CLIENT", "LIST")).decode():
            await asyncio.sleep(0.01)


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, Store]]:
    """A store in a Redis that the test may break."""
    server = RedisServer(tmp_path)
    server.start()
    store = await Store.connect(server.url, "sink", client_name="test")
    yield server, store
    await store.close()
    server.stop()


async def test_wires_that_broke_are_opened_again_and_scripts_loaded_anew(
    own: tuple[RedisServer, Store],
) -> None:
    server, store = own
    await accept_at_once(store, 100)
    server.kill()
    with pytest.raises(StoreUnavailable):
        await accept_at_once(store, 1)
    server.start()
    with server.client() as client:
        client.function_flush()
    await accept_at_once(store, 100)
    assert await wires(store) == MOST_WIRES
