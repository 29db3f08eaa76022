"""What stands between a transaction and its final dot: the lease, an operator's word, the mark."""

import asyncio
import contextlib
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
from relay.store.limits import Taken
from relay.store.queue import Store
from relay.store.settler import Settler
from relay.store.work import Work
from tests.store import mail
from tests.support.redis_server import RedisServer

LANE = mail.lane_of("one.test")
RETRY, HOLD, ASSUME = UncertainPolicy.RETRY, UncertainPolicy.HOLD, UncertainPolicy.ASSUME_DELIVERED


class Lease(msgspec.Struct):
    """How long ago it was renewed."""

    age_s: float = 0.0


class Gate(msgspec.Struct):
    """A claimed load, and the context that lets its dot through."""

    context: Context
    load: Load
    lease: Lease
    work: Work
    store: Store
    holder: str
    fenced: asyncio.Event

    async def opens(self) -> bool:
        return await self.context.may_send(self.load, self.holder)

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
    lease = Lease()
    fenced = asyncio.Event()
    settler = Settler(work, on_fenced=fenced.set)
    context = Context(
        load_directory(settings, resolver),
        work,
        settler,
        lease,
        Lanes(settings.worker, _serve_nothing),
    )
    try:
        yield Gate(context, load, lease, work, store, work.holder, fenced)
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
        gate.lease.age_s = 10.1
        assert not await gate.opens()
        assert not gate.load.dotted
        await store.ping()
        assert await gate.marks() == 0


async def test_no_dot_is_sent_on_a_new_lease_for_what_hung_on_the_old_one(store: Store) -> None:
    """After a pause the lease is renewed before the session hears that its server said 354."""
    async with gate_of(store) as gate:
        await gate.work.begin()
        assert not await gate.opens()
        assert not gate.load.dotted


async def test_mark_tells_that_another_has_the_mail_whatever_our_clock_says(store: Store) -> None:
    async with gate_of(store) as gate:
        assert await gate.opens()
        await store.ping()
        assert not gate.fenced.is_set()
        await mail.shift(store, mail.LEASE_S + 1)
        await mail.tick(await mail.worker(store))
        assert await gate.opens()
        async with asyncio.timeout(10):
            await gate.fenced.wait()


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
