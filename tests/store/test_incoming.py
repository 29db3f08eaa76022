"""What a report says is told once, of a recipient that is finished, and changes no state."""

import pytest

from relay.store.audit import audit
from relay.store.incoming import Told, tell
from relay.store.queue import Store
from tests.store import mail

ID = "0000000000000000000A"
DATA = {"reason": "no_such_mailbox", "text": "The mailbox does not exist.", "form": "dsn"}


async def told(store: Store, number: int, address: str = "", event: str = "bounced") -> Told:
    kind = f"recipient.{event}"
    return await tell(store, ID, number, event=kind, address=address, keep_s=60, data=DATA)


async def prepared(store: Store, *to: str) -> None:
    await store.accept(mail.submission(*to, queue_id=ID, tenant="acme"))


async def test_report_of_a_recipient_becomes_one_event_however_often_it_comes(
    store: Store,
) -> None:
    await prepared(store, "ann@one.test", "bob@one.test")
    before = await mail.states(store, ID)
    assert await told(store, 2) == Told("new", 2)
    assert await told(store, 2) == Told("again", 2)
    (event,) = [item for item in await store.events() if item.type == "recipient.bounced"]
    assert event.id == f"{ID}.2:recipient.bounced"
    assert (event.data["recipient_id"], event.data["address"]) == (f"{ID}.2", "bob@one.test")
    assert (event.data["reason"], event.data["severity"]) == ("no_such_mailbox", "permanent")
    assert (event.data["tenant"], event.data["form"]) == ("acme", "dsn")
    assert await mail.states(store, ID) == before
    assert await audit(store) == []


async def test_bounce_and_complaint_of_one_recipient_are_two_events(store: Store) -> None:
    await prepared(store, "ann@one.test")
    assert (await told(store, 1)).word == "new"
    assert (await told(store, 1, event="complained")).word == "new"


async def test_report_about_a_message_finds_its_recipient_by_address(store: Store) -> None:
    await prepared(store, "ann@one.test", "bob@one.test")
    assert await told(store, 0, "BOB@one.test") == Told("new", 2)
    assert await told(store, 2) == Told("again", 2)


async def test_report_about_a_message_to_one_is_about_that_one(store: Store) -> None:
    await prepared(store, "ann@one.test")
    assert await told(store, 0, "ann.smith@elsewhere.test") == Told("new", 1)


@pytest.mark.parametrize(("number", "address"), [(0, "eve@one.test"), (3, ""), (0, "")])
async def test_report_about_nobody_of_the_message_tells_nothing(
    store: Store, number: int, address: str
) -> None:
    await prepared(store, "ann@one.test", "bob@one.test")
    assert await told(store, number, address) == Told("unknown", 0)
    assert {item.type for item in await store.events()} == {"message.accepted"}


@pytest.mark.parametrize(
    ("number", "recipient"), [(7, f"{ID}.7"), (0, "")], ids=["recipient", "message"]
)
async def test_report_about_a_forgotten_message_is_told_by_the_token_alone(
    store: Store, number: int, recipient: str
) -> None:
    assert (await told(store, number, "ann@one.test")).word == "new"
    assert (await told(store, number, "ann@one.test")).word == "again"
    (event,) = await store.events()
    assert (event.data["recipient_id"], event.data["queue_id"]) == (recipient, ID)
    assert (event.data["address"], event.data["tenant"]) == ("ann@one.test", "")
