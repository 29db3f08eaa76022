"""Who may still change a recipient after its lease was lost, and what is said of the others.

Fenced by (recipient, attempt, whose claim): a final outcome that comes late still applies if the
recipient has not been claimed since; anything else then changes nothing, and a delivery too many is
recorded. A failover of Redis may lose a claim, and let another worker make the same attempt.
"""

from collections.abc import AsyncIterator

import pytest

from relay.model.errors import LeaseLost
from relay.model.state import State
from relay.store.audit import audit
from relay.store.limits import Ceilings
from relay.store.queue import Store
from relay.store.work import Work
from tests.store import mail

LANE = mail.lane_of("one.test")
ID = "0000000000000000000A"
FINAL = (State.DELIVERED, State.FAILED, State.EXPIRED)


class Two:
    """A worker that lost its lease in the middle of an attempt, and one that lives."""

    def __init__(self, store: Store, late: Work, live: Work) -> None:
        self.store = store
        self.late = late
        self.live = live

    async def state(self) -> str:
        return (await mail.states(self.store, ID))[0]

    async def settle(self, work: Work, attempt: int, state: State) -> str:
        done = mail.outcome(ID, 1, attempt, state, delay_s=60.0 if state is State.DEFERRED else 0)
        (answer,) = await mail.settle(work, [done])
        return answer

    async def duplicates(self) -> list[int]:
        events = await self.store.events(limit=1000)
        return [e.data["late_attempt"] for e in events if e.type == "recipient.duplicate"]


@pytest.fixture
async def two(store: Store) -> AsyncIterator[Two]:
    """The recipient was claimed by `late`, whose lease ran out; it is ready again."""
    late = await mail.worker(store)
    await late.routed("one.test", LANE, b"site", fresh_s=10_000)
    await store.accept(mail.submission("ann@one.test", queue_id=ID))
    await late.claim(LANE, limit=1, octets=1 << 20)
    await mail.shift(store, mail.LEASE_S + 20)
    live = await mail.worker(store)
    await mail.tick(live)
    yield Two(store, late, live)
    assert await audit(store) == []


async def test_lost_lease_returns_the_recipient(two: Two) -> None:
    assert await two.state() == "ready"
    assert "worker.lost" in await mail.event_types(two.store)


@pytest.mark.parametrize("state", FINAL)
async def test_late_final_outcome_applies_while_nobody_has_claimed_since(
    two: Two, state: State
) -> None:
    assert await two.settle(two.late, 1, state) == "ok"
    assert await two.state() == str(state)
    assert await two.duplicates() == []
    assert not (await two.live.claim(LANE, limit=1, octets=1 << 20)).messages


@pytest.mark.parametrize("state", [State.DEFERRED, State.READY, State.HELD])
async def test_late_outcome_that_is_not_final_changes_nothing(two: Two, state: State) -> None:
    before = await mail.everything(two.store)
    await two.settle(two.late, 1, state)
    assert await mail.everything(two.store) == before


@pytest.mark.parametrize("state", [*FINAL, State.DEFERRED, State.READY, State.HELD])
async def test_late_outcome_changes_nothing_once_claimed_again(two: Two, state: State) -> None:
    await two.live.claim(LANE, limit=1, octets=1 << 20)
    assert await two.settle(two.late, 1, state) == "fenced"
    assert await two.state() == "claimed"
    assert await two.duplicates() == ([1] if state is State.DELIVERED else [])
    assert await two.settle(two.live, 2, State.DELIVERED) == "ok"


async def test_second_delivery_is_recorded_once_however_often_it_is_told(two: Two) -> None:
    await two.live.claim(LANE, limit=1, octets=1 << 20)
    await two.settle(two.live, 2, State.DELIVERED)
    for _ in range(2):
        assert await two.settle(two.late, 1, State.DELIVERED) == "fenced"
    events = [e for e in await two.store.events(limit=99) if e.type == "recipient.duplicate"]
    assert len({event.id for event in events}) == 1
    assert await two.state() == "delivered"


async def test_delivery_after_an_operator_cancelled_is_recorded(two: Two) -> None:
    await two.store.cancel(ID)
    assert await two.settle(two.late, 1, State.DELIVERED) == "fenced"
    assert await two.state() == "cancelled"
    assert await two.duplicates() == [1]


