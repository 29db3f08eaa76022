"""What stands between a transaction and its final dot: the lease, an operator's word, the mark."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from relay.delivery.context import Context
from relay.delivery.directory import load_directory
from relay.delivery.lanes import Lanes
from relay.delivery.load import Load, loads_of
from relay.net.resolver import Resolver
from relay.settings.schema import Delivery, Mode, Settings, UncertainPolicy, Worker
from relay.store.queue import Store
from relay.store.settler import Settler
from relay.store.work import Taken, Work
from tests.store import mail
from tests.support.redis_server import RedisServer

LANE = mail.lane_of("one.test")
RETRY, HOLD, ASSUME = UncertainPolicy.RETRY, UncertainPolicy.HOLD, UncertainPolicy.ASSUME_DELIVERED


class Lease(msgspec.Struct):
    """When it was last renewed, by the monotonic clock."""

    renewed_at: float


class Gate(msgspec.Struct):
    """A claimed load, and the context that lets its dot through."""

    context: Context
    load: Load
    lease: Lease
    work: Work
    store: Store

    async def opens(self) -> bool:
        return await self.context.may_send(self.load)

    async def marks(self) -> int:
        return int(await self.store.wire.call("SCARD", f"{self.store.p}is:{self.work.holder}"))


async def _serve_nothing(_lane: str) -> Taken:
    return Taken("idle")


@contextlib.asynccontextmanager
async def gate_of(store: Store, policy: UncertainPolicy = RETRY) -> AsyncIterator[Gate]:
    """A worker that has claimed one message and said all but the dot."""
    settings = Settings(
        delivery=Delivery(mode=Mode.SINK, hostname="relay.example"),
        worker=Worker(uncertain_transactional=policy),
    )
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    await store.accept(mail.submission("a@one.test", "b@one.test"))
    (load,) = loads_of(await work.claim(LANE, limit=5, octets=1 << 20), 50)
    resolver = Resolver.from_settings(settings)
    lease = Lease(time.monotonic())
    settler = Settler(work)
    context = Context(
        load_directory(settings, resolver),
        work,
        settler,
        lease,
        Lanes(settings.worker, _serve_nothing),
    )
    try:
        yield Gate(context, load, lease, work, store)
    finally:
        await settler.stop(within_s=1)
        await resolver.aclose()


@pytest.mark.parametrize("policy", [RETRY, HOLD, ASSUME])
async def test_dot_is_marked_before_it_is_sent(store: Store, policy: UncertainPolicy) -> None:
    async with gate_of(store, policy) as gate:
        assert await gate.opens()
        assert gate.load.dotted
        await store.ping()
        assert await gate.marks() == 2


async def test_no_dot_is_sent_on_a_lease_that_was_not_renewed_lately(store: Store) -> None:
    """Beyond 10 s another worker may have the mail already: a lease lasts for 15 s."""
    async with gate_of(store) as gate:
        gate.lease.renewed_at -= 10.1
        assert not await gate.opens()
        assert not gate.load.dotted
        await store.ping()
        assert await gate.marks() == 0


async def test_no_dot_is_sent_for_a_recipient_that_was_cancelled_or_held(store: Store) -> None:
    async with gate_of(store) as gate:
        gate.context.revoked.add(gate.load.recipient_ids[1])
        assert not await gate.opens()
        assert await gate.marks() == 0


@pytest.mark.parametrize("policy", [HOLD, ASSUME])
async def test_dot_that_may_not_be_repeated_is_not_sent_once_another_has_the_mail(
    store: Store, policy: UncertainPolicy
) -> None:
    async with gate_of(store, policy) as gate:
        await mail.shift(store, mail.LEASE_S + 1)
        await mail.tick(await mail.worker(store))
        assert not await gate.opens()


@pytest.mark.parametrize(("policy", "waits"), [(RETRY, False), (HOLD, True), (ASSUME, True)])
async def test_dot_that_may_not_be_repeated_waits_for_redis_to_have_the_mark(
    tmp_path: Path, policy: UncertainPolicy, waits: bool
) -> None:
    server = RedisServer(tmp_path)
    server.start()
    store = await Store.connect(server.url, "sink")
    try:
        async with gate_of(store, policy) as gate:
            server.pause()
            opening = asyncio.create_task(gate.opens())
            done, _ = await asyncio.wait([opening], timeout=1.0)
            assert bool(done) is not waits
            server.resume()
            assert await opening
            await store.ping()
            assert await gate.marks() == 2
    finally:
        await store.close()
        server.stop()
