"""A traced delivery is told while it happens; what is told has no password and harms nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from scripted_smtp import Peer, Script, ScriptedServer

from relay.cli.dialogue import dialogue_lines
from relay.delivery.load import load_of
from relay.delivery.session import Session, open_session
from relay.delivery.trace import EVENT, Trace
from relay.delivery.values import Credentials, Dialogue, Endpoint, TransactionResult
from relay.model.errors import StoreUnavailable
from relay.model.message import ClaimedMessage, ClaimedRecipient
from relay.settings.schema import Timeouts, TlsPolicy
from relay.store.work import Work

MESSAGE = ClaimedMessage(
    queue_id="01J",
    reverse_path="me@relay.test",
    recipients=(),
    content=b"Subject: x\r\n\r\nhello\r\n",
    size=21,
    created=0.0,
    expires=1e12,
    message_id="<a@relay.test>",
    mail_class="transactional",
    tenant="default",
    campaign="",
    is_traced=True,
)


class Told:
    """Takes what a trace tells; `fails`: as a store that is away."""

    def __init__(self, *, fails: bool = False) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.fails = fails
        self.news = asyncio.Event()

    async def tell(self, kind: str, event_id: str, data: dict[str, Any]) -> None:
        if self.fails:
            raise StoreUnavailable("away")
        self.events.append((kind, event_id, data))
        self.news.set()

    @property
    def lines(self) -> list[str]:
        return [
            line
            for _, _, data in self.events
            for entry in data["entries"]
            for line in entry["lines"]
        ]

    @property
    def stages(self) -> list[str]:
        """Each stage once in a row."""
        found: list[str] = []
        for _, _, data in self.events:
            for entry in data["entries"]:
                if entry["stage"] not in found[-1:]:
                    found.append(entry["stage"])
        return found

    async def until(self, line: str) -> None:
        async with asyncio.timeout(20):
            while line not in self.lines:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def session_with(script: Script, **more: Any) -> AsyncIterator[Session]:
    async with ScriptedServer(script).running() as server:
        dialogue = Dialogue("relay.test", tls=TlsPolicy.OFF, timeouts=Timeouts(quit=1.0), **more)
        session = await open_session(Endpoint("mx.test", "127.0.0.1", server.port), dialogue)
        yield session
        await session.close()


async def traced(session: Session, told: Told, *addresses: str) -> TransactionResult:
    recipients = tuple(
        ClaimedRecipient(number, address, "x.test", 1, 0, "q")
        for number, address in enumerate(addresses, 1)
    )
    load = load_of(MESSAGE, recipients)
    trace = Trace(load, session, "S:1", cast(Work, told))
    result = await session.transact(load.transaction, watch=trace.watch)
    await trace.end(result)
    return result


async def test_each_reply_is_told_before_the_next_one_comes() -> None:
    told = Told()

    async def patient(peer: Peer) -> None:
        await peer.hello()
        await peer.hear("MAIL")
        await told.until("> MAIL FROM:<me@relay.test>")
        await peer.say("250 2.1.0 ok")
        await peer.hear("RCPT")
        await told.until("> RCPT TO:<a@x.test>")
        await peer.say("250 2.1.5 ok")
        await peer.hear("RCPT")
        await told.until("< 250 2.1.5 ok")
        await peer.say("550-5.1.1 no", "550 5.1.1 such user")
        await peer.hear("DATA")
        await peer.say("354 go")
        await peer.content()
        await told.until("> [21 octets of content and the final dot]")
        await peer.say("250 2.0.0 queued")
        await peer.goodbye()

    async with session_with(patient) as session:
        result = await traced(session, told, "a@x.test", "b@x.test")
    assert result.final is not None and result.broken is None
    assert told.lines == [
        "< 220 mx.test ESMTP",
        "> EHLO relay.test",
        "< 250 mx.test",
        "> MAIL FROM:<me@relay.test>",
        "< 250 2.1.0 ok",
        "> RCPT TO:<a@x.test>",
        "< 250 2.1.5 ok",
        "> RCPT TO:<b@x.test>",
        "< 550-5.1.1 no",
        "< 550 5.1.1 such user",
        "> DATA",
        "< 354 go",
        "> [21 octets of content and the final dot]",
        "< 250 2.0.0 queued",
    ]
    assert told.stages == [
        *("connect", "greeting", "hello", "MAIL", "RCPT", "DATA", "content", "reply")
    ]
    assert all(entry["after_s"] >= 0 for _, _, data in told.events for entry in data["entries"])
    assert {kind for kind, _, _ in told.events} == {EVENT}
    ids = [event_id for _, event_id, _ in told.events]
    assert len(set(ids)) == len(ids) and ids[0] == f"01J.1:1:1:{EVENT}"
    assert told.events[0][2]["recipients"] == ["a@x.test", "b@x.test"]


async def test_connection_that_breaks_is_told_as_far_as_it_came() -> None:
    async def breaking(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        await peer.reader.readexactly(5)
        peer.reset()

    told = Told()
    async with session_with(breaking) as session:
        result = await traced(session, told, "a@x.test")
    assert result.broken is not None
    assert told.lines[-2].startswith("> [21 octets of content")
    assert told.lines[-1] == f"! {result.broken}"


async def test_password_is_in_no_event() -> None:
    async def with_login(peer: Peer) -> None:
        await peer.hello("AUTH PLAIN LOGIN")
        await peer.hear("AUTH PLAIN")
        await peer.say("235 2.7.0 ok")
        await peer.hear("MAIL")
        await peer.say("550 5.7.1 no")
        await peer.goodbye()

    told = Told()
    async with session_with(with_login, credentials=Credentials("user", "tops3cret")) as session:
        await traced(session, told, "a@x.test")
    assert "> AUTH PLAIN ***" in told.lines and "auth" in told.stages
    said = str(told.events)
    assert "tops3cret" not in said and "dG9wczNjcmV0" not in said and "AHVzZXIA" not in said


async def test_store_that_is_away_harms_no_delivery() -> None:
    async def takes(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.take()
        await peer.goodbye()

    async with session_with(takes) as session:
        result = await traced(session, Told(fails=True), "a@x.test")
    assert result.final is not None and result.final.is_positive


async def test_second_message_on_a_connection_tells_how_it_was_opened() -> None:
    async def takes_two(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.take()
        await peer.take()
        await peer.goodbye()

    first, second = Told(), Told()
    async with session_with(takes_two) as session:
        await traced(session, first, "a@x.test")
        await traced(session, second, "b@x.test")
    assert second.events[0][2]["messages_before"] == 1
    assert second.lines[0] == "< 220 mx.test ESMTP" and "> RCPT TO:<b@x.test>" in second.lines
    (head, *_) = dialogue_lines(second.events[0][2])
    assert "(open, 1 message before; in clear) for b@x.test" in head


def test_dialogue_cannot_act_on_a_terminal() -> None:
    data = {
        "remote": {"host": "mx\x1b[2J", "ip": "127.0.0.1", "port": 25},
        "tls": None,
        "messages_before": 0,
        "recipients": ["a@x.test"],
        "entries": [{"stage": "connect", "after_s": 0.0012, "lines": ["< 220 \x07evil"]}],
    }
    lines = list(dialogue_lines(data))
    assert all(line.isprintable() for line in lines)
    assert lines[1] == "    connect       1.2 ms  < 220 ?evil"
