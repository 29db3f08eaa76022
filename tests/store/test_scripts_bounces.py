"""A bounce ends recipients as failed; where the sender is to be told, never without his report."""

import pytest

from relay.model.errors import StateConflict
from relay.model.message import Submission
from relay.model.state import State
from relay.store.audit import audit
from relay.store.codec import encode_content
from relay.store.deadlines import Deadlines, Due
from relay.store.queue import Store, accept_request, rows_of
from relay.store.work import Work
from tests.store import mail

LANE = mail.lane_of("one.test")
ID = "0000000000000000000A"
REPORT = "0000000000000000000R"


def by_smtp(*to: str, **more: object) -> Submission:
    """Mail whose sender was promised reports."""
    values: dict[str, object] = {"queue_id": ID, "ingress": "smtp", "wants_dsn": True, **more}
    return mail.submission(*to, **values)


def report(queue_id: str = REPORT) -> Submission:
    return mail.submission("news@example.org", reverse_path=None, queue_id=queue_id)


async def due_now(store: Store) -> Due:
    due = await Deadlines(store).due(ID)
    assert due is not None
    return due


async def is_queued(store: Store, queue_id: str = REPORT) -> bool:
    return bool(await store.wire.call("EXISTS", f"{store.p}m:{queue_id}"))


async def worker(store: Store) -> Work:
    work = await mail.worker(store, lease_s=10_000)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    return work


async def test_recipients_fail_in_the_transition_that_queues_their_report(store: Store) -> None:
    await store.accept(by_smtp("a@one.test", "b@one.test", "c@one.test"))
    assert await store.bounce(f"{ID}.1", "no such project", actor="eve") == 1
    assert await store.bounce(f"{ID}.3", "no such project", actor="eve") == 1
    # Until the report is there they are kept from being tried, and say why.
    assert await mail.states(store, ID) == ["held", "ready", "held"]
    due = await due_now(store)
    assert due.kind == "bounce" and due.wants_report
    assert [(n, record.text) for n, record in due.recipients] == [
        (1, "no such project"),
        (3, "no such project"),
    ]
    assert await Deadlines(store).act(due, [report()]) == 2
    assert await mail.states(store, ID) == ["failed", "ready", "failed"]
    assert await is_queued(store)
    failed = [event for event in await store.events() if event.type == "recipient.failed"]
    assert [event.data["recipient_id"] for event in failed] == [f"{ID}.1", f"{ID}.3"]
    assert {(event.data["actor"], event.data["text"]) for event in failed} == {
        ("eve", "no such project")
    }
    assert await Deadlines(store).due(ID) is None
    assert await audit(store) == []


async def test_bounce_whose_caller_died_is_finished_by_the_ticker(store: Store) -> None:
    await store.accept(by_smtp("a@one.test", expires_after_s=10_000.0))
    await store.bounce(ID)
    assert await audit(store) == []
    assert await mail.tick(await mail.worker(store)) == [ID]
    assert await mail.states(store, ID) == ["failed"]
    assert await audit(store) == []


@pytest.mark.parametrize("more", [{"wants_dsn": False}, {"reverse_path": None}])
async def test_bounce_of_mail_without_reports_is_done_at_once(
    store: Store, more: dict[str, object]
) -> None:
    await store.accept(by_smtp("a@one.test", "b@one.test", **more))
    assert await store.bounce(ID, "enough", actor="eve") == 2
    assert await mail.states(store, ID) == ["failed", "failed"]
    assert (await mail.event_types(store)).count("recipient.failed") == 2
    assert await audit(store) == []


async def test_two_at_once_report_a_bounce_once(store: Store) -> None:
    await store.accept(by_smtp("a@one.test"))
    await store.bounce(ID)
    dues = [await due_now(store) for _ in range(2)]
    other = REPORT.replace("R", "S")
    changed = [
        await Deadlines(store).act(due, [report(queue_id)])
        for due, queue_id in zip(dues, (REPORT, other), strict=True)
    ]
    assert changed == [1, 0]
    assert not await is_queued(store, other)


async def test_bounce_ordered_while_a_report_is_written_stays_due(store: Store) -> None:
    await store.accept(by_smtp("a@one.test", "b@one.test"))
    await store.bounce(f"{ID}.2")
    due = await due_now(store)
    await store.bounce(f"{ID}.1")
    assert await Deadlines(store).act(due, [report()]) == 1
    assert await mail.states(store, ID) == ["held", "failed"]
    assert await audit(store) == []
    assert [number for number, _ in (await due_now(store)).recipients] == [1]


