"""Whom the suppression list has gets no mail: he ends as suppressed, and the others go on."""

import pytest

from relay.model.errors import StateConflict, SubmissionRefused
from relay.model.message import Receipt
from relay.model.state import State
from relay.model.suppression import (
    Consequence,
    Origin,
    Suppression,
    SuppressionReason,
    suppression_name,
)
from relay.store.audit import audit
from relay.store.incoming import tell
from relay.store.queue import ROWS_PER_CALL, Store
from relay.store.suppressions import Changed, SuppressionFilter, Suppressions
from relay.store.views import MessageFilter
from relay.store.work import Work
from tests.store import mail

LANE = mail.lane_of("one.test")
ID, OTHER = "0000000000000000000A", "0000000000000000000B"
MOST = 1000
BOUNCE = Consequence(SuppressionReason.BOUNCED, Origin.BOUNCE, 1000.0, MOST)
COMPLAINT = Consequence(SuppressionReason.SPAM, Origin.COMPLAINT, 0.0, MOST)


def entry(name: str, **more: object) -> Suppression:
    return Suppression(name=suppression_name(name), **more)  # type: ignore[arg-type]


async def suppressed(store: Store, *names: str, **more: object) -> Suppressions:
    found = Suppressions(store)
    await found.add([entry(name, **more) for name in names], most=MOST)
    return found


def statuses(receipt: Receipt) -> list[str]:
    return [item.status for item in receipt.recipients]


async def listed(store: Store, **which: str) -> list[str]:
    entries, _ = await Suppressions(store).page(SuppressionFilter(**which))
    return [item.name for item in entries]


async def worker(store: Store) -> Work:
    work = await mail.worker(store, lease_s=100_000)
    await work.routed("one.test", LANE, b"site", fresh_s=100_000)
    return work


# -- mail that comes in ----------------------------------------------------------------------


async def test_recipient_on_the_list_ends_as_suppressed_and_the_others_are_delivered(
    store: Store,
) -> None:
    await suppressed(store, "bob@one.test", reason=SuppressionReason.SPAM, evidence="E", note="no")
    receipt = await store.accept(
        mail.submission("ann@one.test", "Bob@one.test", "eve@one.test", queue_id=ID)
    )
    assert statuses(receipt) == ["ready", "suppressed", "ready"]
    assert await mail.states(store, ID) == statuses(receipt)
    view = (await store.message(ID)).recipients[1]
    assert (view.reason, view.text) == (
        "spam",
        "the address is on the suppression list: spam (no)",
    )
    assert view.finished_at is not None and view.attempt == 0
    assert await audit(store) == []
    work = await worker(store)
    claim = await work.claim(LANE, limit=10, octets=1 << 20)
    assert mail.claimed_ids(claim) == [f"{ID}.1", f"{ID}.3"]
    await mail.settle(work, mail.outcomes_of(claim, State.DELIVERED))
    assert await mail.states(store, ID) == ["delivered", "suppressed", "delivered"]
    assert await audit(store) == []
    assert await mail.event_types(store, f"{ID}.2") == ["recipient.suppressed"]


async def test_event_of_a_suppressed_recipient_tells_which_entry_and_why(store: Store) -> None:
    await mail.stop_clock(store)
    await suppressed(store, "@one.test", reason=SuppressionReason.BLOCKED, evidence="EVENT")
    await mail.shift(store, 60)
    item = mail.submission("ann@one.test", "bob@two.test", queue_id=ID, tags=("a",))
    await store.accept(item)
    events = await store.events()
    (told,) = [event for event in events if event.type == "recipient.suppressed"]
    expected = {
        "recipient_id": f"{ID}.1",
        "address": "ann@one.test",
        "reason": "blocked",
        "text": "the domain is on the suppression list: blocked",
        "entry": "@one.test",
        "origin": "manual",
        "evidence": "EVENT",
        "since": 1_800_000_000.0,
        "queued_at": 1_800_000_060.0,
        "severity": "permanent",
        "scope": "local",
        "tags": ["a"],
    }
    assert {name: told.data[name] for name in expected} == expected
    assert [event.type for event in events[-2:]] == ["message.accepted", "recipient.suppressed"]
    counters = await store.counters()
    assert counters["suppressed"] == {("blocked",): 1}
    assert counters["recipients"] == {("suppressed", "none"): 1}


