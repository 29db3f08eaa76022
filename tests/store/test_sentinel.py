"""A master that is found through sentinels: asked anew at each connection, never taken on trust."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.model.errors import ConfigError, StoreUnavailable
from relay.store import connect
from relay.store.queue import Store
from relay.store.wire import Wire
from tests.store import mail
from tests.support.ports import free_port
from tests.support.replica_set import ReplicaSet
from tests.support.system import WAIT_S


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    """One master, two replicas, three sentinels."""
    replica_set = ReplicaSet(tmp_path_factory.mktemp("set"))
    replica_set.start()
    yield replica_set
    replica_set.stop()


async def until_answered(wire: Wire, *command: object) -> object:
    """The reply to a command that is given again and again until there is a master."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await wire.call(*command)
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def test_replica_that_is_called_the_master_is_not_used(replicas: ReplicaSet) -> None:
    with replicas.replicas()[0].client() as replica:
        port = replica.config_get("port")["port"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n{port}\r\n".encode())
        await reader.read()
        writer.close()

    sentinel = await asyncio.start_server(answer, "127.0.0.1", 0)
    at = sentinel.sockets[0].getsockname()[1]
    wire = Wire(f"redis+sentinel://127.0.0.1:{at}/mymaster")
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port} is called the master and is"):
        await wire.call("GET", "key")
    await wire.close()
    sentinel.close()
    await sentinel.wait_closed()


async def test_message_accepted_before_a_failover_is_there_after_it(replicas: ReplicaSet) -> None:
    store = await Store.connect(replicas.url, "sink")
    before = store.wire.where
    receipt = await store.accept(mail.submission("ann@one.test"))
    await store.wire.call("WAIT", 2, 1000)
    replicas.fail_over()  # here: what a thread starts ends with it
    await until_answered(store.wire, "PING")
    assert store.wire.where != before
    assert await mail.states(store, receipt.id) == ["ready"]
    await store.accept(mail.submission("bob@one.test"))
    await store.close()


async def test_failover_counts_as_a_restart_for_leases(replicas: ReplicaSet) -> None:
    """Nobody could renew meanwhile: nothing is taken back for a lease and 15 s."""
    store = await Store.connect(replicas.url, "sink")
    await store.wire.call("FLUSHALL")
    await connect.stamp(store.wire, "sink")
    work, lane = await mail.worker(store), mail.lane_of("one.test")
    await work.routed("one.test", lane, b"site", fresh_s=10_000)
    receipt = await store.accept(mail.submission("ann@one.test"))
    await work.claim(lane, limit=1, octets=1 << 20)
    await store.wire.call("WAIT", 2, 1000)
    replicas.fail_over()
    await until_answered(store.wire, "PING")
    other = await mail.worker(store)
    await mail.shift(store, mail.LEASE_S + 10)
    await mail.tick(other)
    assert await mail.states(store, receipt.id) == ["claimed"]
    await mail.shift(store, 10)
    await mail.tick(other)
    assert await mail.states(store, receipt.id) == ["ready"]
    assert "recipient.uncertain" in await mail.event_types(store, f"{receipt.id}.1")
    await store.close()


async def test_master_that_hangs_is_left_when_it_is_replaced(replicas: ReplicaSet) -> None:
    wire = Wire(replicas.url)
    await wire.call("PING")
    hanging, port = replicas.master, replicas.master_port
    hanging.pause()
    try:
        call = asyncio.create_task(wire.call("PING"))
        await asyncio.to_thread(replicas.until_replaced, port)
        with pytest.raises(StoreUnavailable, match="another master"):
            await asyncio.wait_for(call, WAIT_S)
        await until_answered(wire, "SET", "key", "1")
        assert wire.where == f"127.0.0.1:{replicas.master_port}"
    finally:
        hanging.resume()
        await wire.close()


async def test_sentinels_that_are_dead_or_silent_are_passed_over(replicas: ReplicaSet) -> None:
    living = replicas.url.partition("//")[2]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        wire = Wire(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port},{living}")
        assert await wire.call("ECHO", "found") == b"found"
        await wire.close()


async def test_unknown_master_and_absent_sentinels_are_told_in_a_line(replicas: ReplicaSet) -> None:
    wire = Wire(replicas.url.replace("mymaster", "hermaster"))
    with pytest.raises(StoreUnavailable, match=r"^no sentinel names a master .* master hermaster"):
        await wire.call("PING")
    await wire.close()
    port = free_port()
    wire = Wire(f"redis+sentinel://127.0.0.1:{port}/mymaster")
    with pytest.raises(StoreUnavailable, match=rf"^no sentinel names a master \(127.0.0.1:{port}"):
        await wire.call("PING")
    await wire.close()


async def test_logins_of_redis_and_of_its_sentinels(tmp_path: Path) -> None:
    replica_set = ReplicaSet(tmp_path, replicas=0, password="s3cret/@", sentinel_password="hush")
    replica_set.start()
    try:
        store = await Store.connect(replica_set.url, "sink")
        await store.ping()
        await store.close()
        wire = Wire(replica_set.url.partition("?")[0])
        with pytest.raises(ConfigError, match=r"^redis.url: the sentinel at .* the credentials"):
            await wire.call("PING")
        await wire.close()
    finally:
        replica_set.stop()
