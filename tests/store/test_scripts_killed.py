"""Callers that die between any two of their steps: everything comes back, once.

A caller is a list of steps, each one call to the store. It is left after every one of them; then
time passes, and a worker that knows nothing of it does what the store tells it to do.
"""

from collections import Counter

import pytest

from relay.model.message import Submission
from relay.store.audit import audit
from relay.store.codec import encode_content
from relay.store.queue import Store, accept_request, rows_of
from relay.store.views import QueueMatch
from tests.store import mail
from tests.store.road import Road, drain

#: More than any road of these tests has; beyond its end nothing is left out.
STEPS = 26


async def submitted(store: Store) -> list[str]:
    """Mail to two destinations, some of it to several recipients; all recipient-ids."""
    items = [
        mail.submission("a@one.test", "b@one.test", "c@one.test"),
        mail.submission("d@two.test"),
        mail.submission("e@one.test", "f@two.test"),
    ]
    for item in items:
        await store.accept(item)
    return [
        f"{item.queue_id}.{number}"
        for item in items
        for number in range(1, len(item.forward_paths) + 1)
    ]


async def uncertain(store: Store) -> set[str]:
    events = await store.events(limit=10_000)
    return {e.data["recipient_id"] for e in events if e.type == "recipient.uncertain"}


@pytest.mark.parametrize("steps", range(STEPS))
async def test_worker_killed_after_any_step_loses_nothing(store: Store, steps: int) -> None:
    rids = await submitted(store)
    sent: Counter[str] = Counter()
    road = Road(await mail.worker(store), sent).steps()
    for _ in range(steps):
        if await anext(road, None) is None:
            break
    await road.aclose()
    assert await audit(store) == []
    await mail.shift(store, mail.LEASE_S + 20)
    await drain(store, sent)
    assert await audit(store) == []
    known = await uncertain(store)
    for rid in rids:
        # Sent twice only where that had to be: each of those is known.
        assert sent[rid] == 1 or (sent[rid] == 2 and rid in known), (rid, sent[rid])
    assert (await mail.event_types(store)).count("recipient.delivered") == len(rids)


async def test_road_of_these_tests_ends_before_their_last_step(store: Store) -> None:
    await submitted(store)
    assert STEPS - 5 < await Road(await mail.worker(store), Counter()).walk() < STEPS


async def hand_over(store: Store, item: Submission, *, rows: int, steps: int) -> None:
    """The first steps of a submission in chunks of some rows, the last of which is its commit."""
    packed = rows_of(item)
    for first in range(1, len(packed) + 1, rows):
        if steps == 0:
            return
        request = accept_request(item, packed[first - 1 : first - 1 + rows], first)
        content = encode_content(item.content) if first == 1 else b""
        await store.scripts.call("accept", {**request, "staged": True}, content)
        steps -= 1
    for _ in range(steps):
        await store.scripts.call("commit", {"id": item.queue_id, "limit": rows})


def batch(count: int) -> Submission:
    paths = [f"r{n}@d{n % 3}.test" for n in range(count)]
    return mail.submission(*paths, idempotency_key="batch", digest="same", expires_after_s=5000.0)


@pytest.mark.parametrize("steps", range(9))
async def test_door_killed_after_any_chunk_accepts_all_or_nothing(store: Store, steps: int) -> None:
    """Nobody asks again: what was not committed is not sent, what was is sent whole."""
    item = batch(7)
    await hand_over(store, item, rows=2, steps=steps)
    assert await audit(store) == []
    sent: Counter[str] = Counter()
    await drain(store, sent)
    assert len(sent) == (7 if steps > 4 else 0)
    await mail.shift(store, 6000)
    await drain(store, sent)
    assert await audit(store) == []
    accepted = (await mail.event_types(store)).count("message.accepted")
    assert accepted == (1 if steps > 4 else 0)