async def test_message_that_nobody_may_get_is_refused_and_leaves_nothing(store: Store) -> None:
    await suppressed(store, "ann@one.test", "@two.test")
    with pytest.raises(SubmissionRefused) as caught:
        await store.accept(
            mail.submission("ann@one.test", "x@two.test", queue_id=ID, idempotency_key="k")
        )
    assert [finding.code for finding in caught.value.findings] == ["recipient_suppressed"] * 2
    assert "@two.test is on the suppression list since 2" in str(caught.value)
    assert (await store.messages(MessageFilter()))[0] == []
    assert (await store.counters())["suppressed"] == {("other",): 2}
    assert await audit(store) == []
    # Nor does its key: once an address is off the list the same request is taken.
    await Suppressions(store).remove(["@two.test"])
    receipt = await store.accept(
        mail.submission("ann@one.test", "x@two.test", queue_id=ID, idempotency_key="k")
    )
    assert (statuses(receipt), receipt.replayed) == (["suppressed", "ready"], False)


async def test_replay_answers_who_was_suppressed_though_the_list_has_changed(store: Store) -> None:
    found = await suppressed(store, "bob@one.test")
    item = mail.submission("ann@one.test", "bob@one.test", queue_id=ID, idempotency_key="k")
    first = await store.accept(item)
    await found.remove(["bob@one.test"])
    again = await store.accept(item)
    assert again.replayed
    assert statuses(again) == statuses(first) == ["ready", "suppressed"]


async def test_list_is_asked_when_a_staged_message_is_committed(store: Store) -> None:
    await suppressed(store, "@two.test")
    count = ROWS_PER_CALL + 600
    to = [f"r{n}@{'two' if n % 3 == 0 else 'one'}.test" for n in range(count)]
    receipt = await store.accept(mail.submission(*to, queue_id=ID))
    expected = ["suppressed" if n % 3 == 0 else "ready" for n in range(count)]
    assert statuses(receipt) == await mail.states(store, ID) == expected
    assert await audit(store) == []


async def test_staged_message_that_nobody_may_get_ends_when_it_is_committed(store: Store) -> None:
    await suppressed(store, "@two.test")
    to = [f"r{n}@two.test" for n in range(ROWS_PER_CALL + 1)]
    receipt = await store.accept(mail.submission(*to, queue_id=ID))
    assert set(statuses(receipt)) == {"suppressed"}
    assert (await store.message(ID)).status == "suppressed"
    assert await audit(store) == []


async def test_list_of_one_tenant_is_not_that_of_another(store: Store) -> None:
    other = Suppressions(store, tenant="acme")
    await other.add([entry("ann@one.test")], most=MOST)
    await store.accept(mail.submission("ann@one.test"))
    with pytest.raises(SubmissionRefused):
        await store.accept(mail.submission("ann@one.test", tenant="acme"))


async def test_entry_stops_nothing_once_it_has_ended_or_is_removed(store: Store) -> None:
    await mail.stop_clock(store)
    found = Suppressions(store)
    await found.add([entry("ann@one.test")], most=MOST, keep_s=100.0)
    await found.add([entry("bob@one.test")], most=MOST)
    assert await found.remove(["bob@one.test", "nobody@one.test"]) == 1
    await mail.shift(store, 99)
    with pytest.raises(SubmissionRefused):
        await store.accept(mail.submission("ann@one.test"))
    await mail.shift(store, 1)
    receipt = await store.accept(mail.submission("ann@one.test", "bob@one.test"))
    assert statuses(receipt) == ["ready", "ready"]
    assert await found.find("ann@one.test") == []
    assert await listed(store) == []
    await found.add([entry("eve@one.test")], most=MOST)  # sweeps
    assert await store.wire.call("HKEYS", store.p + "sup:default") == [b"eve@one.test"]
    assert await audit(store) == []