async def test_worker_that_lost_its_lease_gets_nothing_more(two: Two) -> None:
    with pytest.raises(LeaseLost):
        await two.late.claim(LANE, limit=1, octets=1 << 20)
    with pytest.raises(LeaseLost):
        await two.late.renew()
    taken = await two.late.take(LANE, two.late.new_token(), Ceilings(slots=(("key", 5),)))
    assert (taken.word, taken.reason) == ("no", "lease_lost")
    marks = {"holder": two.late.holder, "marks": [f"{ID}.1:1"]}
    assert await two.store.scripts.call("mark", marks) == 0


async def test_outcome_of_another_worker_does_not_count(two: Two) -> None:
    await two.live.claim(LANE, limit=1, octets=1 << 20)
    assert await two.settle(two.late, 2, State.DEFERRED) == "fenced"
    assert await two.state() == "claimed"


async def test_lease_that_only_ran_out_can_be_renewed(store: Store) -> None:
    work = await mail.worker(store)
    await mail.shift(store, mail.LEASE_S + 20)
    assert await work.renew() == []


async def test_lease_that_is_being_reclaimed_cannot_be_renewed(store: Store) -> None:
    """Half of what it held is gone already."""
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    for _ in range(3):
        await store.accept(mail.submission("ann@one.test"))
    await work.claim(LANE, limit=3, octets=1 << 20)
    await mail.shift(store, mail.LEASE_S + 20)
    tick = {"holder": "T", "limit": 1, "grace_ms": 0, "keep": 100, "pools": []}
    tick |= {"uncertain": mail.NO_UNCERTAINTY, "expected": 0, "slew_ms": 0}
    await store.scripts.call("tick", tick)
    assert await store.wire.call("SCARD", f"{store.p}ic:{work.holder}") == 2
    with pytest.raises(LeaseLost):
        await work.renew()
    assert await audit(store) == []


@pytest.fixture
async def forgotten(store: Store) -> AsyncIterator[Two]:
    """The recipient was claimed by `late`; then a replica took over that had not heard of it."""
    late, live = await mail.worker(store), await mail.worker(store)
    await late.routed("one.test", LANE, b"site", fresh_s=10_000)
    await store.accept(mail.submission("ann@one.test", queue_id=ID))
    replica = await all_keys(store)
    await late.claim(LANE, limit=1, octets=1 << 20)
    await store.wire.call("FLUSHDB")
    for key, value in replica.items():
        await store.wire.call("RESTORE", key, 0, value)
    yield Two(store, late, live)
    assert await audit(store) == []


async def all_keys(store: Store) -> dict[bytes, bytes]:
    return {key: await store.wire.call("DUMP", key) for key in await store.wire.call("KEYS", "*")}


@pytest.mark.parametrize("first", ["late", "live"])
async def test_two_deliveries_by_the_same_attempt_are_one_and_a_duplicate(
    forgotten: Two, first: str
) -> None:
    (again,) = (await forgotten.live.claim(LANE, limit=1, octets=1 << 20)).messages
    assert again.recipients[0].attempt == 1
    order = [forgotten.late, forgotten.live]
    for work in order if first == "late" else reversed(order):
        answer = await forgotten.settle(work, 1, State.DELIVERED)
        assert answer == ("ok" if work is forgotten.live else "fenced")
    assert await forgotten.duplicates() == [1]
    assert await forgotten.state() == "delivered"
    # Told twice it stays what it was.
    assert await forgotten.settle(forgotten.live, 1, State.DELIVERED) == "again"
    assert await forgotten.settle(forgotten.late, 1, State.DELIVERED) == "fenced"


async def test_outcome_of_a_forgotten_claim_does_not_pass_for_that_of_another(
    forgotten: Two,
) -> None:
    await forgotten.live.claim(LANE, limit=1, octets=1 << 20)
    assert await forgotten.settle(forgotten.live, 1, State.DEFERRED) == "ok"
    assert await forgotten.settle(forgotten.late, 1, State.DEFERRED) == "fenced"
    assert await forgotten.settle(forgotten.late, 1, State.DELIVERED) == "fenced"
    assert await forgotten.duplicates() == [1]
    assert await forgotten.state() == "deferred"


