"""Sessions in clear over real sockets, against a server that follows a script."""

import asyncio
import contextlib

import msgspec
import pytest
from scripted_smtp import Peer, ScriptedServer

from relay.delivery.session import Session, open_session
from relay.delivery.values import (
    Credentials,
    Dialogue,
    Endpoint,
    SessionFailed,
    Transaction,
    TransactionResult,
)
from relay.model.errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExpired,
    LeaseLost,
    LocalProtocolError,
    RemoteProtocolError,
)
from relay.model.verdict import Scope, Severity
from relay.policy.classify import classify_session_failure
from relay.settings.schema import Timeouts, TlsPolicy

RUNS_ON_BOTH_LOOPS = True

LARGE = (b"x" * 78 + b"\r\n") * 250_000  # 20 MB: more than any socket buffer


def endpoint(server: ScriptedServer) -> Endpoint:
    return Endpoint("mx.test", "127.0.0.1", server.port)


def dialogue(**timeouts: float) -> Dialogue:
    short = dict.fromkeys(("greeting", "command", "data", "data_block", "data_done"), 5.0)
    return Dialogue("relay.test", timeouts=Timeouts(**(short | timeouts)))


def transaction(
    *forward_paths: str, content: bytes = b"Subject: x\r\n\r\nhello\r\n"
) -> Transaction:
    return Transaction("a@relay.test", forward_paths or ("b@mx.test",), content)


async def run(server: ScriptedServer, *paths: str, content: bytes = b"x\r\n") -> TransactionResult:
    session = await open_session(endpoint(server), dialogue())
    result = await session.transact(transaction(*paths, content=content))
    await session.close()
    return result


async def test_message_is_delivered_and_quit_said() -> None:
    received = []

    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING", "SIZE 1000000")
        received.append(await peer.take(2))
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        assert session.extensions.pipelining
        assert session.server_name == "mx.test"
        assert session.tls == {}
        assert session.remote == {"host": "mx.test", "ip": "127.0.0.1", "port": server.port}
        assert set(session.timings) == {"connect", "greeting", "hello"}
        result = await session.transact(transaction("b@mx.test", "c@mx.test", content=b".a\r\nb"))
        assert session.is_idle_alive()
        await session.close()
        assert not session.is_usable
    assert received == [b"..a\r\nb\r\n.\r\n"]
    assert [reply and reply.code for reply in result.replies] == [250, 250]
    assert result.final is not None
    assert result.final.text == "queued as 1"
    assert result.dot_sent
    assert result.broken is None
    assert set(result.timings) == {"envelope", "data", "data_done"}
    assert "> RCPT TO:<c@mx.test>" in result.dialogue
    assert "< 250 2.0.0 queued as 1" in result.dialogue


@pytest.mark.client_row("C88")
async def test_many_transactions_share_a_session_with_the_next_envelope_behind_the_dot() -> None:
    segments = []

    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        for _ in range(4):
            await peer.content()
            await peer.hear("MAIL")
            await peer.hear("RCPT")
            await peer.hear("DATA")
            segments.append("together")
            await peer.say("250 ok", "250 ok", "250 ok", "354 go")
        await peer.content()
        await peer.say("250 ok")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        transactions = [transaction(f"u{number}@mx.test") for number in range(5)]
        for index, each in enumerate(transactions):
            following = transactions[index + 1] if index < 4 else None
            result = await session.transact(each, following=following)
            assert result.transaction is each
            assert result.final is not None
        await session.close()
    assert len(segments) == 4
    assert session.transactions == 5


async def test_announced_transaction_must_be_the_next() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        await peer.content()
        for _ in range(3):
            await peer.hear()
        await peer.say("250 ok", "250 ok", "250 ok", "354 go")
        await peer.content()
        await peer.say("250 ok")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        announced = transaction("c@mx.test")
        await session.transact(transaction(), following=announced)
        with pytest.raises(LocalProtocolError):
            await session.transact(transaction())
        assert (await session.transact(announced)).final is not None
        await session.close()


async def test_announced_transaction_that_never_comes_drops_the_connection_at_close() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.take()
        await peer.envelope()
        assert await peer.gone() == b""

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        await session.transact(transaction(), following=transaction())
        assert not session.is_idle_alive()
        await session.close()