async def test_domain_is_suppressed_without_its_subdomains(store: Store) -> None:
    await suppressed(store, "one.test")
    receipt = await store.accept(mail.submission("a@one.test", "a@sub.one.test", "a@xone.test"))
    assert statuses(receipt) == ["suppressed", "ready", "ready"]


async def test_report_to_a_sender_who_is_on_the_list_is_sent_all_the_same(store: Store) -> None:
    work = await worker(store)
    await store.accept(mail.submission("ann@one.test", queue_id=ID))
    await suppressed(store, "news@example.org")
    await work.claim(LANE, limit=1, octets=1 << 20)
    report = mail.submission("news@example.org", reverse_path=None, queue_id="0" * 19 + "R")
    await mail.settle(work, [mail.outcome(ID, 1, 1, State.FAILED)], report)
    assert await mail.states(store, report.queue_id) == ["ready"]


# -- what puts an address there --------------------------------------------------------------


async def failed(store: Store, address: str = "Ann@one.test") -> None:
    """Mail to the address fails for a reason that means an entry."""
    work = await worker(store)
    receipt = await store.accept(mail.submission(address, "other@one.test", tenant="acme"))
    claim = await work.claim(LANE, limit=1, octets=1 << 20)
    assert len(mail.claimed(claim)) == 2
    ends = mail.outcomes_of(claim, State.FAILED)
    one = mail.outcome(receipt.id, 1, 1, State.FAILED, consequence=BOUNCE)
    assert await mail.settle(work, [one, ends[1]]) == ["ok", "ok"]
    assert await mail.settle(work, [one, ends[1]]) == ["again", "again"]


async def test_failure_that_means_an_entry_makes_it_in_the_same_transition(store: Store) -> None:
    await mail.stop_clock(store)
    await failed(store)
    found = Suppressions(store, tenant="acme")
    ((one,), _) = await found.page(SuppressionFilter())
    assert (one.name, one.reason, one.origin) == ("ann@one.test", "bounced", "bounce")
    assert (one.since, one.until) == (1_800_000_000.0, 1_800_001_000.0)
    events = {event.id: event for event in await store.events()}
    assert events[one.evidence].type == "recipient.failed"
    (added,) = [event for event in events.values() if event.type == "suppression.added"]
    assert (added.data["entry"], added.data["evidence"]) == ("ann@one.test", one.evidence)
    with pytest.raises(SubmissionRefused):
        await store.accept(mail.submission("ann@one.test", tenant="acme"))
    assert await audit(store) == []


async def test_late_failure_of_an_attempt_that_was_given_up_makes_no_entry(store: Store) -> None:
    work = await worker(store)
    await store.accept(mail.submission("ann@one.test", queue_id=ID))
    await work.claim(LANE, limit=1, octets=1 << 20)
    await mail.settle(work, [mail.outcome(ID, 1, 1, State.DELIVERED)])
    late = mail.outcome(ID, 1, 1, State.FAILED, consequence=BOUNCE)
    assert await mail.settle(work, [late]) == ["fenced"]
    assert await listed(store) == []


async def test_second_bounce_lets_the_entry_last_longer_and_keeps_since_when_it_is(
    store: Store,
) -> None:
    await mail.stop_clock(store)
    for queue_id in (ID, OTHER):
        await store.accept(mail.submission("ann@one.test", "bob@one.test", queue_id=queue_id))
    await told_of(store, ID, "bounced", BOUNCE)
    await mail.shift(store, 500)
    await told_of(store, OTHER, "bounced", BOUNCE)
    (one,) = await Suppressions(store).find("ann@one.test")
    assert (one.since, one.until) == (1_800_000_000.0, 1_800_001_500.0)
    assert one.evidence == f"{OTHER}.1:recipient.bounced"
    assert await audit(store) == []


async def told_of(
    store: Store,
    queue_id: str,
    event: str,
    consequence: Consequence,
    *,
    number: int = 1,
    address: str = "",
    is_vouched: bool = False,
) -> str:
    answer = await tell(
        store,
        queue_id,
        number,
        event=f"recipient.{event}",
        address=address,
        keep_s=60,
        data={"text": "said"},
        consequence=consequence,
        is_vouched=is_vouched,
    )
    return answer.word