@pytest.mark.parametrize("state", FINAL)
async def test_end_of_a_forgotten_claim_counts_while_nobody_has_claimed_since(
    forgotten: Two, state: State
) -> None:
    assert await forgotten.settle(forgotten.late, 1, state) == "ok"
    assert await forgotten.state() == str(state)
    assert await forgotten.duplicates() == []
    assert await forgotten.settle(forgotten.late, 1, state) == "again"
    assert not (await forgotten.live.claim(LANE, limit=1, octets=1 << 20)).messages


async def test_other_outcomes_of_a_forgotten_claim_change_nothing(forgotten: Two) -> None:
    before = await mail.everything(forgotten.store)
    for state in (State.DEFERRED, State.READY, State.HELD):
        assert await forgotten.settle(forgotten.late, 1, state) == "fenced"
    assert await mail.everything(forgotten.store) == before


async def test_mail_in_hand_is_not_sent_again_by_the_same_worker(forgotten: Two) -> None:
    """The store hands out anew what it has forgotten; who still has it knows better."""
    assert not (await forgotten.late.claim(LANE, limit=1, octets=1 << 20)).messages
    assert await forgotten.settle(forgotten.late, 1, State.DELIVERED) == "ok"
    assert await forgotten.state() == "delivered"
    assert await forgotten.duplicates() == []


@pytest.mark.parametrize(
    ("policy", "state"), [("retry", "ready"), ("hold", "held"), ("assume-delivered", "delivered")]
)
async def test_recipient_whose_dot_was_sent_follows_the_policy_of_its_class(
    store: Store, policy: str, state: str
) -> None:
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    await store.accept(mail.submission("ann@one.test", queue_id=ID))
    await work.claim(LANE, limit=1, octets=1 << 20)
    await store.scripts.call("mark", {"holder": work.holder, "marks": [f"{ID}.1:1"]})
    await work.end()
    await mail.tick(await mail.worker(store), uncertain={"t": policy, "b": "retry"})
    assert await mail.states(store, ID) == [state]
    assert "recipient.uncertain" in await mail.event_types(store, f"{ID}.1")
    assert await audit(store) == []


async def test_bad_item_never_blocks_the_others(store: Store) -> None:
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    await store.accept(mail.submission("ann@one.test", queue_id=ID))
    await store.accept(mail.submission("bob@one.test", queue_id=ID[:-1] + "B"))
    await work.claim(LANE, limit=5, octets=1 << 20)
    await store.wire.call("HSET", f"{store.p}m:{ID[:-1]}B", "1", b"\x93")  # unreadable
    outcomes = [
        mail.outcome("0" * 20, 1, 1, State.DELIVERED),
        mail.outcome(ID, 9, 1, State.DELIVERED),
        mail.outcome(ID[:-1] + "B", 1, 1, State.DELIVERED),
        mail.outcome(ID, 1, 1, State.DELIVERED),
    ]
    answers = await mail.settle(work, outcomes)
    assert answers == ["unknown", "unknown", "unknown", "ok"]
    assert await store.wire.call("HGET", store.p + "quarantine", f"{ID[:-1]}B.1") == b"\x93"


async def test_report_is_queued_only_with_an_outcome_that_applied(two: Two) -> None:
    report = mail.submission("news@example.org", reverse_path=None)
    await two.live.claim(LANE, limit=1, octets=1 << 20)
    failed = mail.outcome(ID, 1, 1, State.FAILED)
    assert await mail.settle(two.late, [failed], report) == ["fenced"]
    assert await two.store.wire.call("EXISTS", f"{two.store.p}m:{report.queue_id}") == 0
    failed = mail.outcome(ID, 1, 2, State.FAILED)
    assert await mail.settle(two.live, [failed], report) == ["ok"]
    assert await mail.states(two.store, report.queue_id) == ["ready"]


async def test_only_workers_with_a_lease_are_shown(store: Store) -> None:
    living, ended = await mail.worker(store), await mail.worker(store)
    assert (await store.counters())["workers"] == len(await store.workers()) == 2
    await ended.end()
    assert [one["incarnation"] for one in await store.workers()] == [living.holder]
    await mail.shift(store, mail.LEASE_S + 1)
    assert await store.workers() == []
    assert (await store.counters())["workers"] == 0
