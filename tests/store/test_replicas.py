"""`redis.replicas`: what is answered is on so many replicas, or it is not answered as done."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from relay.model.errors import StoreUnavailable
from relay.model.state import State
from relay.store.queue import NO_COPIES, Store
from relay.store.settler import Settler
from relay.store.wire import Copies
from tests.store import mail
from tests.support.replica_set import ReplicaSet
from tests.support.system import WAIT_S

LANE = mail.lane_of("one.test")


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    """A master and one replica."""
    replica_set = ReplicaSet(
        tmp_path_factory.mktemp("set"), replicas=1, options=("--min-replicas-to-write", "1")
    )
    replica_set.start()
    yield replica_set
    replica_set.stop()


@pytest.fixture
async def careful(replicas: ReplicaSet) -> AsyncIterator[Store]:
    """A store where the replica must have what is answered."""
    with replicas.client() as client:
        client.flushall()
    store = await Store.connect(replicas.url, "sink", copies=Copies(1, within_s=0.1))
    yield store
    await store.close()


@pytest.fixture
def stopped(replicas: ReplicaSet) -> Iterator[ReplicaSet]:
    """The replica hears nothing and says nothing until it is let go."""
    (replica,) = replicas.replicas()
    yield replicas
    replica.resume()


def stop(replicas: ReplicaSet) -> None:
    replicas.replicas()[0].pause()


def resume(replicas: ReplicaSet) -> None:
    replicas.replicas()[0].resume()


async def waits(store: Store) -> int:
    """How often the server was told to wait for replicas."""
    fields = (await store.wire.call("INFO", "commandstats")).decode().splitlines()
    found = [line for line in fields if line.startswith("cmdstat_wait:")]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0


async def test_replica_has_what_was_accepted(careful: Store, replicas: ReplicaSet) -> None:
    patient = await Store.connect(replicas.url, "sink", copies=Copies(1, within_s=20))
    receipt = await patient.accept(mail.submission("ann@one.test"))
    await patient.close()
    with replicas.replicas()[0].client() as replica:
        assert replica.exists(f"{careful.p}m:{receipt.id}")


async def test_accept_that_reached_no_replica_is_no_accept(
    careful: Store, stopped: ReplicaSet
) -> None:
    item = mail.submission("ann@one.test", idempotency_key="once", digest="d")
    stop(stopped)
    with pytest.raises(StoreUnavailable, match=r"^0 of 1 replicas had it within 0\.1 s"):
        await careful.accept(item)
    # The master has it, which does not count: nor when it is asked again, by another connection.
    other = await Store.connect(stopped.url, "sink", copies=Copies(1, within_s=0.1))
    with pytest.raises(StoreUnavailable, match="0 of 1"):
        await other.accept(mail.submission("ann@one.test", idempotency_key="once", digest="d"))
    resume(stopped)
    receipt = await other.accept(item)
    assert (receipt.id, receipt.replayed) == (item.queue_id, True)
    await other.close()


async def test_outcome_stays_unsettled_until_a_replica_has_it(
    careful: Store, stopped: ReplicaSet
) -> None:
    work = await mail.worker(careful)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    receipt = await careful.accept(mail.submission("ann@one.test"))
    claim = await work.claim(LANE, limit=1, octets=1 << 20)
    settler = Settler(work)
    settler.start()
    stop(stopped)
    await settler.settle(mail.outcomes_of(claim, State.DELIVERED))
    async with asyncio.timeout(WAIT_S):
        while await mail.states(careful, receipt.id) != ["delivered"]:
            await asyncio.sleep(0.02)
    assert not await settler.mark([f"{receipt.id}.1:1"], confirmed=True)
    assert settler.unsettled == 1
    resume(stopped)
    assert await settler.stop(within_s=WAIT_S)
    with stopped.replicas()[0].client() as replica:
        types = [fields[b"t"] for _, fields in replica.xrange(careful.p + "events")]
    assert types.count(b"recipient.delivered") == 1


async def test_accepts_of_one_moment_wait_together(careful: Store) -> None:
    before = await waits(careful)
    await asyncio.gather(*(careful.accept(mail.submission("ann@one.test")) for _ in range(200)))
    assert 0 < await waits(careful) - before < 50


async def test_nobody_waits_for_replicas_that_are_not_asked_for(replicas: ReplicaSet) -> None:
    store = await Store.connect(replicas.url, "sink", copies=NO_COPIES)
    before = await waits(store)
    await store.accept(mail.submission("ann@one.test"))
    assert await waits(store) == before
    await store.close()


async def test_missing_replicas_and_a_server_that_does_not_ask_for_them_are_told(
    replicas: ReplicaSet, caplog: pytest.LogCaptureFixture
) -> None:
    await (await Store.connect(replicas.url, "sink", copies=Copies(1))).close()
    assert not caplog.messages
    with replicas.client() as client:
        client.config_set("min-replicas-to-write", 0)
    await (await Store.connect(replicas.url, "sink", copies=Copies(2))).close()
    with replicas.client() as client:
        client.config_set("min-replicas-to-write", 1)
    missing, unguarded = caplog.messages
    assert missing.startswith("store.replicas_missing")
    assert "is 2, and the master has 1 now" in missing
    assert unguarded.startswith("store.not_guarded")