async def test_complaint_is_an_entry_for_good(store: Store) -> None:
    await store.accept(mail.submission("Ann@one.test", "bob@one.test", queue_id=ID))
    assert await told_of(store, ID, "complained", COMPLAINT) == "new"
    assert await told_of(store, ID, "complained", COMPLAINT) == "again"
    (one,) = await Suppressions(store).find("ann@one.test")
    assert (one.reason, one.origin, one.until) == ("spam", "complaint", None)
    assert (one.evidence, one.note) == (f"{ID}.1:recipient.complained", "said")
    assert await listed(store) == ["ann@one.test"]
    types = await mail.event_types(store)
    assert types[-2:] == ["recipient.complained", "suppression.added"]


async def test_removed_entry_does_not_come_back_with_the_same_complaint(store: Store) -> None:
    await store.accept(mail.submission("ann@one.test", "bob@one.test", queue_id=ID))
    await told_of(store, ID, "complained", COMPLAINT)
    await Suppressions(store).remove(["ann@one.test"])
    assert await told_of(store, ID, "complained", COMPLAINT) == "again"
    assert await listed(store) == []


async def test_token_of_a_message_ends_the_mail_of_its_only_recipient_and_of_no_other(
    store: Store,
) -> None:
    await store.accept(mail.submission("ann@one.test", "bob@one.test", queue_id=ID))
    word = await told_of(store, ID, "complained", COMPLAINT, number=0, address="bob@one.test")
    assert word == "new"
    assert await listed(store) == []
    await store.accept(mail.submission("eve@one.test", queue_id=OTHER))
    await told_of(store, OTHER, "complained", COMPLAINT, number=0, address="x@y.test")
    assert await listed(store) == ["eve@one.test"]


@pytest.mark.parametrize(("is_vouched", "expected"), [(True, ["ann@one.test"]), (False, [])])
async def test_report_about_a_forgotten_message_counts_where_its_address_is_vouched_for(
    store: Store, is_vouched: bool, expected: list[str]
) -> None:
    more = {"address": "Ann@one.test", "is_vouched": is_vouched}
    word = await told_of(store, ID, "complained", COMPLAINT, **more)  # type: ignore[arg-type]
    assert word == "new"
    assert await listed(store) == expected


# -- which entry stays -----------------------------------------------------------------------


async def test_bounce_leaves_what_a_person_or_a_complaint_put_there(store: Store) -> None:
    await suppressed(store, "ann@one.test", reason=SuppressionReason.UNSUBSCRIBED)
    await store.accept(mail.submission("bob@one.test", "eve@one.test", queue_id=ID))
    await told_of(store, ID, "complained", COMPLAINT)
    await told_of(store, ID, "bounced", BOUNCE)
    await told_of(store, OTHER, "bounced", BOUNCE, address="ann@one.test", is_vouched=True)
    entries, _ = await Suppressions(store).page(SuppressionFilter())
    assert {item.name: str(item.reason) for item in entries} == {
        "ann@one.test": "unsubscribed",
        "bob@one.test": "spam",
    }


async def test_complaint_and_person_take_the_place_of_a_bounce(store: Store) -> None:
    await store.accept(mail.submission("ann@one.test", "bob@one.test", queue_id=ID))
    for number in (1, 2):
        await told_of(store, ID, "bounced", BOUNCE, number=number)
    await told_of(store, ID, "complained", COMPLAINT)
    found = Suppressions(store)
    assert await found.add([entry("bob@one.test")], most=MOST) == Changed(0, 1)
    assert {item.name: item.until for item in (await found.page(SuppressionFilter()))[0]} == {
        "ann@one.test": None,
        "bob@one.test": None,
    }
    assert await audit(store) == []