async def test_server_without_pipelining_is_asked_one_thing_at_a_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        for verb, reply in (("MAIL", "250 ok"), ("RCPT", "550 no"), ("RCPT", "250 ok")):
            await peer.hear(verb)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(peer.reader.read(1), 0.02)
            await peer.say(reply)
        await peer.hear("DATA")
        await peer.say("354 go")
        await peer.content()
        await peer.say("250 ok")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        result = await run(server, "b@mx.test", "c@mx.test")
    assert [reply and reply.code for reply in result.replies] == [550, 250]
    assert result.final is not None


async def test_before_dot_that_says_no_drops_the_connection_without_content() -> None:
    received = []

    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        received.append(await peer.gone())

    async def no() -> bool:
        return False

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        result = await session.transact(transaction(), before_dot=no)
        assert isinstance(result.broken, LeaseLost)
        assert not result.dot_sent
        assert not session.is_usable
        await session.close()
    assert received == [b""]


async def test_before_dot_is_asked_when_only_the_last_block_is_left() -> None:
    content = (b"x" * 78 + b"\r\n") * 5000
    received = []

    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        received.append(await peer.gone())

    asked = []

    async def no() -> bool:
        await asyncio.sleep(0.05)
        asked.append(True)
        return False

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        result = await session.transact(transaction(content=content), before_dot=no)
        await session.close()
    assert asked == [True]
    assert not result.dot_sent
    assert isinstance(result.broken, LeaseLost)
    assert len(content) - 131_072 <= len(received[0]) < len(content)


async def test_before_dot_that_fails_drops_the_connection_and_is_raised() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        assert await peer.gone() == b""

    async def fails() -> bool:
        raise RuntimeError("no store")

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        with pytest.raises(RuntimeError):
            await session.transact(transaction(), before_dot=fails)
        assert not session.is_usable
        await session.close()


async def test_before_dot_is_not_asked_when_nobody_is_accepted() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        for _ in range(3):
            await peer.hear()
        await peer.say("250 ok", "550 no", "354 go")
        assert await peer.content() == b".\r\n"
        await peer.say("250 nothing")
        await peer.goodbye()

    async def never() -> bool:
        raise AssertionError

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        result = await session.transact(transaction(), before_dot=never)
        await session.close()
    assert result.final is None
    assert not result.dot_sent
    assert result.broken is None


async def test_peer_that_goes_while_before_dot_waits_gets_no_dot() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        await peer.say("421 4.3.2 going down")
        peer.writer.close()
        gone.set()

    async def waits() -> bool:
        await gone.wait()
        await asyncio.sleep(0.05)
        return True

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        result = await session.transact(transaction(), before_dot=waits)
        await session.close()
    assert isinstance(result.broken, ConnectionLost)
    assert "421" in str(result.broken)
    assert not result.dot_sent


@pytest.mark.client_row("C83")
async def test_close_right_after_the_dot_is_uncertain() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        await peer.content()

    async with ScriptedServer(script).running() as server:
        result = await run(server)
    assert result.dot_sent
    assert result.final is None
    assert isinstance(result.broken, ConnectionLost)
    assert "! " in result.dialogue


@pytest.mark.client_row("C84")
async def test_accepted_then_closed_without_quit_is_delivered() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.take()

    async with ScriptedServer(script).running() as server:
        result = await run(server)
    assert result.final is not None
    assert result.broken is None


@pytest.mark.client_row("C80")
async def test_refusal_and_close_inside_the_content_is_a_refusal() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        await peer.reader.read(1000)
        await peer.say("550 5.7.1 I have seen enough")

    async with ScriptedServer(script).running() as server:
        result = await run(server, content=LARGE)
    assert result.final is not None
    assert result.final.enhanced == "5.7.1"
    assert not result.dot_sent


@pytest.mark.client_row("C80")
async def test_refusal_and_reset_inside_the_content_is_a_refusal() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        await peer.reader.read(1000)
        await peer.say("550 5.7.1 I have seen enough")
        peer.reset()

    async with ScriptedServer(script).running() as server:
        result = await run(server, content=LARGE)
    assert result.final is not None
    assert result.final.code == 550


async def test_connection_lost_inside_the_content_did_not_send_the_dot() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        await peer.reader.read(1000)
        peer.reset()

    async with ScriptedServer(script).running() as server:
        result = await run(server, content=LARGE)
    assert isinstance(result.broken, ConnectionLost)
    assert not result.dot_sent


