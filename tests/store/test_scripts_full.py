"""A full Redis: nothing is accepted, everything drains."""

import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.model.errors import StoreFull
from relay.model.state import State
from relay.store import queue
from relay.store.audit import audit
from relay.store.codec import encode_content
from relay.store.dns_cache import RedisDnsCache
from relay.store.limits import Report
from relay.store.queue import Store, accept_request, rows_of
from relay.store.views import QueueMatch
from relay.store.work import Work
from tests.store import mail
from tests.store.road import Road, drain
from tests.support.redis_server import RedisServer

LANE = mail.lane_of("one.test")


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with mail in it, whose Redis refuses every write that needs memory."""
    server = RedisServer(tmp_path, max_memory="6mb")
    server.start()
    store = await Store.connect(server.url, "sink", watermark=0.99)
    try:
        for number in range(30):
            await store.accept(mail.submission(f"r{number}@one.test", content=os.urandom(20_000)))
        staged = mail.submission("s@one.test", "t@one.test", queue_id="0" * 19 + "S")
        request = accept_request(staged, rows_of(staged), 1) | {"staged": True}
        await store.scripts.call("accept", request, b"\0content")
        with pytest.raises(StoreFull):
            for number in range(10_000):
                await store.wire.call("SET", f"filler:{number}", "x" * 20_000)
        # Buffers come and go: with the limit a little lower Redis stays full.
        memory = (await store.wire.call("INFO", "memory")).decode()
        used = int(memory.split("used_memory:")[1].split()[0])
        await store.wire.call("CONFIG", "SET", "maxmemory", used - 512 * 1024)
        yield store
    finally:
        await store.close()
        server.stop()


async def test_full_store_accepts_nothing_and_says_so(full: Store) -> None:
    before = await full.wire.call("DBSIZE")
    for _ in range(3):
        with pytest.raises(StoreFull):
            await full.accept(mail.submission("a@one.test", content=os.urandom(5000)))
    assert await full.wire.call("DBSIZE") == before


async def test_script_refuses_where_the_door_does_not_know_yet(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The door looks at the memory once a second; Redis knows at once."""
    monkeypatch.setattr(queue, "MEMORY_CHECK_S", 1e9)
    full._full_because = ""
    item = mail.submission("a@one.test")
    with pytest.raises(StoreFull):
        await full.accept(item)
    with pytest.raises(StoreFull):
        await full.scripts.call(
            "accept", accept_request(item, rows_of(item), 1), encode_content(item.content)
        )
    assert await full.wire.call("EXISTS", f"{full.p}m:{item.queue_id}") == 0
    assert await audit(full) == []


async def test_store_at_the_watermark_accepts_nothing(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, max_memory="6mb")
    server.start()
    store = await Store.connect(server.url, "sink", watermark=0.2)
    with pytest.raises(StoreFull, match="20%"):
        await store.accept(mail.submission("a@one.test"))
    await store.close()
    server.stop()


async def test_full_store_drains_to_the_last_message(full: Store) -> None:
    sent: Counter[str] = Counter()
    await full.commit("0" * 19 + "S")
    await drain(full, sent)
    assert sorted(sent.values()) == [1] * 32
    assert await audit(full) == []
    for number in range(100):  # what was freed is room for mail again
        await full.wire.call("DEL", f"filler:{number}")
    full._memory_checked = 0.0
    await full.accept(mail.submission("a@one.test"))


async def test_full_store_can_be_opened_by_another_worker(full: Store) -> None:
    url = f"unix://{full.wire.where.removeprefix('unix:')}"
    other = await Store.connect(url, "sink")
    work = await mail.worker(other)
    assert await work.unrouted(5) == ["one.test"]
    await other.close()


async def claimed(full: Store, count: int) -> tuple[Work, list[tuple[str, int, int]]]:
    work = await mail.worker(full)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    claim = await work.claim(LANE, limit=count, octets=1 << 20)
    return work, [(m.queue_id, r.number, r.attempt) for m, r in mail.claimed(claim)]


async def test_every_outcome_can_be_recorded_in_a_full_store(full: Store) -> None:
    work, attempts = await claimed(full, 5)
    kinds = (State.DELIVERED, State.FAILED, State.DEFERRED, State.HELD, State.READY)
    outcomes = [
        mail.outcome(*attempt, state, delay_s=60.0 if state is State.DEFERRED else 0.0)
        for attempt, state in zip(attempts, kinds, strict=True)
    ]
    report = mail.submission("news@example.org", reverse_path=None)
    assert await mail.settle(work, outcomes, report) == ["ok"] * 5
    assert await mail.states(full, report.queue_id) == ["ready"]
    await mail.shift(full, 61)
    await mail.tick(work)
    assert await audit(full) == []


async def test_verbs_work_in_a_full_store(full: Store) -> None:
    work, attempts = await claimed(full, 1)
    ids = [raw.decode() for raw in await full.wire.call("ZRANGE", full.p + "deadlines", 0, -1)]
    one, two, *_ = (item for item in ids if item != attempts[0][0] and item[-1] != "S")
    assert await full.hold(one) == 1
    assert await full.release(one) == 1
    assert await full.cancel(two) == 1
    assert await full.cancel(attempts[0][0]) == 1
    suspension = await full.suspend(QueueMatch(), reason="test", duration_s=600)
    assert suspension.queues == 1
    assert await full.resume(suspension.id) == 1
    await full.park(QueueMatch(), for_s=60, reason="r", text="t")
    await work.park_lane(LANE, 60, "r", "t")
    await work.report(Report((("key", 0, 20, 5),), (("site", False, "r", "t"),)))
    await work.unroutable("one.test", "servfail", "t")
    assert await audit(full) == []


async def test_dns_cache_without_room_does_not_stop_routing(full: Store) -> None:
    cache = RedisDnsCache(full)
    await cache.put("MX:one.test", b"x" * 10_000, 60)
    assert await cache.get("MX:one.test") is None


async def test_worker_killed_in_a_full_store_loses_nothing(full: Store) -> None:
    sent: Counter[str] = Counter()
    road = Road(await mail.worker(full), sent).steps()
    for _ in range(9):
        await anext(road)
    await road.aclose()
    await full.commit("0" * 19 + "S")
    await mail.shift(full, mail.LEASE_S + 20)
    await drain(full, sent)
    assert len(sent) == 32
    assert await audit(full) == []
