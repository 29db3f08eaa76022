"""Redis killed, paused, emptied of its functions, of another schema, or unfit: what holds then."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.model.errors import ConfigError, ScriptMismatch, StoreUnavailable, SubmissionRefused
from relay.model.state import State
from relay.model.suppression import Suppression
from relay.store import connect
from relay.store.audit import audit
from relay.store.queue import Store
from relay.store.scripts import NAMES
from relay.store.settler import Settler
from relay.store.suppressions import Suppressions
from relay.store.work import Work
from tests.store import mail
from tests.store.road import drain
from tests.support.redis_server import RedisServer

LANE = mail.lane_of("one.test")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis of its own, because these tests break it."""
    redis = RedisServer(tmp_path)
    redis.start()
    yield redis
    redis.stop()


@pytest.fixture
async def own(server: RedisServer) -> AsyncIterator[Store]:
    """A store on it."""
    store = await Store.connect(server.url, "sink")
    yield store
    await store.close()


async def restart(server: RedisServer, store: Store) -> None:
    server.restart()
    try:
        await store.ping()
    except StoreUnavailable:
        await store.ping()


async def test_nothing_accepted_is_lost_by_kill_and_restart(
    server: RedisServer, own: Store
) -> None:
    accepted: list[str] = []
    killed = asyncio.Event()

    async def produce(number: int) -> None:
        while not killed.is_set():
            item = mail.submission(f"r{number}@one.test", "b@two.test")
            try:
                accepted.append((await own.accept(item)).id)
            except StoreUnavailable:
                return

    producers = [asyncio.create_task(produce(number)) for number in range(20)]
    while len(accepted) < 200:
        await asyncio.sleep(0)
    await asyncio.to_thread(server.kill)
    killed.set()
    await asyncio.gather(*producers)
    await asyncio.to_thread(server.start)
    for queue_id in accepted:
        assert await mail.states(own, queue_id) == ["ready", "ready"]
    assert await audit(own) == []