async def test_full_list_forgets_what_ends_first_and_refuses_where_nothing_ends(
    store: Store,
) -> None:
    await mail.stop_clock(store)
    found = Suppressions(store)
    await found.add([entry("late@one.test")], most=3, keep_s=900.0)
    await found.add([entry("soon@one.test")], most=3, keep_s=800.0)
    await found.add([entry("over@one.test")], most=3, keep_s=10.0)
    await mail.shift(store, 10)
    await found.add([entry("a@one.test")], most=3)  # takes the place of the one that is over
    await found.add([entry("b@one.test")], most=3)
    assert sorted(await listed(store)) == ["a@one.test", "b@one.test", "late@one.test"]
    await found.add([entry("c@one.test")], most=3)
    with pytest.raises(StateConflict, match=r"none of them ends; 1 of yours were taken"):
        await found.add([entry("a@one.test", note="x"), entry("d@one.test")], most=3)
    small = Consequence(SuppressionReason.BOUNCED, Origin.BOUNCE, 1000.0, 3)
    await told_of(store, ID, "bounced", small, address="e@one.test", is_vouched=True)
    assert (await store.counters())["suppressions_lost"] == {(): 1}
    spam = Consequence(SuppressionReason.SPAM, Origin.COMPLAINT, 0.0, 3)
    await told_of(store, ID, "complained", spam, address="f@one.test", is_vouched=True)
    assert "f@one.test" in await listed(store)
    assert await audit(store) == []


async def test_what_is_imported_keeps_its_times_and_is_no_event(store: Store) -> None:
    rows = [
        entry(f"r{n}@one.test", origin=Origin.IMPORT, since=1000.0 + n, until=9e9)
        for n in range(1200)
    ]
    found = Suppressions(store)
    assert await found.add(rows, most=5000, is_import=True) == Changed(1200, 0)
    assert await found.add(rows, most=5000, is_import=True) == Changed(0, 0)
    assert await found.find("r7@one.test") == [rows[7]]
    assert await mail.event_types(store) == []
    assert await audit(store) == []


# -- the list as it is shown -----------------------------------------------------------------


async def test_pages_show_every_entry_once_newest_first_though_one_goes_meanwhile(
    store: Store,
) -> None:
    rows = [
        entry(f"r{n:02}@one.test", origin=Origin.IMPORT, since=1000.0 + n // 5) for n in range(25)
    ]
    found = Suppressions(store)
    await found.add(rows, most=MOST)
    first, cursor = await found.page(SuppressionFilter(), limit=10)
    assert [item.since for item in first] == sorted((i.since for i in first), reverse=True)
    second, cursor = await found.page(SuppressionFilter(), limit=10, cursor=cursor)
    await found.remove([first[3].name])
    third, end = await found.page(SuppressionFilter(), limit=10, cursor=cursor)
    names = [item.name for item in (*first, *second, *third)]
    assert sorted(names) == sorted(item.name for item in rows)
    assert end == ""


async def test_page_goes_on_at_its_place_where_its_last_entry_is_gone(store: Store) -> None:
    rows = [entry(f"r{n}@one.test", origin=Origin.IMPORT, since=1000.0 + n) for n in range(6)]
    found = Suppressions(store)
    await found.add(rows, most=MOST)
    first, cursor = await found.page(SuppressionFilter(), limit=3)
    await found.remove([first[-1].name])
    second, _ = await found.page(SuppressionFilter(), limit=3, cursor=cursor)
    assert [item.name for item in second] == ["r2@one.test", "r1@one.test", "r0@one.test"]


async def test_list_shows_those_that_fit(store: Store) -> None:
    await suppressed(store, "ann@one.test", "@two.test", reason=SuppressionReason.SPAM)
    await suppressed(store, "bob@two.test", origin=Origin.IMPORT)
    assert await listed(store, reason="spam", domain="two.test") == ["@two.test"]
    assert sorted(await listed(store, domain="two.test")) == ["@two.test", "bob@two.test"]
    assert await listed(store, origin="import") == ["bob@two.test"]
    assert await listed(store, reason="blocked") == []


async def test_address_is_found_by_its_own_entry_and_by_its_domains(store: Store) -> None:
    found = await suppressed(store, "@two.test", "ann@two.test", "ann@one.test")
    names = [item.name for item in await found.find("ann@two.test")]
    assert names == ["ann@two.test", "@two.test"]
    assert [item.name for item in await found.find("@one.test")] == []
