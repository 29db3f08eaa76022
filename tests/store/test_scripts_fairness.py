"""Whose mail goes next: classes, tenants, queues, retries; and mail that ends its worker."""

from collections import Counter

import pytest

from relay.model.state import State
from relay.store.audit import audit
from relay.store.limits import Rate
from relay.store.queue import Store
from relay.store.views import QueueMatch
from relay.store.work import Work
from tests.store import mail

LANE = mail.lane_of("one.test")


async def worker(store: Store) -> Work:
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    return work


async def accept(store: Store, count: int, **more: str) -> None:
    for _ in range(count):
        await store.accept(mail.submission("a@one.test", **more))


async def claims(work: Work, count: int, *, limit: int = 1) -> list[str]:
    """The queues of the next claims, without their destination."""
    found = []
    for _ in range(count):
        claim = await work.claim(LANE, limit=limit, octets=1 << 20)
        queues = [item.queue for _, item in mail.claimed(claim)]
        found.append(queues[0].rpartition("|")[0] if queues else "")
    return found


async def test_transactional_goes_before_bulk_which_gets_one_claim_in_ten(store: Store) -> None:
    work = await worker(store)
    await accept(store, 40, mail_class="transactional")
    await accept(store, 40, mail_class="bulk")
    classes = [queue[0] for queue in await claims(work, 30)]
    assert classes == (["t"] * 9 + ["b"]) * 3


async def test_bulk_gets_every_claim_when_nothing_else_is_ready(store: Store) -> None:
    work = await worker(store)
    await accept(store, 5, mail_class="bulk")
    assert await claims(work, 6) == ["b|default|"] * 5 + [""]


async def test_tenants_take_turns_whatever_they_have_queued(store: Store) -> None:
    work = await worker(store)
    await accept(store, 40, tenant="large")
    await accept(store, 5, tenant="small")
    tenants = Counter(queue.split("|")[1] for queue in await claims(work, 10))
    assert tenants == {"large": 5, "small": 5}


async def test_claim_charges_its_recipients_to_the_tenant(store: Store) -> None:
    work = await worker(store)
    await accept(store, 10, tenant="ann")
    await accept(store, 10, tenant="bob")
    await work.claim(LANE, limit=5, octets=1 << 20)  # five at once, by one of them
    tenants = [queue.split("|")[1] for queue in await claims(work, 5)]
    assert len(set(tenants)) == 1  # then the other's five


async def test_weight_is_the_share_of_a_tenant(store: Store) -> None:
    work = await worker(store)
    await store.wire.call("HSET", store.p + "weights", "ann", 3)
    await accept(store, 40, tenant="ann")
    await accept(store, 40, tenant="bob")
    assert Counter(q.split("|")[1] for q in await claims(work, 20)) == {"ann": 15, "bob": 5}


async def test_newcomer_starts_at_the_present_minimum(store: Store) -> None:
    """It neither waits for what the others had before, nor takes over until it has had as much."""
    work = await worker(store)
    await accept(store, 60, tenant="ann")
    await accept(store, 60, tenant="bob")
    await claims(work, 60)
    await accept(store, 30, tenant="new")
    tenants = Counter(queue.split("|")[1] for queue in await claims(work, 30))
    assert max(tenants.values()) - min(tenants.values()) <= 1
    assert set(tenants) == {"ann", "bob", "new"}


async def test_queues_of_a_tenant_take_turns(store: Store) -> None:
    work = await worker(store)
    for campaign in ("a", "b", "c"):
        await accept(store, 10, campaign=campaign)
    campaigns = [queue.split("|")[2] for queue in await claims(work, 9)]
    assert campaigns == ["a", "b", "c"] * 3


async def test_retries_get_one_claim_in_four(store: Store) -> None:
    work = await worker(store)
    await accept(store, 10)
    claim = await work.claim(LANE, limit=10, octets=1 << 20)
    await mail.settle(work, mail.outcomes_of(claim, State.DEFERRED, delay_s=10))
    await mail.shift(store, 11)
    await mail.tick(work)
    await accept(store, 40)
    steps = []
    for _ in range(16):
        (found,) = mail.claimed(await work.claim(LANE, limit=1, octets=1 << 20))
        steps.append(found[1].step)
    assert sum(steps) == 4
    assert await audit(store) == []


