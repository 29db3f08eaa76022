"""What a sender asks of reports lies in the store with his mail; reports are bounded."""

from relay.delivery.deadlines import do_what_is_due
from relay.model.address import parse_address
from relay.model.dsn import Dsn, RecipientDsn
from relay.model.message import Submission
from relay.model.state import State
from relay.policy.route import RouteTable
from relay.settings.schema import Reports, Settings
from relay.store.audit import audit
from relay.store.codec import decode_message, unpack
from relay.store.deadlines import Deadlines
from relay.store.queue import Store, accept_request, rows_of
from relay.store.views import MessageFilter
from relay.store.work import Work
from tests.store import mail

LANE = mail.lane_of("one.test")
ID = "0000000000000000000A"


class Us:
    """In whose name reports are written."""

    settings = Settings()
    hello_name = "relay.example"
    routes = RouteTable.from_settings(settings)


async def worker(store: Store) -> Work:
    work = await mail.worker(store, lease_s=10_000)
    await work.routed("one.test", LANE, b"site", fresh_s=10_000)
    return work


def asking(*notify: str, **more: object) -> Submission:
    """Mail to r1, r2, … that asked this."""
    to = [f"r{number}@one.test" for number in range(1, len(notify) + 1)]
    asked = tuple(RecipientDsn(letters) for letters in notify)
    values: dict[str, object] = {"queue_id": ID, "wants_dsn": True, "ingress": "smtp"}
    return mail.submission(*to, **values | {"dsn": Dsn(recipients=asked)} | more)


async def test_parameters_come_out_of_the_store_as_they_went_in(store: Store) -> None:
    asked = (RecipientDsn("SD", "rfc822;A:b+2B@x.test"), RecipientDsn(), RecipientDsn("N"))
    dsn = Dsn("FULL", "QQ+2B17", asked)
    await store.accept(asking("", "", "", dsn=dsn))
    work = await worker(store)
    (message,) = (await work.claim(LANE, limit=10, octets=1 << 20)).messages
    assert (message.ret, message.envid) == ("FULL", "QQ+2B17")
    assert tuple(item.dsn for item in message.recipients) == asked
    # An attempt writes the recipient's record anew; what was asked stays.
    later = [mail.outcome(ID, n, 1, State.DEFERRED, delay_s=1.0) for n in (1, 2, 3)]
    await mail.settle(work, later)
    await mail.shift(store, 10.0)
    await mail.tick(work)
    (message,) = (await work.claim(LANE, limit=10, octets=1 << 20)).messages
    assert tuple(item.dsn for item in message.recipients) == asked
    assert await audit(store) == []


async def test_mail_that_asks_nothing_is_stored_without_an_octet_more(store: Store) -> None:
    plain = asking("", dsn=None)
    await store.accept(plain)
    raw = await store.wire.call("HMGET", f"{store.p}m:{ID}", "m", "1")
    assert [len(unpack(record)) for record in raw] == [14, 12]
    assert decode_message(raw[0]).envid == ""
    assert rows_of(plain) == [["r1@one.test", ""]]
    assert "hourly" not in accept_request(plain, [], 1)


async def test_delay_is_told_to_those_who_did_not_exclude_it(store: Store) -> None:
    item = asking("", "SF", "D", "N", expires_after_s=1000.0, delay_notice_after_s=400.0)
    await store.accept(item)
    await mail.shift(store, 401.0)
    await do_what_is_due(Deadlines(store), ID, Us())
    (report,) = [view for view in (await store.messages(MessageFilter()))[0] if view.id != ID]
    content = await store.content(report.id)
    assert content.count(b"Action: delayed") == 2
    assert b"r1@one.test" in content and b"r3@one.test" in content
    assert len([event for event in await store.events() if event.type == "recipient.delayed"]) == 4
    await mail.shift(store, 600.0)
    await do_what_is_due(Deadlines(store), ID, Us())
    assert await mail.states(store, ID) == ["expired"] * 4
    assert await audit(store) == []


async def test_flood_of_reports_is_bounded_counted_and_told(store: Store) -> None:
    work = await worker(store)
    sender = parse_address("me@one.test")
    for number in range(1, 5):
        queue_id = f"000000000000000000{number:02}"
        await store.accept(asking("", queue_id=queue_id))
        claim = await work.claim(LANE, limit=1, octets=1 << 20)
        assert claim.messages[0].queue_id == queue_id
        report = mail.submission(
            str(sender),
            reverse_path=None,
            queue_id=f"0000000000000000R0{number:02}",
            ingress="dsn",
            destinations=("elsewhere.test",),
            reports_on=queue_id,
            hourly_limit=2,
        )
        failed = mail.outcome(queue_id, 1, 1, State.FAILED)
        # A reply that is lost lets the settler ask again: nothing counts twice.
        await mail.settle(work, [failed], report)
        await mail.settle(work, [failed], report)
        assert await mail.states(store, queue_id) == ["failed"]
    queued = [event for event in await store.events() if event.data.get("ingress") == "dsn"]
    assert len(queued) == 2
    suppressed = [event for event in await store.events() if event.type == "report.suppressed"]
    assert [event.data for event in suppressed] == [
        {"queue_id": f"000000000000000000{number:02}", "address": "me@one.test", "limit": 2}
        for number in (3, 4)
    ]
    assert (await store.counters())["reports_suppressed"] == {(): 2}
    assert await audit(store) == []


async def test_reports_without_a_bound_are_all_queued(store: Store) -> None:
    us = Us()
    us.settings = Settings(reports=Reports(per_sender=0))
    for number in range(3):
        queue_id = f"000000000000000000{number:02}"
        await store.accept(asking("", queue_id=queue_id, delay_notice_after_s=400.0))
        await mail.shift(store, 401.0)
        await do_what_is_due(Deadlines(store), queue_id, us)
    queued = [event for event in await store.events() if event.data.get("ingress") == "dsn"]
    assert len(queued) == 3
    assert "reports_suppressed" not in await store.counters()


async def test_flood_of_notices_is_bounded_too(store: Store) -> None:
    us = Us()
    us.settings = Settings(reports=Reports(per_sender=1))
    for number in range(3):
        queue_id = f"000000000000000000{number:02}"
        await store.accept(asking("", queue_id=queue_id, delay_notice_after_s=400.0))
        await mail.shift(store, 401.0)
        await do_what_is_due(Deadlines(store), queue_id, us)
        assert await mail.states(store, queue_id) == ["ready"]
    types = [event.type for event in await store.events()]
    assert (types.count("report.suppressed"), types.count("recipient.delayed")) == (2, 3)
    assert await audit(store) == []