@pytest.mark.client_row("C81")
async def test_server_that_stops_reading_meets_the_block_deadline_without_dot() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        peer.writer.transport.pause_reading()
        await asyncio.sleep(5)

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue(data_block=0.2))
        result = await session.transact(transaction(content=LARGE))
        await session.close()
    assert isinstance(result.broken, DeadlineExpired)
    assert (result.broken.phase, result.broken.deadline_s) == ("data_block", 0.2)
    assert not result.dot_sent


async def test_large_content_arrives_whole() -> None:
    received = []

    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        received.append(await peer.take())
        await peer.goodbye()

    content = (b".x" * 40 + b"\r\n") * 10_000
    async with ScriptedServer(script).running() as server:
        result = await run(server, content=content)
    assert result.final is not None
    assert received[0] == content.replace(b"\n.", b"\n..").replace(b".", b"..", 1) + b".\r\n"


@pytest.mark.parametrize(
    ("phase", "timeouts"),
    [
        ("command", {"command": 0.1}),
        ("data", {"data": 0.1}),
        ("data_done", {"data_done": 0.1}),
    ],
)
async def test_each_phase_has_its_own_deadline(phase: str, timeouts: dict[str, float]) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        if phase == "command":
            await peer.hear("MAIL")
        elif phase == "data":
            for _ in range(3):
                await peer.hear()
            await peer.say("250 ok", "250 ok")
        else:
            await peer.envelope()
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue(**timeouts))
        result = await session.transact(transaction())
        await session.close()
    assert isinstance(result.broken, DeadlineExpired)
    assert (result.broken.phase, result.broken.deadline_s) == (phase, 0.1)
    assert result.dot_sent is (phase == "data_done")
    broken_in = {"command": "envelope", "data": "envelope", "data_done": "data_done"}[phase]
    assert list(result.timings)[-1] == broken_in and result.timings[broken_in] > 0.05


@pytest.mark.client_row("C18", "C82")
async def test_deadline_is_per_reply_not_per_octet() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.hear("MAIL")
        for octet in b"250 o" + b"k" * 200:
            peer.writer.write(bytes([octet]))
            await asyncio.sleep(0.02)

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue(command=0.3))
        result = await session.transact(transaction())
        await session.close()
    assert isinstance(result.broken, DeadlineExpired)


async def test_attempt_as_a_whole_has_a_deadline_however_lively_the_peer() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await peer.hear()
                await asyncio.sleep(0.1)
                await peer.say("250 ok")

    many = transaction(*(f"r{number}@mx.test" for number in range(30)))
    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue(command=20, attempt=0.5))
        result = await session.transact(many)
        await session.close()
    assert isinstance(result.broken, DeadlineExpired)
    assert (result.broken.phase, result.dot_sent) == ("attempt", False)
    assert result.timings["envelope"] > 0.4
    assert result.mail is not None and None in result.replies


async def test_opening_as_a_whole_has_a_deadline_too() -> None:
    async def script(peer: Peer) -> None:
        for octet in b"220 mx.test" + b"x" * 400:
            peer.writer.write(bytes([octet]))
            await asyncio.sleep(0.05)

    async with ScriptedServer(script).running() as server:
        with pytest.raises(SessionFailed) as failed:
            await open_session(endpoint(server), dialogue(greeting=20, attempt=0.3))
    assert isinstance(failed.value.cause, DeadlineExpired)
    assert failed.value.cause.phase == "attempt"


@pytest.mark.client_row("C85")
async def test_reply_to_the_dot_is_awaited_beyond_the_deadline_of_the_attempt() -> None:
    """The message may have been taken: to go away now would be to send it twice."""

    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        await peer.content()
        await asyncio.sleep(0.5)
        await peer.say("250 queued")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue(attempt=0.3))
        result = await session.transact(transaction())
        await session.close()
    assert result.broken is None
    assert result.final is not None and result.final.is_positive


async def test_slow_replies_within_the_deadline_each_are_waited_for() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        for _ in range(4):
            await peer.hear("MAIL" if not peer.heard[1:] else "RCPT")
            await asyncio.sleep(0.12)
            await peer.say("250 ok")
        await peer.hear("DATA")
        await peer.say("354 go")
        await peer.content()
        await peer.say("250 ok")

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue(command=0.3))
        result = await session.transact(transaction("b@mx.test", "c@mx.test", "d@mx.test"))
        await session.close()
    assert result.broken is None


async def test_malformed_address_leaves_the_session_usable() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.take()
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        result = await session.transact(transaction("b@mx.test\r\nDATA"))
        assert isinstance(result.broken, LocalProtocolError)
        assert session.is_usable
        assert (await session.transact(transaction())).final is not None
        await session.close()