async def test_restart_in_the_middle_of_everything_leaves_a_sound_store(
    server: RedisServer, own: Store
) -> None:
    """Scripts are whole in the AOF or not at all."""
    work = await mail.worker(own)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    sent: Counter[str] = Counter()

    async def churn() -> None:
        while True:
            await own.accept(mail.submission("a@one.test", "b@one.test", "c@two.test"))
            claim = await work.claim(LANE, limit=3, octets=1 << 20)
            sent.update(mail.claimed_ids(claim))
            await mail.settle(work, mail.outcomes_of(claim, State.DELIVERED))

    churners = [asyncio.create_task(churn()) for _ in range(10)]
    while len(sent) < 100:
        await asyncio.sleep(0)
    await asyncio.to_thread(server.kill)
    answers = await asyncio.gather(*churners, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    await asyncio.to_thread(server.start)
    assert await audit(own) == []
    await mail.shift(own, mail.LEASE_S + 200)
    await mail.tick(await mail.worker(own))
    await mail.shift(own, mail.LEASE_S + 200)
    await drain(own, sent)
    assert await audit(own) == []


async def test_after_a_restart_leases_rest_before_anything_is_reclaimed(
    server: RedisServer, own: Store
) -> None:
    work = await mail.worker(own)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    receipt = await own.accept(mail.submission("a@one.test"))
    await work.claim(LANE, limit=1, octets=1 << 20)
    await restart(server, own)
    await mail.shift(own, mail.LEASE_S + 1)  # Redis was away for longer than a lease
    other = Work(own, lease_s=mail.LEASE_S, info={})
    await mail.tick(other)
    assert await mail.states(own, receipt.id) == ["claimed"]
    assert await work.renew() == []  # its holder is back in time
    await mail.shift(own, mail.LEASE_S + 14)
    await mail.tick(other)
    assert await mail.states(own, receipt.id) == ["claimed"]
    await mail.shift(own, 2)
    await mail.tick(other)
    assert await mail.states(own, receipt.id) == ["ready"]


async def test_worker_that_dies_long_after_a_restart_is_not_waited_for(
    server: RedisServer, own: Store
) -> None:
    work = await mail.worker(own)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    await restart(server, own)
    await work.renew()
    await mail.shift(own, mail.LEASE_S - 1)
    await work.renew()
    receipt = await own.accept(mail.submission("a@one.test"))
    await work.claim(LANE, limit=1, octets=1 << 20)
    await mail.shift(own, mail.LEASE_S + 1)
    await mail.tick(Work(own, lease_s=mail.LEASE_S, info={}))
    assert await mail.states(own, receipt.id) == ["ready"]


async def test_first_death_in_a_new_store_is_not_waited_for(store: Store) -> None:
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    receipt = await store.accept(mail.submission("a@one.test"))
    await work.claim(LANE, limit=1, octets=1 << 20)
    await mail.shift(store, mail.LEASE_S + 1)
    await mail.tick(Work(store, lease_s=mail.LEASE_S, info={}))
    assert await mail.states(store, receipt.id) == ["ready"]


async def test_functions_that_the_server_lost_are_loaded_again(store: Store) -> None:
    await store.wire.call("FUNCTION", "FLUSH")
    items = [mail.submission("a@one.test") for _ in range(50)]
    await asyncio.gather(*(store.accept(item) for item in items))
    assert (await store.counters())["states"] == {"ready": 50}


async def test_outcomes_survive_the_absence_of_redis(server: RedisServer, own: Store) -> None:
    work = await mail.worker(own)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    receipt = await own.accept(mail.submission("a@one.test", "b@one.test"))
    claim = await work.claim(LANE, limit=2, octets=1 << 20)
    settler = Settler(work)
    settler.start()
    await asyncio.to_thread(server.kill)
    with pytest.raises(StoreUnavailable):
        await own.ping()
    await settler.settle(mail.outcomes_of(claim, State.DELIVERED))
    assert not await settler.mark(["x.1:1"], confirmed=False)
    assert settler.unsettled == 2
    await asyncio.to_thread(server.start)
    assert await settler.stop(within_s=10)
    assert await mail.states(own, receipt.id) == ["delivered", "delivered"]
    assert await audit(own) == []


async def test_paused_server_answers_each_call_once(server: RedisServer, own: Store) -> None:
    work = await mail.worker(own)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    for _ in range(40):
        await own.accept(mail.submission("a@one.test"))
    server.pause()
    accepts = [asyncio.create_task(own.accept(mail.submission("b@one.test"))) for _ in range(20)]
    claims = [asyncio.create_task(work.claim(LANE, limit=3, octets=1 << 20)) for _ in range(5)]
    await asyncio.sleep(1.5)  # longer than any client library's own idea of a time-out here
    server.resume()
    receipts = await asyncio.gather(*accepts)
    rids = [rid for claim in await asyncio.gather(*claims) for rid in mail.claimed_ids(claim)]
    assert not any(receipt.replayed for receipt in receipts)
    assert len(rids) == len(set(rids)) == 15
    assert (await own.counters())["states"] == {"ready": 45, "claimed": 15}
    assert await audit(own) == []


async def test_submission_repeated_after_a_silence_is_queued_once(
    server: RedisServer, own: Store
) -> None:
    """The door gave up waiting and the producer asks again; both calls reach the server."""
    first = mail.submission("a@one.test", idempotency_key="k", digest="d")
    again = mail.submission("a@one.test", idempotency_key="k", digest="d")
    server.pause()
    lost = asyncio.create_task(own.accept(first))
    await asyncio.sleep(0.05)
    connection = own.wire._connection
    assert connection is not None
    connection.abort(TimeoutError("no reply"))
    with pytest.raises(StoreUnavailable):
        await lost
    server.resume()
    receipt = await own.accept(again)
    sent: Counter[str] = Counter()
    await drain(own, sent)
    assert sent == Counter({f"{receipt.id}.1": 1})


@pytest.mark.parametrize("name", NAMES)
async def test_script_of_another_schema_touches_nothing(store: Store, name: str) -> None:
    await store.accept(mail.submission("a@one.test"))
    await store.wire.call("HSET", store.p + "meta", "schema", "0")
    before = await mail.everything(store)
    with pytest.raises(ScriptMismatch, match="schema 0"):
        await store.scripts.call(name, {})
    assert await mail.everything(store) == before


async def test_store_of_another_schema_is_not_opened(
    store: Store, redis_server: RedisServer
) -> None:
    await store.wire.call("HSET", store.p + "meta", "schema", "99")
    with pytest.raises(ScriptMismatch, match="schema 99"):
        await Store.connect(redis_server.url, "sink")


async def test_store_of_one_mode_is_not_that_of_another(
    store: Store, redis_server: RedisServer
) -> None:
    await store.accept(mail.submission("a@one.test"))
    live = await Store.connect(redis_server.url, "live")
    assert (await live.counters())["states"] == {}
    await live.close()
    await store.wire.call("HSET", store.p + "meta", "mode", "live")
    with pytest.raises(ConfigError, match=r"delivery\.mode"):
        await Store.connect(redis_server.url, "sink")


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("maxmemory", "0", "no memory limit")],
)
async def test_unfit_server_is_refused_with_the_remedy(
    server: RedisServer, setting: str, value: str, expected: str
) -> None:
    with server.client() as client:
        client.config_set(setting, value)
    with pytest.raises(ConfigError, match=expected):
        await Store.connect(server.url, "sink")


@pytest.mark.parametrize(("setting", "warned"), [("no", True), ("yes", False)])
async def test_server_that_would_forget_accepted_mail_is_warned_of(
    server: RedisServer, setting: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with server.client() as client:
        client.config_set("appendonly", setting)
    store = await Store.connect(server.url, "sink")
    await store.close()
    assert ("store.not_durable" in caplog.text) is warned
    assert ("set appendonly yes" in caplog.text) is warned


@pytest.mark.parametrize(
    ("info", "fits"),
    [
        ({"redis_version": "6.2.14"}, False),
        ({"redis_version": "7.0.0"}, True),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, True),
        ({"redis_version": "7.2.4", "valkey_version": "7.0.1"}, False),
    ],
)
def test_server_that_is_too_old_is_refused(info: dict[str, str], fits: bool) -> None:
    about = {"maxmemory": "1000000", "maxmemory_policy": "noeviction", **info}
    if fits:
        connect.check_server(about, "here")
    else:
        with pytest.raises(ConfigError, match="too old"):
            connect.check_server(about, "here")


async def test_suppression_list_outlives_a_crash_of_the_server(
    server: RedisServer, own: Store
) -> None:
    await Suppressions(own).add([Suppression(name="ann@one.test")], most=10)
    await restart(server, own)
    with pytest.raises(SubmissionRefused):
        await own.accept(mail.submission("ann@one.test"))