async def test_due_mail_comes_back_in_the_order_of_its_time(store: Store) -> None:
    work = await worker(store)
    await accept(store, 3)
    claim = await work.claim(LANE, limit=3, octets=1 << 20)
    ids = mail.claimed_ids(claim)
    for done, delay_s in zip(
        mail.outcomes_of(claim, State.DEFERRED), (30.0, 10.0, 20.0), strict=True
    ):
        delayed = mail.outcome(
            done.queue_id, done.number, done.attempt, done.state, delay_s=delay_s
        )
        await mail.settle(work, [delayed])
    await mail.shift(store, 40)
    await mail.tick(work)
    again = await work.claim(LANE, limit=3, octets=1 << 20)
    assert mail.claimed_ids(again) == [ids[1], ids[2], ids[0]]


async def test_claim_takes_no_more_than_its_octets_but_always_a_message(store: Store) -> None:
    work = await worker(store)
    for _ in range(4):
        await store.accept(mail.submission("a@one.test", content=b"x" * 1000))
    assert len((await work.claim(LANE, limit=9, octets=2500)).messages) == 2
    assert len((await work.claim(LANE, limit=9, octets=10)).messages) == 1
    assert (await work.claim(LANE, limit=9, octets=10)).recipients == 1
    assert await audit(store) == []


async def test_large_content_is_read_beside_the_claim(store: Store) -> None:
    work = await worker(store)
    content = bytes(range(256)) * 1024
    await store.accept(mail.submission("a@one.test", content=content))
    (message,) = (await work.claim(LANE, limit=1, octets=1)).messages
    assert message.content == content


@pytest.mark.parametrize("stored", [None, b"\x01no zstd", b"\x07other"])
async def test_mail_whose_content_cannot_be_read_is_held(
    store: Store, stored: bytes | None
) -> None:
    work = await worker(store)
    bad = await store.accept(mail.submission("a@one.test"))
    good = await store.accept(mail.submission("b@one.test"))
    place = (f"{store.p}m:{bad.id}", "b")
    await (store.wire.call("HSET", *place, stored) if stored else store.wire.call("HDEL", *place))
    claim = await work.claim(LANE, limit=5, octets=1 << 20)
    assert mail.claimed_ids(claim) == [f"{good.id}.1"]
    (view,) = (await store.message(bad.id)).recipients
    assert (view.status, view.reason) == ("held", "unreadable")
    assert "recipient.held" in await mail.event_types(store, f"{bad.id}.1")


# -- mail that ends its worker -----------------------------------------------------------------


async def lose(store: Store, work: Work, times: int, *, limit: int = 5) -> list[int]:
    """Workers claim and die; how many recipients each of them had."""
    had = []
    for _ in range(times):
        claim = await work.claim(LANE, limit=limit, octets=1 << 20)
        had.append(claim.recipients)
        await work.end()
        await work.begin()
        await mail.tick(work)
    return had


async def test_recipient_lost_three_times_is_claimed_alone(store: Store) -> None:
    work = await worker(store)
    await accept(store, 5)
    assert await lose(store, work, 3) == [5, 5, 5]
    assert (await work.claim(LANE, limit=5, octets=1 << 20)).recipients == 1
    assert await audit(store) == []


async def test_recipient_lost_five_times_is_held(store: Store) -> None:
    work = await worker(store)
    receipt = await store.accept(mail.submission("a@one.test"))
    await lose(store, work, 5)
    (view,) = (await store.message(receipt.id)).recipients
    assert (view.status, view.reason) == ("held", "poison")
    assert (await mail.event_types(store, f"{receipt.id}.1"))[-1] == "recipient.held"
    assert await store.release(receipt.id) == 1
    assert await lose(store, work, 1) == [1]  # its count begins anew
    assert await mail.states(store, receipt.id) == ["ready"]


