"""What scripts say of a recipient reaches readers with every key of the contract."""

from typing import Any

import pytest

from relay.model.reply import Reply
from relay.model.state import State
from relay.model.verdict import Scope, Severity, Verdict
from relay.store.queue import Store
from relay.store.work import Work
from tests.store import mail

LANE = mail.lane_of("one.test")
ID = "0000000000000000000A"
KEYS = {
    *("recipient_id", "queue_id", "message_id", "address", "reverse_path", "class", "tenant"),
    *("campaign", "tags", "metadata", "attempt", "severity", "scope", "reason", "text", "reply"),
    *("remote", "source", "tls", "next_attempt_at", "queued_at"),
}
REPLY = Reply(451, "4.3.0", ("not now",), "RCPT")
BUSY = Verdict(Severity.TRANSIENT, Scope.RECIPIENT, "deferred", "Later.", REPLY)
REMOTE = {"host": "mx.one.test", "ip": "127.0.0.9", "port": 25, "site": "one"}


async def labelled(store: Store) -> Work:
    """A message with labels, its recipient deferred once by a receiver."""
    work = await mail.worker(store, lease_s=10_000)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    await store.accept(
        mail.submission(
            "ann@one.test",
            queue_id=ID,
            mail_class="bulk",
            campaign="spring",
            tags=("a", "b"),
            metadata={"user": "42"},
            expires_after_s=1000.0,
            delay_notice_after_s=400.0,
        )
    )
    claim = await work.claim(LANE, limit=1, octets=1 << 20)
    (done,) = mail.outcomes_of(
        claim, State.DEFERRED, delay_s=5000, verdict=BUSY, event={"remote": REMOTE}
    )
    await mail.settle(work, [done])
    return work


async def data_of(store: Store, kind: str) -> dict[str, Any]:
    """The data of the only event of a kind."""
    (event,) = [item for item in await store.events(limit=1000) if item.type == kind]
    assert event.data.keys() >= KEYS
    assert event.data["recipient_id"] == f"{ID}.1"
    assert event.data["message_id"] == f"<{ID}@example.org>"
    assert event.data["reverse_path"] == "news@example.org"
    assert (event.data["class"], event.data["campaign"]) == ("bulk", "spring")
    assert (event.data["tags"], event.data["metadata"]) == (["a", "b"], {"user": "42"})
    accepted = next(item for item in await store.events() if item.type == "message.accepted")
    assert event.data["queued_at"] == pytest.approx(accepted.timestamp, abs=5)
    assert not event.data.keys() & {"labels", "created_ms", "answer"}
    return event.data


async def test_acceptance_tells_labels(store: Store) -> None:
    await labelled(store)
    event = next(item for item in await store.events() if item.type == "message.accepted")
    assert (event.data["tags"], event.data["metadata"]) == (["a", "b"], {"user": "42"})
    assert event.data["queued_at"] == pytest.approx(event.timestamp, abs=5)


async def test_acceptance_without_labels_has_empty_ones(store: Store) -> None:
    await store.accept(mail.submission("ann@one.test"))
    (event,) = await store.events()
    assert (event.data["tags"], event.data["metadata"]) == ([], {})


async def test_verbs_tell_who_and_why(store: Store) -> None:
    await labelled(store)
    await store.hold(ID, "asked by legal", actor="eve")
    held = await data_of(store, "recipient.held")
    assert (held["text"], held["actor"], held["scope"]) == ("asked by legal", "eve", "local")
    await store.release(ID, actor="eve")
    assert (await data_of(store, "recipient.released"))["actor"] == "eve"
    await store.cancel(ID, "sent by mistake")
    cancelled = await data_of(store, "recipient.cancelled")
    assert (cancelled["text"], cancelled["severity"]) == ("sent by mistake", "permanent")


