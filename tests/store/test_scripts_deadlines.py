"""Delay notices and expiry: once each, with a report that is true, in every state."""

import pytest

from relay.model.message import Submission
from relay.model.state import State
from relay.store.audit import audit
from relay.store.deadlines import Deadlines, Due
from relay.store.queue import Store, accept_request, rows_of
from relay.store.views import QueueMatch
from tests.store import mail

LANE = mail.lane_of("one.test")
ID = "0000000000000000000A"


def expiring(*to: str, **more: object) -> Submission:
    values = {"queue_id": ID, "expires_after_s": 1000.0, "delay_notice_after_s": 400.0, **more}
    return mail.submission(*to, **values)


def report(number: int = 0) -> Submission:
    return mail.submission(
        "news@example.org", reverse_path=None, queue_id=f"{'R' * 18}{number:02d}"
    )


async def due_now(store: Store) -> Due:
    due = await Deadlines(store).due(ID)
    assert due is not None
    return due


async def counts(store: Store, *types: str) -> list[int]:
    found = await mail.event_types(store)
    return [found.count(f"recipient.{type_}") for type_ in types]


async def test_notice_comes_once_and_expiry_after_it(store: Store) -> None:
    work = await mail.worker(store)
    await store.accept(expiring("a@one.test", "b@one.test"))
    await mail.tick(work)
    assert await counts(store, "delayed", "expired") == [0, 0]
    for _ in range(2):
        await mail.shift(store, 401)
        await mail.tick(work)
        assert await counts(store, "delayed", "expired") == [2, 0]
    await mail.shift(store, 200)
    await mail.tick(work)
    assert await counts(store, "delayed", "expired") == [2, 2]
    assert await mail.states(store, ID) == ["expired", "expired"]
    assert await audit(store) == []


async def test_notice_whose_time_is_past_the_expiry_is_not_given(store: Store) -> None:
    await store.accept(expiring("a@one.test"))
    await mail.shift(store, 1001)
    await mail.tick(await mail.worker(store))
    assert await counts(store, "delayed", "expired") == [0, 1]


async def test_mail_expires_in_every_state_but_under_an_attempt(store: Store) -> None:
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    names = ("ready", "deferred", "held", "claimed", "suspended")
    item = expiring(*(f"{name}@one.test" for name in names[:4]), "s@two.test")
    await store.accept(item)
    await store.hold(f"{ID}.3")
    await store.hold(f"{ID}.1")
    claim = await work.claim(LANE, limit=2, octets=1 << 20)
    await mail.settle(work, mail.outcomes_of(claim, State.DEFERRED, delay_s=5000)[:1])
    await store.release(f"{ID}.1")
    await store.suspend(QueueMatch(destination="two.test"), reason="test", duration_s=10**6)
    await mail.shift(store, 1001)
    await work.begin()
    await mail.tick(await mail.worker(store))
    assert (await mail.states(store, ID)).count("expired") >= 3
    assert await audit(store) == []
    await mail.shift(store, 1001)
    await mail.tick(await mail.worker(store))  # the one under an attempt came back meanwhile
    await mail.shift(store, 31)
    await mail.tick(await mail.worker(store))
    assert await mail.states(store, ID) == ["expired"] * 5
    assert await counts(store, "expired") == [5]
    assert await audit(store) == []


async def test_attempt_under_way_at_expiry_decides(store: Store) -> None:
    work = await mail.worker(store, lease_s=10_000)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    await store.accept(expiring("a@one.test", "b@one.test"))
    claim = await work.claim(LANE, limit=2, octets=1 << 20)
    await mail.shift(store, 1001)
    await mail.tick(work)
    assert await mail.states(store, ID) == ["claimed", "claimed"]
    good, bad = mail.outcomes_of(claim, State.DELIVERED)
    late = mail.outcome(bad.queue_id, bad.number, bad.attempt, State.DEFERRED, delay_s=60)
    await mail.settle(work, [good, late])
    await mail.tick(work)
    assert await mail.states(store, ID) == ["delivered", "expired"]


async def test_two_tickers_at_once_report_an_expiry_once(store: Store) -> None:
    deadlines = Deadlines(store)
    await store.accept(expiring("a@one.test"))
    await mail.shift(store, 1001)
    dues = [await due_now(store) for _ in range(2)]
    assert [due.kind for due in dues] == ["expiry", "expiry"]
    changed = [await deadlines.act(due, [report(number)]) for number, due in enumerate(dues)]
    assert changed == [1, 0]
    assert await store.wire.call("EXISTS", f"{store.p}m:{report(1).queue_id}") == 0
    assert await mail.states(store, report(0).queue_id) == ["ready"]


async def test_report_is_not_given_when_one_of_its_recipients_moved_on(store: Store) -> None:
    work = await mail.worker(store, lease_s=10_000)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    await store.accept(expiring("a@one.test", "b@two.test"))
    await mail.shift(store, 1001)
    due = await due_now(store)
    assert len(due.recipients) == 2
    claim = await work.claim(LANE, limit=1, octets=1 << 20)
    await mail.settle(work, mail.outcomes_of(claim, State.DELIVERED))
    assert await Deadlines(store).act(due, [report()]) == 0
    assert await store.wire.call("EXISTS", f"{store.p}m:{report().queue_id}") == 0
    due = await due_now(store)  # it stays due, and is asked again
    assert [number for number, _ in due.recipients] == [2]
    assert await Deadlines(store).act(due, [report()]) == 1


async def test_large_message_expires_a_page_at_a_time(store: Store) -> None:
    work = await mail.worker(store)
    item = expiring(*(f"r{n}@d{n % 7}.test" for n in range(700)))
    await store.accept(item)
    await mail.shift(store, 1001)
    due = await due_now(store)
    assert due.following == 501
    await Deadlines(store).act(due)
    assert await audit(store) == []
    await mail.tick(work)  # the ticker that did this may have died: it begins again
    assert set(await mail.states(store, ID)) == {"expired"}
    assert await counts(store, "expired") == [700]
    assert await audit(store) == []


@pytest.mark.parametrize("cancelled", [False, True])
async def test_hand_over_that_was_never_finished_expires(store: Store, cancelled: bool) -> None:
    item = expiring("a@one.test", "b@one.test", "c@one.test")

    request = accept_request(item, rows_of(item)[:2], 1) | {"staged": True}
    await store.scripts.call("accept", request, b"\0content")
    if cancelled:
        await store.cancel(ID)
    await mail.shift(store, 500)
    await mail.tick(await mail.worker(store))
    assert await counts(store, "delayed") == [0]
    await mail.shift(store, 501)
    await mail.tick(await mail.worker(store))
    assert await mail.states(store, ID) == (["cancelled"] if cancelled else ["expired"]) * 2
    assert await audit(store) == []
    request = accept_request(item, rows_of(item)[2:], 3) | {"staged": True}
    assert (await store.scripts.call("accept", request, b""))[0] == b"unknown"


async def test_finished_message_is_readable_for_an_hour(store: Store) -> None:
    work = await mail.worker(store)
    await store.accept(expiring("a@one.test"))
    await store.cancel(ID)
    await mail.shift(store, 3599)
    await mail.tick(work)
    assert await mail.states(store, ID) == ["cancelled"]
    await mail.shift(store, 1)
    await mail.tick(work)
    assert await store.wire.call("EXISTS", f"{store.p}m:{ID}") == 0
    assert await audit(store) == []