async def test_worker_has_one_suspect_at_a_time(store: Store) -> None:
    """What dies with mail that ends its worker would be taken for such mail itself."""
    first = await worker(store)
    await accept(store, 3)
    await lose(store, first, 3)
    second = await worker(store)
    assert (await first.claim(LANE, limit=5, octets=1 << 20)).recipients == 1
    await accept(store, 2)  # newcomers pass the suspects
    newcomers = await first.claim(LANE, limit=5, octets=1 << 20)
    assert newcomers.recipients == 2
    assert (await first.claim(LANE, limit=5, octets=1 << 20)).recipients == 0
    await mail.shift(store, 1)
    await mail.tick(second)
    other = await second.claim(LANE, limit=5, octets=1 << 20)
    assert other.recipients == 1
    assert await audit(store) == []
    await mail.settle(second, mail.outcomes_of(other, State.DELIVERED))
    assert (await second.claim(LANE, limit=5, octets=1 << 20)).recipients == 1
    assert await audit(store) == []


async def test_queue_with_nothing_but_suspects_says_why_it_waits(store: Store) -> None:
    work = await worker(store)
    await accept(store, 2)
    await lose(store, work, 3)
    await claims(work, 2)
    (queue,) = await store.queues(QueueMatch(destination="one.test"))
    assert queue.waiting is not None
    assert queue.waiting.reason == "suspect"


async def test_message_that_ends_its_workers_is_held_whole(store: Store) -> None:
    work = await worker(store)
    addresses = [f"r{number}@one.test" for number in range(4)]
    poison = await store.accept(mail.submission(*addresses))
    neighbour = await store.accept(mail.submission("a@one.test"))
    assert await lose(store, work, 3, limit=4) == [4, 4, 4]
    assert await lose(store, work, 2) == [1, 1]
    assert await mail.states(store, poison.id) == ["held"] * 4
    assert {item.reason for item in (await store.message(poison.id)).recipients} == {"poison"}
    assert await claims(work, 2) == ["t|default|", ""]
    assert await mail.states(store, neighbour.id) == ["claimed"]
    assert (await store.counters())["poisoned"] == {(): 4}
    assert await audit(store) == []


async def test_recipients_of_a_poisonous_message_who_come_back_later_are_held(
    store: Store,
) -> None:
    first, second = await worker(store), await worker(store)
    addresses = [f"r{number}@one.test" for number in range(2)]
    receipt = await store.accept(mail.submission(*addresses))
    await lose(store, first, 3)
    assert (await second.claim(LANE, limit=1, octets=1 << 20)).recipients == 1
    await lose(store, first, 2)
    assert sorted(await mail.states(store, receipt.id)) == ["claimed", "held"]
    await second.end()
    await mail.tick(first)
    assert await mail.states(store, receipt.id) == ["held", "held"]
    assert await audit(store) == []


async def test_any_settled_attempt_clears_the_lost_ones(store: Store) -> None:
    work = await worker(store)
    await accept(store, 2)
    for _ in range(3):
        await lose(store, work, 2)
        claim = await work.claim(LANE, limit=5, octets=1 << 20)
        assert claim.recipients == 2
        await mail.settle(work, mail.outcomes_of(claim, State.READY))


async def test_dead_worker_s_mail_comes_back_to_the_front_in_order(store: Store) -> None:
    work = await worker(store)
    for number in range(6):
        await store.accept(mail.submission("a@one.test", queue_id=f"{number:020d}"))
    first = mail.claimed_ids(await work.claim(LANE, limit=3, octets=1 << 20))
    await work.end()
    await work.begin()
    await mail.tick(work)
    assert mail.claimed_ids(await work.claim(LANE, limit=3, octets=1 << 20)) == first


# -- entries that have gone stale ----------------------------------------------------------------