async def test_message_above_the_limit_is_refused_here_and_the_session_goes_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING", "SIZE 100")
        await peer.take()
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        result = await session.transact(transaction(content=b"x" * 200))
        assert result.is_local
        assert result.mail is not None
        assert result.mail.enhanced == "5.3.4"
        assert "not sent" in result.dialogue
        assert (await session.transact(transaction())).final is not None
        await session.close()


async def test_transactions_do_not_overlap() -> None:
    started = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.envelope()
        started.set()
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        running = asyncio.create_task(session.transact(transaction()))
        await started.wait()
        with pytest.raises(LocalProtocolError):
            await session.transact(transaction())
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not session.is_usable
        await session.close()


@pytest.mark.parametrize("word", ["421 4.4.2 idle too long", "250 surplus", "42", ""])
async def test_idle_session_that_spoke_or_went_is_not_alive(word: str) -> None:
    done = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.take()
        peer.writer.write(word.encode())
        if not word:
            peer.writer.close()
        done.set()
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        await session.transact(transaction())
        await done.wait()
        await asyncio.sleep(0.05)
        assert not session.is_idle_alive()
        await session.close()


async def test_transaction_on_a_session_that_died_idle_reports_nothing_sent() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.take()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        await session.transact(transaction())
        await asyncio.sleep(0.05)
        result = await session.transact(transaction())
        assert isinstance(result.broken, ConnectionLost)
        assert result.mail is None
        assert not result.dot_sent
        await session.close()


@pytest.mark.client_row("C87")
async def test_close_does_not_wait_longer_than_its_deadline() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.hear("QUIT")
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue(quit=0.1))
        began = asyncio.get_running_loop().time()
        await session.close()
        assert asyncio.get_running_loop().time() - began < 1
        await session.close()


@pytest.mark.parametrize("answer", ["500 what?", "garbage", None])
@pytest.mark.client_row("C87")
async def test_whatever_answers_quit_close_is_silent(answer: str | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.hear("QUIT")
        if answer is not None:
            await peer.say(answer)

    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), dialogue())
        await session.close()


async def fail_to_open(server: ScriptedServer, how: Dialogue | None = None) -> SessionFailed:
    with pytest.raises(SessionFailed) as caught:
        await open_session(endpoint(server), how or dialogue(greeting=0.2, command=0.2))
    return caught.value


@pytest.mark.client_row("C8")
async def test_greeting_refused_is_a_failure_of_the_greeting_and_quit_is_said() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("554-no", "554 service")
        await peer.goodbye()

    server = ScriptedServer(script)
    async with server.running():
        failed = await fail_to_open(server)
    assert failed.phase == "greeting"
    assert failed.reply is not None
    assert failed.reply.lines == ("no", "service")
    assert server.peers[0].heard == [b"QUIT\r\n"]
    assert "< 554-no" in failed.dialogue


async def test_silent_greeting_meets_its_deadline() -> None:
    async def script(peer: Peer) -> None:
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        failed = await fail_to_open(server, dialogue(greeting=0.1))
    assert failed.phase == "greeting"
    assert isinstance(failed.cause, DeadlineExpired)
    assert failed.cause.deadline_s == 0.1


@pytest.mark.parametrize(
    ("said", "phase", "cause"),
    [
        ([], "greeting", ConnectionLost),
        (["bogus"], "greeting", RemoteProtocolError),
        (["421 busy"], "greeting", None),
        (["220 mx", "EHLO", "421 busy"], "hello", None),
        (["220 mx", "EHLO", "550 not you"], "hello", None),
        (["220 mx", "EHLO", "502 no", "HELO"], "hello", ConnectionLost),
        (["220 mx", "EHLO", "250-a\r\n550 b"], "hello", RemoteProtocolError),
    ],
)
async def test_opening_failures_name_their_phase(
    said: list[str], phase: str, cause: type[Exception] | None
) -> None:
    async def script(peer: Peer) -> None:
        for line in said:
            await (peer.hear(line) if line in ("EHLO", "HELO") else peer.say(line))

    async with ScriptedServer(script).running() as server:
        failed = await fail_to_open(server)
    assert failed.phase == phase
    if cause is None:
        assert failed.reply is not None
    else:
        assert isinstance(failed.cause, cause)