@pytest.mark.parametrize("steps", range(9))
async def test_submission_repeated_after_the_door_was_killed_is_sent_once(
    store: Store, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The producer got no answer and asks again with the same idempotency key."""
    monkeypatch.setattr("relay.store.queue.ROWS_PER_CALL", 2)
    first, again = batch(7), batch(7)
    await hand_over(store, first, rows=2, steps=steps)
    receipt = await store.accept(again)
    assert receipt.accepted == 7
    assert receipt.id == (first if steps else again).queue_id
    assert receipt.replayed is (steps > 0)
    sent: Counter[str] = Counter()
    await drain(store, sent)
    assert sent == Counter({item.id: 1 for item in receipt.recipients})
    assert await audit(store) == []
    assert (await mail.event_types(store)).count("message.accepted") == 1


async def test_chunk_without_the_first_is_refused(store: Store) -> None:
    item = batch(4)
    request = accept_request(item, rows_of(item)[2:], 3)
    answer = await store.scripts.call("accept", {**request, "staged": True}, b"")
    assert answer[0] == b"unknown"
    assert await audit(store) == []


async def test_commit_waits_for_all_rows_even_if_some_were_cancelled(store: Store) -> None:
    item = batch(4)
    await hand_over(store, item, rows=2, steps=1)
    await store.cancel(f"{item.queue_id}.1")
    answer = await store.scripts.call("commit", {"id": item.queue_id, "limit": 9})
    assert answer == [b"missing", 2, 4]
    await hand_over(store, item, rows=2, steps=4)
    assert (await mail.states(store, item.queue_id)).count("ready") == 3


SUSPENSION = {"id": "RULE", "match": ["", "", "", "one.test"], "for_ms": 10**7}


async def is_suspended(store: Store) -> bool:
    (queue,) = await store.queues(QueueMatch(destination="one.test"))
    return queue.suspended is not None


async def test_suspension_begun_by_a_caller_that_died_is_put_in_force(store: Store) -> None:
    await store.accept(mail.submission("a@one.test"))
    rule = {**SUSPENSION, "verb": "rule", "reason": "", "actor": ""}
    await store.scripts.call("suspend", rule)
    assert not await is_suspended(store)
    await mail.tick(await mail.worker(store))
    assert await is_suspended(store)
    assert await audit(store) == []


async def test_suspension_ended_by_a_caller_that_died_is_ended(store: Store) -> None:
    await store.accept(mail.submission("a@one.test"))
    suspension = await store.suspend(QueueMatch(), reason="test", duration_s=10**6)
    await store.scripts.call("suspend", {"verb": "over", "id": suspension.id})
    assert await store.suspensions() == []
    assert await is_suspended(store)
    await mail.tick(await mail.worker(store))
    assert not await is_suspended(store)
    assert await store.wire.call("EXISTS", store.p + "suspensions", store.p + "suspending") == 0


@pytest.mark.parametrize("outlives", [True, False])
async def test_end_of_one_suspension_leaves_another_in_force(store: Store, outlives: bool) -> None:
    await store.accept(mail.submission("a@one.test"))
    await store.suspend(QueueMatch(), reason="long", duration_s=5000)
    short = await store.suspend(QueueMatch(destination="one.test"), reason="x", duration_s=1000)
    if outlives:
        await mail.shift(store, 2000)
        await mail.tick(await mail.worker(store))
    else:
        await store.resume(short.id)
    assert [item.reason for item in await store.suspensions()] == ["long"]
    (raw,) = await store.wire.call("HMGET", store.p + "q:t|default||one.test", "su")
    assert float(raw) / 1000 > await store.now()
    sent: Counter[str] = Counter()
    await drain(store, sent)
    assert sum(sent.values()) == 1  # in the end


@pytest.mark.parametrize("is_later", [True, False])
async def test_suspension_of_a_domain_covers_its_mail_that_goes_in_spite_of_tls_failures(
    store: Store, is_later: bool
) -> None:
    match = QueueMatch(destination="one.test")
    if is_later:
        await store.suspend(match, reason="test", duration_s=10**6)
    await store.accept(mail.submission("a@one.test", destinations=("~one.test",)))
    if not is_later:
        await store.suspend(match, reason="test", duration_s=10**6)
    (raw,) = await store.wire.call("HMGET", store.p + "q:t|default||~one.test", "su")
    assert float(raw) / 1000 > await store.now()
    assert [queue.destination for queue in await store.queues(match)] == ["~one.test"]
    with pytest.raises(AssertionError, match="'ready': 1"):
        await drain(store, Counter(), rounds=2)
    assert await audit(store) == []


async def test_suspension_covers_queues_that_come_later(store: Store) -> None:
    await store.suspend(QueueMatch(tenant="ann"), reason="test", duration_s=10**6)
    await store.accept(mail.submission("a@one.test", tenant="ann"))
    await store.accept(mail.submission("a@one.test", tenant="bob"))
    views = await store.queues(QueueMatch(destination="one.test"))
    assert {view.tenant: view.suspended is not None for view in views} == {
        "ann": True,
        "bob": False,
    }


async def test_destination_with_many_queues_finds_its_lane_with_all(store: Store) -> None:
    """Routed in pages; the caller dies after the first, and the destination is asked for again."""
    for number in range(12):
        await store.accept(mail.submission("a@one.test", campaign=f"c{number}"))
    work = await mail.worker(store)
    await work.unrouted(5)
    request = {"destination": "one.test", "after": "", "limit": 5, "fresh_ms": 10**6}
    request |= {"lane": mail.lane_of("one.test"), "stale_ms": 10**9}
    moved, last = await store.scripts.call("route", request, b"site")
    assert moved == 5
    assert last
    assert await audit(store) == []
    await mail.shift(store, 60)
    sent: Counter[str] = Counter()
    await drain(store, sent)
    assert len(sent) == 12