async def test_stale_entries_are_dropped_at_most_200_a_claim(store: Store) -> None:
    """Held and released mail leaves its old entries in the list."""
    work = await worker(store)
    ids = [(await store.accept(mail.submission("a@one.test"))).id for _ in range(300)]
    for queue_id in ids:
        await store.hold(queue_id)
    last = await store.accept(mail.submission("b@one.test"))
    key = store.p + "q:t|default||one.test:r"
    first = await work.claim(LANE, limit=50, octets=1 << 20)
    assert (first.recipients, first.backlog) == (0, 1)
    assert 50 <= await store.wire.call("LLEN", key) <= 101
    assert mail.claimed_ids(await work.claim(LANE, limit=50, octets=1 << 20)) == [f"{last.id}.1"]
    assert await store.wire.call("EXISTS", key) == 0
    assert await audit(store) == []


async def test_mail_held_and_released_again_and_again_is_claimed_once(store: Store) -> None:
    work = await worker(store)
    receipt = await store.accept(mail.submission("a@one.test"))
    for _ in range(5):
        await store.hold(receipt.id)
        await store.release(receipt.id)
    assert len(mail.claimed_ids(await work.claim(LANE, limit=50, octets=1 << 20))) == 1
    assert await claims(work, 1) == [""]
    assert await audit(store) == []


# -- queues that rest ----------------------------------------------------------------------------


async def test_suspended_queue_is_not_claimed_and_does_not_block_others(store: Store) -> None:
    work = await worker(store)
    await accept(store, 3, tenant="ann")
    await accept(store, 3, tenant="bob")
    await store.suspend(QueueMatch(tenant="ann"), reason="test", duration_s=1000)
    assert await claims(work, 4) == ["t|bob|"] * 3 + [""]
    await mail.shift(store, 1001)
    work = await mail.worker(store)
    await mail.tick(work)
    assert await claims(work, 1) == ["t|ann|"]


async def test_message_rate_bounds_claims_and_says_until_when(store: Store) -> None:
    await mail.stop_clock(store)
    work = await worker(store)
    await accept(store, 30)
    rate = (Rate("m", 4.0, 4),)
    assert (await work.claim(LANE, limit=50, octets=1 << 20, rates=rate)).recipients == 4
    waiting = await work.claim(LANE, limit=50, octets=1 << 20, rates=rate)
    assert (waiting.recipients, waiting.reason) == (0, "message_rate")
    assert waiting.wait_until == pytest.approx(await store.now() + 0.25)
    await mail.shift(store, 0.25)
    assert (await work.claim(LANE, limit=50, octets=1 << 20, rates=rate)).recipients == 1
    await mail.shift(store, 0.5)
    assert (await work.claim(LANE, limit=50, octets=1 << 20, rates=rate)).recipients == 2


async def test_destination_whose_route_is_past_its_time_is_not_served(store: Store) -> None:
    work = await worker(store)
    await accept(store, 1)
    await mail.shift(store, 25 * 3600)
    assert await claims(work, 1) == [""]
    assert await work.unrouted(5) == ["one.test"]
    assert await audit(store) == []


async def test_claim_looks_at_8_queues_at_most(store: Store) -> None:
    """Of ten queues that it may not serve any more it puts eight where they belong."""
    work = await mail.worker(store)
    names = [f"d{n}.test" for n in range(10)]
    for name in names:
        await work.routed(name, LANE, b"site", fresh_s=10, stale_s=10)
        await store.accept(mail.submission(f"a@{name}"))
    await mail.shift(store, 11)
    left = [10, 2, 0]
    for number in left:
        assert len(await work.destinations_of(LANE, 50)) == number
        assert (await work.claim(LANE, limit=50, octets=1 << 20)).messages == ()


async def test_route_is_served_while_its_renewal_fails_and_not_asked_at_each_claim(
    store: Store,
) -> None:
    work = await worker(store)
    await accept(store, 9)
    await mail.shift(store, 10_001)
    assert await claims(work, 1) == ["t|default|"]
    assert await work.unrouted(5) == ["one.test"]
    await work.unroutable("one.test", "servfail", "no answer")
    assert await claims(work, 2) == ["t|default|"] * 2
    assert await store.wire.call("EXISTS", store.p + "unrouted") == 0
    await mail.shift(store, 16)
    await mail.tick(work)
    assert await work.unrouted(5) == ["one.test"]