@pytest.mark.parametrize("offer", ["STARTTLS", "AUTH PLAIN"])
@pytest.mark.parametrize("answer", ["", "421 closing", "what?", "250-a\r\n251 b"])
async def test_secured_opening_that_breaks_sends_no_mail(offer: str, answer: str) -> None:
    heard: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.hello(offer)
        await peer.hear(offer.split()[0])
        if answer:
            await peer.say(answer)
        else:
            peer.reset()
        heard.append(await peer.gone())

    credentials = Credentials("user", "secret") if offer != "STARTTLS" else None
    how = msgspec.structs.replace(dialogue(), credentials=credentials)
    async with ScriptedServer(script).running() as server:
        with pytest.raises(SessionFailed) as caught:
            await open_session(endpoint(server), how)
    failed = caught.value
    assert failed.phase == ("auth" if credentials else "tls")
    assert b"MAIL" not in b"".join(heard)
    verdict = classify_session_failure(failed.phase, failed.reply, failed.cause)
    assert verdict.severity is Severity.TRANSIENT
    assert verdict.scope in (Scope.HOST, Scope.ROUTE)


async def test_refused_port_is_a_failure_to_connect() -> None:
    server = ScriptedServer()
    async with server.running():
        pass
    failed = await fail_to_open(server)
    assert failed.phase == "connect"
    assert isinstance(failed.cause, ConnectFailed)
    assert "refused" in str(failed.cause)


async def test_bad_hello_name_fails_before_a_connection() -> None:
    server = ScriptedServer(Peer.goodbye)
    async with server.running():
        failed = await fail_to_open(server, Dialogue("a\r\nMAIL"))
    assert isinstance(failed.cause, LocalProtocolError)
    assert failed.phase == "hello"
    assert server.connections == 0


async def test_credentials_are_used_on_loopback_without_tls_and_stay_out_of_the_dialogue() -> None:
    lines = []

    async def script(peer: Peer) -> None:
        await peer.hello("AUTH PLAIN LOGIN", "PIPELINING")
        lines.append(await peer.hear("AUTH PLAIN "))
        await peer.say("235 ok")
        await peer.take()
        await peer.goodbye()

    account = Dialogue("relay.test", credentials=Credentials("user", "secret"))
    async with ScriptedServer(script).running() as server:
        session = await open_session(endpoint(server), account)
        result = await session.transact(transaction())
        await session.close()
    assert "AUTH PLAIN ***" in result.dialogue
    assert lines[0].split()[-1] not in result.dialogue


@pytest.mark.parametrize("offer", ["AUTH PLAINX", "HELP"])
@pytest.mark.client_row("C47")
async def test_credentials_without_a_mechanism_in_common_fail_auth(offer: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(offer)
        await peer.goodbye()

    server = ScriptedServer(script)
    async with server.running():
        failed = await fail_to_open(
            server, Dialogue("relay.test", credentials=Credentials("user", "secret"))
        )
        await asyncio.sleep(0.05)
    assert failed.phase == "auth"
    assert server.peers[0].heard[-1] == b"QUIT\r\n"


async def test_auth_refused_names_phase_and_reply() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("AUTH LOGIN")
        await peer.hear("AUTH LOGIN")
        await peer.say("535 5.7.8 no")
        await peer.goodbye()

    account = Dialogue("relay.test", tls=TlsPolicy.OFF, credentials=Credentials("user", "secret"))
    async with ScriptedServer(script).running() as server:
        failed = await fail_to_open(server, account)
    assert failed.phase == "auth"
    assert failed.reply is not None
    assert failed.reply.enhanced == "5.7.8"


async def test_dialogue_is_bounded_whatever_the_server_says() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*[f"X-KEYWORD-{number} {'y' * 60}" for number in range(200)], "PIPELINING")
        for _ in range(52):
            await peer.hear()
        await peer.say("250 ok", *["550 5.1.1 " + "z" * 3000] * 50, "554 no recipients")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        result = await run(server, *[f"user{number}@mx.test" for number in range(50)])
    assert result.broken is None
    assert len(result.dialogue.encode()) <= 4096
    assert "left out" in result.dialogue
    assert "< 554 no recipients" in result.dialogue


async def test_session_over_ipv6() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.take()
        await peer.goodbye()

    try:
        context = ScriptedServer(script).running("::1")
        server = await context.__aenter__()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    try:
        session: Session = await open_session(Endpoint("mx.test", "::1", server.port), dialogue())
        assert (await session.transact(transaction())).final is not None
        await session.close()
    finally:
        await context.__aexit__(None, None, None)
