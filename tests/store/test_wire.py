"""The shared connection: replies in order, nothing sent twice, a broken connection told to all."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.model.errors import ConfigError, StoreError, StoreFull, StoreUnavailable
from relay.store.wire import Wire, pack_command
from tests.support.redis_server import RedisServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis of its own, because these tests break it."""
    redis = RedisServer(tmp_path)
    redis.start()
    yield redis
    redis.stop()


@pytest.fixture
async def wire(server: RedisServer) -> AsyncIterator[Wire]:
    """A connection to it."""
    opened = Wire(server.url)
    yield opened
    await opened.close()


def test_command_is_a_resp_array_of_its_arguments() -> None:
    assert pack_command(("SET", b"\x00\xff", 7)) == (
        b"*3\r\n$3\r\nSET\r\n$2\r\n\x00\xff\r\n$1\r\n7\r\n"
    )


async def test_thousands_of_concurrent_calls_get_their_own_replies(wire: Wire) -> None:
    answers = await asyncio.gather(*(wire.call("ECHO", str(n)) for n in range(5000)))
    assert answers == [str(n).encode() for n in range(5000)]


async def test_calls_of_one_moment_leave_in_one_write(wire: Wire) -> None:
    await wire.call("CONFIG", "RESETSTAT")
    await asyncio.gather(*(wire.call("SET", f"k{n}", n) for n in range(200)))
    stats = (await wire.call("INFO", "stats")).decode()
    fields = dict(line.split(":", 1) for line in stats.splitlines() if ":" in line)
    assert int(fields["total_reads_processed"]) < 20


async def test_cancelled_caller_does_not_shift_replies(wire: Wire) -> None:
    await wire.call("PING")
    tasks = [asyncio.create_task(wire.call("ECHO", str(n))) for n in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == [str(n).encode() for n in range(1, 100, 2)]
    assert await wire.call("ECHO", "after") == b"after"


async def test_error_reply_fails_only_its_own_call(wire: Wire) -> None:
    await wire.call("SET", "text", "x")
    good, bad = await asyncio.gather(
        wire.call("GET", "text"), wire.call("LPUSH", "text", "y"), return_exceptions=True
    )
    assert good == b"x"
    assert isinstance(bad, StoreError)


async def test_lost_connection_fails_all_waiting_calls_and_sends_none_again(
    server: RedisServer, wire: Wire
) -> None:
    await wire.call("SET", "n", 0)
    server.pause()
    calls = [asyncio.create_task(wire.call("INCR", "n")) for _ in range(10)]
    await wire.flushed()
    await asyncio.sleep(0.05)
    server.kill()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    server.start()
    assert await wire.call("GET", "n") in (b"0", b"10")


async def test_next_call_after_a_restart_connects_anew(server: RedisServer, wire: Wire) -> None:
    await wire.call("SET", "kept", "1")
    server.kill()
    with pytest.raises(StoreUnavailable):
        await wire.call("PING")
    server.start()
    assert await wire.call("GET", "kept") == b"1"


async def test_absent_server_is_named_without_its_password() -> None:
    wire = Wire("redis://:secret@127.0.0.1:1/0")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1") as refused:
        await wire.call("PING")
    assert "secret" not in str(refused.value)
    await wire.close()


async def test_flushed_returns_after_the_bytes_have_left(server: RedisServer, wire: Wire) -> None:
    await wire.call("DEL", "marks")
    call = asyncio.create_task(wire.call("SADD", "marks", "x" * 2_000_000))
    await asyncio.sleep(0)
    await wire.flushed()
    # What follows is what a kill -9 of this process would do: the socket is gone at once.
    connection = wire._connection
    assert connection is not None
    assert connection._transport is not None
    connection._transport.abort()
    with pytest.raises(StoreUnavailable):
        await call
    assert await wire.call("SCARD", "marks") in (0, 1)
    assert connection._transport.get_write_buffer_size() == 0


async def test_full_memory_is_store_full(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, max_memory="2mb")
    redis.start()
    wire = Wire(redis.url)
    try:
        with pytest.raises(StoreFull):
            for n in range(100):
                await wire.call("SET", f"k{n}", "x" * 100_000)
    finally:
        await wire.close()
        redis.stop()


async def test_wrong_password_is_a_fault_of_the_setting(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, options=())
    redis.start()
    with redis.client() as client:
        client.config_set("requirepass", "right")
    wire = Wire(f"unix://:wrong@{redis.socket}")
    try:
        with pytest.raises(ConfigError, match=r"redis\.url"):
            await wire.call("PING")
        good = Wire(f"unix://:right@{redis.socket}")
        assert await good.call("PING") == b"PONG"
        await good.close()
    finally:
        await wire.close()
        redis.stop()


async def test_database_of_the_url_is_selected(server: RedisServer, wire: Wire) -> None:
    other = Wire(f"{server.url}?db=3")
    await other.call("SET", "only", "there")
    assert await wire.call("GET", "only") is None
    assert await other.call("GET", "only") == b"there"
    await other.close()


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://host:port"])
def test_malformed_url_names_the_setting(url: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url"):
        Wire(url)


async def test_closed_wire_answers_nothing_more(wire: Wire) -> None:
    await wire.call("PING")
    await wire.close()
    with pytest.raises(StoreUnavailable):
        await wire.call("PING")


async def test_server_that_is_no_master_any_more_is_connected_to_anew(
    server: RedisServer, wire: Wire
) -> None:
    """Behind the same name another server may be the master by then."""
    first = await wire.call("CLIENT", "ID")
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await wire.call("SET", "key", "1")
        client.execute_command("REPLICAOF", "NO", "ONE")
    assert await wire.call("SET", "key", "1") == b"OK"
    assert await wire.call("CLIENT", "ID") != first
