"""Streams: deadlines, back-pressure, loopback only, source address, the end of connections."""

import asyncio

import pytest
from scripted_smtp import Peer, ScriptedServer

from relay.model.errors import ConnectFailed, ConnectionLost, TlsFailed
from relay.net.stream import RECEIVE_OCTETS, Stream, connect, is_loopback
from relay.net.tls import client_context

RUNS_ON_BOTH_LOOPS = True


async def to(server: ScriptedServer, **more: str) -> Stream:
    return await connect("127.0.0.1", server.port, timeout_s=2, allow_only_loopback=True, **more)


def soon(seconds: float = 2.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def end(stream: Stream) -> None:
    stream.close()
    await stream.wait_closed(0.2)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.200.3.4", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("192.0.2.1", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("2001:db8::1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_everything_else(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1"])
async def test_sink_mode_refuses_other_addresses_before_a_packet(address: str) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(ConnectFailed, match="sink mode"):
        await connect(address, 25, timeout_s=5, allow_only_loopback=True)
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_names_are_not_addresses() -> None:
    with pytest.raises(ConnectFailed, match="not an IP address"):
        await connect("localhost", 25, timeout_s=5, allow_only_loopback=False)


async def test_connection_comes_from_the_source_address() -> None:
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(peer.writer.get_extra_info("peername")[0])

    async with ScriptedServer(script).running() as server:
        stream = await to(server, source_address="127.0.0.77")
        assert await stream.read(soon()) == b""
        await end(stream)
    assert seen == ["127.0.0.77"]


@pytest.mark.parametrize("source", ["192.0.2.1", "::1", "nonsense"])
async def test_source_address_that_is_not_ours_fails_to_connect(source: str) -> None:
    async with ScriptedServer(Peer.gone).running() as server:
        with pytest.raises(ConnectFailed):
            await to(server, source_address=source)


async def test_read_gives_what_came_then_the_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("one")

    async with ScriptedServer(script).running() as server:
        stream = await to(server)
        await asyncio.sleep(0.05)
        assert stream.has_unread
        assert not stream.is_open
        assert await stream.read(soon()) == b"one\r\n"
        assert await stream.read(soon()) == b""
        await end(stream)


async def test_deadline_ends_a_read_and_the_next_one_may_be_later() -> None:
    expired = asyncio.Event()

    async def script(peer: Peer) -> None:
        await expired.wait()
        await peer.say("late")
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        stream = await to(server)
        with pytest.raises(TimeoutError):
            await stream.read(soon(0.05))
        expired.set()
        assert await stream.read(soon(2)) == b"late\r\n"
        with pytest.raises(TimeoutError):
            await stream.read(soon(0.05))
        with pytest.raises(TimeoutError):
            await stream.read(soon(-1))
        await end(stream)


async def test_reset_is_a_lost_connection_after_what_was_read() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("last words")
        await asyncio.sleep(0.05)
        peer.reset()

    async with ScriptedServer(script).running() as server:
        stream = await to(server)
        await asyncio.sleep(0.1)
        stream_said = b""
        with pytest.raises(ConnectionLost):
            for _ in range(100):
                stream.write(b"x" * 1000)
                await asyncio.sleep(0.001)
        while data := await read_or_end(stream):
            stream_said += data
        assert stream_said == b"last words\r\n"
        await end(stream)


async def read_or_end(stream: Stream) -> bytes:
    try:
        return await stream.read(soon())
    except ConnectionLost:
        return b""


async def test_drain_waits_for_the_reader_and_wakes_when_the_peer_speaks() -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await asyncio.sleep(0.1)
        await peer.say("stop it")
        await read.wait()
        peer.writer.transport.resume_reading()
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        stream = await to(server)
        stream.write(b"x" * 20_000_000)
        assert stream.unwritten
        assert await stream.drain(soon()) is False
        assert await stream.read(soon()) == b"stop it\r\n"
        with pytest.raises(TimeoutError):
            await stream.drain(soon(0.05))
        read.set()
        assert await stream.drain(soon(5)) is True
        assert not stream.unwritten
        await end(stream)


async def test_flood_of_the_peer_is_held_back() -> None:
    async def script(peer: Peer) -> None:
        for _ in range(500):
            peer.writer.write(b"x" * 65536)
            await peer.writer.drain()

    async with ScriptedServer(script).running() as server:
        stream = await to(server)
        await asyncio.sleep(0.2)
        data = await stream.read(soon())
        assert RECEIVE_OCTETS < len(data) < 3 * RECEIVE_OCTETS
        total = len(data)
        while total < 500 * 65536:
            total += len(await stream.read(soon()))
        await end(stream)


async def test_abort_ends_a_waiting_read() -> None:
    async with ScriptedServer(Peer.gone).running() as server:
        stream = await to(server)
        reading = asyncio.create_task(stream.read(soon()))
        await asyncio.sleep(0.02)
        stream.abort()
        with pytest.raises(ConnectionLost):
            await reading
        with pytest.raises(ConnectionLost):
            stream.write(b"x")
        await end(stream)


async def test_handshake_with_unread_octets_is_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("surplus")
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        stream = await to(server)
        await asyncio.sleep(0.05)
        with pytest.raises(TlsFailed, match="octets in clear"):
            await stream.start_tls(client_context(verified=False), "mx.test", 1)
        await end(stream)


async def test_handshake_on_a_closed_connection_is_refused() -> None:
    async def script(peer: Peer) -> None:
        pass

    async with ScriptedServer(script).running() as server:
        stream = await to(server)
        await asyncio.sleep(0.05)
        with pytest.raises(TlsFailed):
            await stream.start_tls(client_context(verified=False), "mx.test", 1)
        await end(stream)


async def test_cancelled_connect_leaves_nothing_open() -> None:
    async with ScriptedServer(Peer.gone).running() as server:
        task = asyncio.create_task(to(server))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)  # the server may have accepted it