async def test_release_before_the_report_takes_a_bounce_back(store: Store) -> None:
    await store.accept(by_smtp("a@one.test"))
    await store.bounce(ID)
    due = await due_now(store)
    assert await store.release(ID) == 1
    assert await Deadlines(store).act(due, [report()]) == 0
    assert not await is_queued(store)
    await mail.tick(await mail.worker(store))
    assert await mail.states(store, ID) == ["ready"]
    assert await audit(store) == []


async def test_second_bounce_changes_nothing(store: Store) -> None:
    await store.accept(by_smtp("a@one.test"))
    await store.bounce(ID, "first")
    with pytest.raises(StateConflict):
        await store.bounce(ID, "second")
    await mail.tick(await mail.worker(store))
    assert (await mail.event_types(store)).count("recipient.failed") == 1


@pytest.mark.parametrize("wants_dsn", [True, False])
async def test_claimed_recipient_is_bounced_when_its_attempt_does_not_end_it(
    store: Store, wants_dsn: bool
) -> None:
    work = await worker(store)
    await store.accept(by_smtp("a@one.test", "b@one.test", wants_dsn=wants_dsn))
    claim = await work.claim(LANE, limit=2, octets=1 << 20)
    assert await store.bounce(ID, "enough", actor="eve") == 2
    assert await mail.states(store, ID) == ["claimed", "claimed"]
    assert await work.renew() == [f"{ID}.1", f"{ID}.2"]
    good, late = mail.outcomes_of(claim, State.DELIVERED)
    late = mail.outcome(ID, late.number, late.attempt, State.DEFERRED, delay_s=60)
    await mail.settle(work, [good, late])
    assert await mail.states(store, ID) == ["delivered", "held" if wants_dsn else "failed"]
    await mail.tick(work)
    assert await mail.states(store, ID) == ["delivered", "failed"]
    assert (await mail.event_types(store, f"{ID}.2"))[-1] == "recipient.failed"
    assert (await store.events())[-1].data["text"] == "enough"
    assert await audit(store) == []


async def test_claimed_recipient_of_a_dead_worker_is_bounced(store: Store) -> None:
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    await store.accept(by_smtp("a@one.test"))
    await work.claim(LANE, limit=1, octets=1 << 20)
    await store.bounce(ID)
    await mail.shift(store, mail.LEASE_S + 20)
    await mail.tick(await mail.worker(store))
    assert await mail.states(store, ID) == ["failed"]
    assert await audit(store) == []


async def test_staged_mail_is_bounced_without_a_report(store: Store) -> None:
    """Its sender was not told yet that it is accepted."""
    item = by_smtp("a@one.test", "b@one.test")
    request = accept_request(item, rows_of(item)[:1], 1) | {"staged": True}
    await store.scripts.call("accept", request, encode_content(item.content))
    assert await store.bounce(ID) == 1
    assert await mail.states(store, ID) == ["failed"]
    assert await audit(store) == []


async def test_delay_notice_and_expiry_go_on_after_a_bounce(store: Store) -> None:
    item = by_smtp("a@one.test", "b@one.test", expires_after_s=1000.0, delay_notice_after_s=400.0)
    await store.accept(item)
    work = await mail.worker(store)
    await store.bounce(f"{ID}.1")
    await mail.tick(work)
    await mail.shift(store, 401)
    await mail.tick(work)
    await mail.shift(store, 600)
    await mail.tick(work)
    assert await mail.states(store, ID) == ["failed", "expired"]
    assert await mail.event_types(store, f"{ID}.2") == ["recipient.delayed", "recipient.expired"]


async def test_large_message_is_bounced_a_page_at_a_time(store: Store) -> None:
    await store.accept(by_smtp(*(f"r{n}@d{n % 7}.test" for n in range(700))))
    assert await store.bounce(ID) == 700
    due = await due_now(store)
    assert due.following == 501
    await Deadlines(store).act(due)
    assert await audit(store) == []
    await mail.tick(await mail.worker(store))
    assert set(await mail.states(store, ID)) == {"failed"}
    assert (await mail.event_types(store)).count("recipient.failed") == 700
    assert await audit(store) == []