async def test_delay_and_expiry_tell_the_last_reply(store: Store) -> None:
    work = await labelled(store)
    await mail.shift(store, 401)
    await mail.tick(work)
    await mail.shift(store, 600)
    await mail.tick(work)
    for kind, severity in (("recipient.delayed", "transient"), ("recipient.expired", "permanent")):
        data = await data_of(store, kind)
        assert data["severity"] == severity
        assert data["text"] == "451 4.3.0 not now"
        assert data["reply"] == {
            "code": 451,
            "enhanced": "4.3.0",
            "text": "not now",
            "command": "RCPT",
        }
        assert (data["remote"]["host"], data["remote"]["ip"]) == ("mx.one.test", "127.0.0.9")


async def test_expiry_without_an_attempt_says_so(store: Store) -> None:
    await store.accept(mail.submission("ann@one.test", expires_after_s=10.0))
    await mail.shift(store, 11)
    await mail.tick(await mail.worker(store))
    event = (await store.events())[-1]
    assert event.type == "recipient.expired"
    assert event.data["text"] == "no attempt could be made in time"
    assert (event.data["reply"], event.data["remote"], event.data["tls"]) == (None, None, None)


async def test_what_a_dead_worker_leaves_is_told_in_full(store: Store) -> None:
    work = await labelled(store)
    await store.retry(ID)
    await work.claim(LANE, limit=1, octets=1 << 20)
    marks = {"holder": work.holder, "marks": [f"{ID}.1:2"]}
    await store.scripts.call("mark", marks)
    await mail.shift(store, 20_000)
    await mail.tick(await mail.worker(store), uncertain={"t": "retry", "b": "assume-delivered"})
    uncertain = await data_of(store, "recipient.uncertain")
    assert (uncertain["policy"], uncertain["attempt"]) == ("assume-delivered", 2)
    assert "at its final dot" in uncertain["text"]
    # What an earlier attempt was told says nothing of this one.
    assert uncertain["reply"] is None
    assert (await data_of(store, "recipient.delivered"))["severity"] == "success"
    (done,) = [mail.outcome(ID, 1, 2, State.DELIVERED)]
    assert await mail.settle(work, [done]) == ["again"]


async def test_message_shows_reply_and_host_of_its_last_attempt(store: Store) -> None:
    await labelled(store)
    (view,) = (await store.message(ID)).recipients
    assert view.reply == REPLY
    assert view.remote is not None
    assert (view.remote.host, view.remote.ip) == ("mx.one.test", "127.0.0.9")
    assert view.text == "451 4.3.0 not now"
    await store.hold(ID, "asked by legal")
    (view,) = (await store.message(ID)).recipients
    assert (view.text, view.reply) == ("asked by legal", REPLY)


async def test_attempt_without_a_reply_does_not_show_an_older_one(store: Store) -> None:
    work = await labelled(store)
    await store.retry(ID)
    claim = await work.claim(LANE, limit=1, octets=1 << 20)
    lost = Verdict(Severity.TRANSIENT, Scope.CONNECTION, "connection_lost", "It broke off.")
    (done,) = mail.outcomes_of(
        claim, State.DEFERRED, delay_s=60, verdict=lost, event={"remote": REMOTE}
    )
    await mail.settle(work, [done])
    (view,) = (await store.message(ID)).recipients
    assert (view.text, view.reply) == ("It broke off.", None)
    assert view.remote is not None


async def test_recipient_that_is_given_back_keeps_its_last_reply(store: Store) -> None:
    work = await labelled(store)
    await store.retry(ID)
    claim = await work.claim(LANE, limit=1, octets=1 << 20)
    broken_off = Verdict(Severity.TRANSIENT, Scope.LOCAL, "given_back", "Broken off by us.")
    await mail.settle(work, mail.outcomes_of(claim, State.READY, verdict=broken_off))
    (view,) = (await store.message(ID)).recipients
    assert (view.status, view.text, view.reply) == ("ready", "Broken off by us.", REPLY)
