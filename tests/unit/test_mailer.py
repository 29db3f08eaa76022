"""The SMTP client for programs, on real sockets: each command, each argument, each way to fail."""

import asyncio
import base64
import socket
import threading
from collections.abc import Iterator

import pytest
from scripted_smtp import Certificate, Peer, Script, ScriptedServer

from relay.mailer import (
    AsyncSmtpClient,
    CommandRefused,
    PasswordAuth,
    Server,
    SmtpClient,
    TokenAuth,
    async_send_mail,
    send_mail,
)
from relay.model.errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExpired,
    LocalProtocolError,
    RemoteProtocolError,
    TlsFailed,
)
from relay.smtp.sasl import OneSided

RUNS_ON_BOTH_LOOPS = True

MESSAGE = b"Subject: hi\n\n.dot\nlast"
ON_WIRE = b"Subject: hi\r\n\r\n..dot\r\nlast\r\n.\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"), "localhost", "127.0.0.1")


@pytest.fixture
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Certificate]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    return certificate


async def client_of(server: ScriptedServer, **how: object) -> AsyncSmtpClient:
    address = f"127.0.0.1:{server.port}"
    return await AsyncSmtpClient.connect(address, **how)  # type: ignore[arg-type]


# -- command by command --------------------------------------------------------------------------


async def test_every_command_is_a_method_and_several_messages_go_on_one_connection() -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.say("220 mx.test ESMTP")
        assert await peer.hear() == "EHLO me.test"
        await peer.say("250-mx.test", "250-SIZE 1000", "250 DSN")
        for size in (" SIZE=5 RET=HDRS ENVID=e1", ""):
            assert await peer.hear() == f"MAIL FROM:<a@b.test>{size}"
            await peer.say("250 2.1.0 ok")
            assert await peer.hear() == "RCPT TO:<x@y.test>"
            await peer.say("250 2.1.5 ok")
            await peer.hear("DATA")
            await peer.say("354 go")
            got.append(await peer.content())
            await peer.say("250 2.0.0 taken")
        for asked, answer in (
            ("VRFY x@y.test", "252 who knows"),
            ("NOOP", "250 ok"),
            ("RSET", "250 ok"),
        ):
            assert await peer.hear() == asked
            await peer.say(answer)
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        smtp = await client_of(server)
        assert smtp.greeting is not None
        assert str(smtp.greeting) == "220 mx.test ESMTP"
        await smtp.hello("me.test")
        assert (await smtp.extension("size"), await smtp.extension("STARTTLS")) == ("1000", None)
        await smtp.mail("a@b.test", size=5, ret="HDRS", envid="e1")
        await smtp.rcpt("x@y.test")
        async with await smtp.data() as writer:
            for octet in MESSAGE:
                await writer.write(bytes([octet]))
        assert writer.reply is not None
        assert writer.reply.text == "taken"
        await smtp.mail("a@b.test")
        await smtp.rcpt("x@y.test")
        writer = await smtp.data()
        await writer.write(MESSAGE)
        assert (await writer.close()).code == 250
        assert (await smtp.verify("x@y.test")).code == 252
        await smtp.noop()
        await smtp.reset()
        await smtp.quit()
        assert not smtp.is_open
    assert got == [ON_WIRE, ON_WIRE]


@pytest.mark.parametrize(
    ("offer", "parameters"), [("DSN", " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o@y.test"), ("SIZE", "")]
)
async def test_reports_are_asked_for_where_the_server_offers_them(
    offer: str, parameters: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 mx.test")
        await peer.hear("EHLO")
        await peer.say("250-mx.test", f"250 {offer}")
        await peer.hear("MAIL FROM:<a@b.test>")
        await peer.say("250 ok")
        assert await peer.hear() == f"RCPT TO:<x@y.test>{parameters}"
        await peer.say("250 ok")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        smtp = await client_of(server)
        await smtp.mail("a@b.test")
        if parameters:
            for wrong in ({"notify": "NEVER,DELAY"}, {"orcpt": "rfc822;a b"}):
                with pytest.raises(LocalProtocolError):
                    await smtp.rcpt("x@y.test", **wrong)
        await smtp.rcpt("x@y.test", notify="delay,success", orcpt="rfc822;o@y.test")
        await smtp.quit()


async def test_server_without_ehlo_is_greeted_with_helo() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 old")
        await peer.hear("EHLO")
        await peer.say("502 what?")
        await peer.hear("HELO localhost")
        await peer.say("250 old")
        await peer.hear("MAIL FROM:<a@b.test>")
        await peer.say("250 ok")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server, await client_of(server) as smtp:
        await smtp.mail("a@b.test", size=9, is_8bit=True, ret="FULL", envid="x")


async def test_refusal_tells_the_reply_and_leaves_the_session_usable() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.hear("MAIL")
        await peer.say("250 ok")
        await peer.hear("RCPT")
        await peer.say("550 5.1.1 nobody here")
        await peer.hear("RSET")
        await peer.say("250 ok")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server, await client_of(server) as smtp:
        await smtp.mail("")
        with pytest.raises(
            CommandRefused, match=r"RCPT was answered 550 5\.1\.1 nobody"
        ) as refused:
            await smtp.rcpt("x@y.test")
        assert refused.value.reply.enhanced == "5.1.1"
        assert refused.value.reply.is_permanent
        await smtp.reset()


ENDS_THE_LINE = ("a@b.test\r\nRCPT TO:<evil@x.test>", "a\n", "a\r", "a\0")
ENDS_THE_PATH = ("<a>", "a b")


@pytest.mark.parametrize(
    ("method", "bad"),
    [
        *(("verify", bad) for bad in ENDS_THE_LINE),
        *(
            (method, bad)
            for method in ("mail", "rcpt", "hello", "send")
            for bad in ENDS_THE_LINE + ENDS_THE_PATH
        ),
    ],
)
async def test_no_argument_ends_a_line(method: str, bad: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        smtp = await client_of(server, timeout_s=5)
        if method != "hello":
            await smtp.hello()
        with pytest.raises(LocalProtocolError):
            if method == "send":
                await smtp.send("a@b.test", [bad], b"x")
            else:
                await getattr(smtp, method)(bad)
        if method == "hello":
            await smtp.hello()
        await smtp.quit()


# -- whole messages ------------------------------------------------------------------------------


@pytest.mark.parametrize("offers", [("PIPELINING", "8BITMIME", "SIZE"), ()])
async def test_message_goes_to_those_who_are_taken_and_the_refused_are_told(
    offers: tuple[str, ...],
) -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.hello(*offers)
        mail = await peer.hear("MAIL")
        assert ("BODY=8BITMIME" in mail, "SIZE=" in mail) == (bool(offers), bool(offers))
        if not offers:
            await peer.say("250 ok")
        answers = ["250 ok", "550 5.1.1 no", "450 4.2.1 later"]
        for answer in answers:
            await peer.hear("RCPT")
            if not offers:
                await peer.say(answer)
        if offers:
            await peer.say("250 ok", *answers)
        await peer.hear("DATA")
        await peer.say("354 go")
        got.append(await peer.content())
        await peer.say("250 taken")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        refused = await async_send_mail(
            f"127.0.0.1:{server.port}",
            "a@b.test",
            ["x@y.test", "no@y.test", "later@y.test"],
            MESSAGE + "é".encode(),
        )
    assert {path: reply.code for path, reply in refused.items()} == {
        "no@y.test": 550,
        "later@y.test": 450,
    }
    assert got == [ON_WIRE.replace(b"last", "lasté".encode())]


async def test_message_that_nobody_takes_is_refused_and_the_next_may_follow() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        for mail, rcpt in (
            ("250 ok", "550 5.1.1 no"),
            ("552 5.3.4 too large", "503 5.5.1 no MAIL"),
        ):
            await peer.hear("MAIL")
            await peer.hear("RCPT")
            await peer.say(mail, rcpt)
            await peer.hear("RSET")
            await peer.say("250 ok")
        await peer.hear("MAIL")
        await peer.hear("RCPT")
        await peer.say("250 ok", "250 ok")
        await peer.hear("DATA")
        await peer.say("451 4.3.0 not now")
        await peer.hear("RSET")
        await peer.say("250 ok")
        await peer.hear("MAIL")
        await peer.hear("RCPT")
        await peer.say("250 ok", "250 ok")
        await peer.hear("DATA")
        await peer.say("354 go")
        await peer.content()
        await peer.say("554 5.6.0 spam")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server, await client_of(server) as smtp:
        for command in ("RCPT", "MAIL", "DATA", "end-of-data"):
            with pytest.raises(CommandRefused) as refused:
                await smtp.send("a@b.test", ["x@y.test"], MESSAGE)
            assert refused.value.reply.command == command


async def test_address_beyond_ascii_needs_a_server_that_takes_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("SMTPUTF8")
        assert await peer.hear() == "MAIL FROM:<a@b.test> SMTPUTF8"
        await peer.say("250 ok")
        assert await peer.hear() == "RCPT TO:<jörg@y.test>"
        await peer.say("250 ok")
        await peer.hear("DATA")
        await peer.say("354 go")
        await peer.content()
        await peer.say("250 ok")
        await peer.goodbye()

    async def without(peer: Peer) -> None:
        await peer.hello()
        await peer.goodbye()

    async with ScriptedServer(script, without).running() as server:
        async with await client_of(server) as smtp:
            assert await smtp.send("a@b.test", ["jörg@y.test"], MESSAGE) == {}
        async with await client_of(server) as smtp:
            with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
                await smtp.send("a@b.test", ["jörg@y.test"], MESSAGE)


# -- what breaks ---------------------------------------------------------------------------------


async def test_message_that_breaks_off_is_never_ended_by_a_dot() -> None:
    said: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.hello()
        for verb, answer in (("MAIL", "250 ok"), ("RCPT", "250 ok"), ("DATA", "354 go")):
            await peer.hear(verb)
            await peer.say(answer)
        said.append(await peer.gone())

    async with ScriptedServer(script).running() as server:
        smtp = await client_of(server)
        await smtp.mail("a@b.test")
        await smtp.rcpt("x@y.test")
        with pytest.raises(ZeroDivisionError):
            async with await smtp.data() as writer:
                await writer.write(b"half a message\r\n")
                raise ZeroDivisionError
        assert not smtp.is_open
        with pytest.raises(LocalProtocolError, match="broken off"):
            await smtp.noop()
    assert b"\r\n.\r\n" not in said[0]
    assert said[0] in (b"", b"half a message\r\n")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("421 4.3.2 going down", CommandRefused),
        ("garbage", RemoteProtocolError),
        ("250 ok\r\n250 who asked", None),
        (None, ConnectionLost),
    ],
)
async def test_what_goes_out_of_step_ends_the_session(
    answer: str | None, error: type[Exception] | None
) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.hear("NOOP")
        if answer is not None:
            await peer.say(answer)
            await peer.gone()

    async with ScriptedServer(script).running() as server:
        smtp = await client_of(server)
        await smtp.hello()
        if error is None:
            await smtp.noop()
            while not smtp._dialogue._reader.has_rest and not smtp._dialogue.stream.has_unread:
                await asyncio.sleep(0.01)
            with pytest.raises(RemoteProtocolError, match="before it was asked"):
                await smtp.rcpt("x@y.test")
        else:
            with pytest.raises(error):
                await smtp.noop()
        assert not smtp.is_open
        await smtp.quit()


async def test_silent_server_is_left_at_the_deadline() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 hello")
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        smtp = await client_of(server, timeout_s=0.1)
        with pytest.raises(DeadlineExpired):
            await smtp.hello()
        await smtp.close()


async def test_failing_quit_is_no_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.hear("QUIT")
        peer.reset()

    async with ScriptedServer(script).running() as server:
        async with await client_of(server) as smtp:
            await smtp.hello()
        assert not smtp.is_open


async def test_greeting_that_refuses_and_port_that_is_closed() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("554 5.7.1 not you")

    async with ScriptedServer(script).running() as server:
        with pytest.raises(CommandRefused, match="greeting was answered 554"):
            await client_of(server)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectFailed, match="refused"):
            await AsyncSmtpClient.connect(f"127.0.0.1:{taken.getsockname()[1]}")
    for bad in ("mail.example.org", "host:0", "host:99999", "a b:25", "::1:25", "h:25\r\n"):
        with pytest.raises(LocalProtocolError, match="write for example"):
            await AsyncSmtpClient.connect(bad)


async def test_two_calls_at_once_are_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.hear("NOOP")
        await asyncio.sleep(0.05)
        await peer.say("250 ok")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server, await client_of(server) as smtp:
        await smtp.hello()
        first = asyncio.create_task(smtp.noop())
        await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError, match="not finished"):
            await smtp.noop()
        await first


# -- TLS and AUTH --------------------------------------------------------------------------------


async def test_starttls_verifies_forgets_and_says_ehlo_again(trusted: Certificate) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS", "SIZE 1")
        await peer.starttls(trusted.server)
        await peer.hello_again("AUTH PLAIN")
        assert await peer.hear() == "AUTH PLAIN AG1lAHNlY3JldA=="
        await peer.say("235 2.7.0 in")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        smtp = await AsyncSmtpClient.connect(f"localhost:{server.port}")
        await smtp.starttls()
        assert await smtp.extension("SIZE") is None
        assert smtp.tls_state["verified"] is True
        assert str(smtp.tls_state["version"]).startswith("TLS")
        assert (await smtp.auth(PasswordAuth("me", "secret", "LOCALHOST."))).code == 235
        with pytest.raises(LocalProtocolError, match="already"):
            await smtp.starttls()
        await smtp.quit()


async def test_certificate_nobody_vouches_for_ends_it(certificate: Certificate) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.starttls(certificate.server)

    async with ScriptedServer(script).running() as server:
        smtp = await client_of(server)
        with pytest.raises(TlsFailed):
            await smtp.starttls()
        assert not smtp.is_open
        await smtp.close()


async def test_tls_from_the_start(trusted: Certificate) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.goodbye()

    async with (
        ScriptedServer(script, tls=trusted.server).running() as server,
        await client_of(server, tls=True) as smtp,
    ):
        await smtp.hello()
        assert smtp.tls_state["verified"] is True


async def test_what_is_injected_before_the_handshake_is_never_a_reply(trusted: Certificate) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.hear("STARTTLS")
        peer.writer.write(b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n")
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        smtp = await client_of(server)
        with pytest.raises(TlsFailed, match="in clear before the handshake"):
            await smtp.starttls()
        assert not smtp.is_open
        await smtp.close()


def server_named(host: str, *, is_private: bool = True) -> Server:
    from relay.smtp.sasl import NO_CHANNEL

    return Server(host, 587, is_private, frozenset({"PLAIN", "XOAUTH2"}), NO_CHANNEL)


def test_credentials_go_to_the_host_they_are_for_alone_and_never_in_clear() -> None:
    auth = PasswordAuth("me", "secret", "mail.example.org")
    assert auth.begin(server_named("mail.example.org")).name == "PLAIN"
    with pytest.raises(LocalProtocolError, match="for mail"):
        auth.begin(server_named("evil.example.org"))
    with pytest.raises(LocalProtocolError, match="starttls"):
        auth.begin(server_named("mail.example.org", is_private=False))
    tokens = iter(["one", "two"])
    token = TokenAuth("me", lambda: next(tokens), "mail.example.org")
    for word in (b"one", b"two"):
        assert word in (token.begin(server_named("mail.example.org")).initial_response() or b"")
    assert "secret" not in repr(auth)
    assert "two" not in repr(token)


async def test_mechanism_of_a_users_own_and_one_that_is_broken_off() -> None:
    class Riddle(OneSided):
        name = "X-RIDDLE"

        def initial_response(self) -> None:
            return None

        def respond(self, challenge: bytes) -> bytes:
            if challenge != b"what?":
                raise ValueError("no riddle")
            return b"time"

    class Riddler:
        def begin(self, server: Server) -> Riddle:
            assert "X-RIDDLE" in server.mechanisms
            return Riddle()

    async def script(peer: Peer) -> None:
        await peer.hello("AUTH X-RIDDLE")
        for challenge, answer in (("what?", "dGltZQ=="), ("eh", "*")):
            await peer.hear("AUTH X-RIDDLE")
            await peer.say(f"334 {base64.b64encode(challenge.encode()).decode()}")
            assert await peer.hear() == answer
            await peer.say("535 5.7.8 no" if answer != "*" else "501 5.7.0 as you like")
        await peer.goodbye()

    async with ScriptedServer(script).running() as server, await client_of(server) as smtp:
        with pytest.raises(CommandRefused, match="535"):
            await smtp.auth(Riddler())
        with pytest.raises(RemoteProtocolError, match="broken off: no riddle"):
            await smtp.auth(Riddler())


# -- without an event loop -----------------------------------------------------------------------


class Threaded:
    """A scripted server on a loop in another thread."""

    def __init__(self, *scripts: object) -> None:
        self.server = ScriptedServer(*scripts)  # type: ignore[arg-type]
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        async with self.server.running():
            self._loop, self._ends = asyncio.get_running_loop(), asyncio.Event()
            self._ready.set()
            await self._ends.wait()

    def __enter__(self) -> str:
        self._thread.start()
        self._ready.wait(30)
        return f"127.0.0.1:{self.server.port}"

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ends.set)
        self._thread.join()


async def one_message(peer: Peer) -> None:
    await peer.hello("PIPELINING")
    await peer.hear("MAIL")
    await peer.hear("RCPT")
    await peer.say("250 ok", "250 ok")
    await peer.hear("DATA")
    await peer.say("354 go")
    assert await peer.content() == ON_WIRE
    await peer.say("250 taken")
    await peer.goodbye()


def test_message_in_one_call() -> None:
    with Threaded(one_message) as address:
        assert send_mail(address, "a@b.test", ["x@y.test"], MESSAGE) == {}


def taken_after_login(*, starttls: Certificate | None = None) -> Script:
    """Takes one message from who logs in, under STARTTLS where it has a certificate."""

    async def script(peer: Peer) -> None:
        if starttls is not None:
            await peer.hello("STARTTLS")
            await peer.starttls(starttls.server)
            await peer.hello_again("AUTH PLAIN", "PIPELINING")
        else:
            await peer.hello("AUTH PLAIN", "PIPELINING")
        assert await peer.hear() == "AUTH PLAIN AG1lAHNlY3JldA=="
        await peer.say("235 2.7.0 in")
        for command in ("MAIL FROM:<a@b.test>", "RCPT TO:<x@y.test>", "RCPT TO:<no@y.test>"):
            assert await peer.hear() == command
        await peer.say("250 ok", "250 ok", "550 5.1.1 nobody")
        await peer.hear("DATA")
        await peer.say("354 go")
        assert await peer.content() == ON_WIRE
        await peer.say("250 taken")
        await peer.goodbye()

    return script


@pytest.mark.parametrize("starts", [True, False])
async def test_message_in_one_call_goes_under_tls_and_after_the_login(
    trusted: Certificate, starts: bool
) -> None:
    script = taken_after_login(starttls=trusted if starts else None)
    tls = None if starts else trusted.server
    async with ScriptedServer(script, tls=tls).running() as server:
        refused = await async_send_mail(
            f"localhost:{server.port}",
            "a@b.test",
            ["x@y.test", "no@y.test"],
            MESSAGE,
            auth=PasswordAuth("me", "secret", "localhost"),
            tls=not starts,
        )
    assert {path: reply.code for path, reply in refused.items()} == {"no@y.test": 550}


def test_client_without_an_event_loop_has_the_same_methods() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("SIZE 7")
        for verb, answer in (("MAIL", "250 ok"), ("RCPT", "250 ok"), ("DATA", "354 go")):
            await peer.hear(verb)
            await peer.say(answer)
        assert await peer.content() == ON_WIRE
        await peer.say("250 taken")
        await peer.goodbye()

    with Threaded(script) as address:
        host, _, port = address.rpartition(":")
        with SmtpClient.adopt(socket.create_connection((host, int(port))), "mx.test") as smtp:
            assert smtp.extension("SIZE") == "7"
            smtp.mail("a@b.test")
            smtp.rcpt("x@y.test")
            with smtp.data() as writer:
                writer.write(MESSAGE)
            assert writer.reply is not None
            smtp.quit()
            with pytest.raises(ConnectionLost):
                smtp.noop()
    public = {name for name in dir(AsyncSmtpClient) if not name.startswith("_")}
    assert {name for name in dir(SmtpClient) if not name.startswith("_")} >= public


def test_each_method_of_the_client_without_a_loop_says_its_command(trusted: Certificate) -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.starttls(trusted.server)
        await peer.hello_again("AUTH PLAIN", "SIZE", "8BITMIME", "SMTPUTF8", "DSN")
        for command, answer in (
            ("AUTH PLAIN AG1lAHNlY3JldA==", "235 in"),
            ("VRFY x@y.test", "252 who knows"),
            ("NOOP", "250 ok"),
            ("MAIL FROM:<a@b.test> SIZE=5 BODY=8BITMIME RET=FULL ENVID=e SMTPUTF8", "250 ok"),
            ("RCPT TO:<x@y.test> NOTIFY=NEVER ORCPT=rfc822;o@y.test", "550 no"),
            ("RSET", "250 ok"),
            ("MAIL FROM:<a@b.test> SIZE=27", "250 ok"),
            ("RCPT TO:<x@y.test>", "250 ok"),
            ("DATA", "354 go"),
        ):
            assert await peer.hear() == command
            await peer.say(answer)
        got.append(await peer.content())
        await peer.say("250 taken")
        for command, answer in (("MAIL", "250 ok"), ("RCPT", "250 ok"), ("DATA", "354 go")):
            await peer.hear(command)
            await peer.say(answer)
        await peer.gone()

    with Threaded(script) as address:
        smtp = SmtpClient.connect(address.replace("127.0.0.1", "localhost"), timeout_s=30)
        assert smtp.greeting is not None and smtp.greeting.code == 220
        assert smtp.hello("me.test").code == 250 and smtp.extensions.starttls
        smtp.starttls()
        assert smtp.tls_state["verified"] is True and smtp.extension("STARTTLS") is None
        assert smtp.auth(PasswordAuth("me", "secret", "localhost")).code == 235
        assert (smtp.verify("x@y.test").code, smtp.noop().code) == (252, 250)
        smtp.mail("a@b.test", size=5, is_8bit=True, smtputf8=True, ret="FULL", envid="e")
        with pytest.raises(CommandRefused):
            smtp.rcpt("x@y.test", notify="never", orcpt="rfc822;o@y.test")
        smtp.reset()
        assert smtp.send("a@b.test", ["x@y.test"], MESSAGE) == {}
        smtp.mail("a@b.test")
        smtp.rcpt("x@y.test")
        with pytest.raises(ZeroDivisionError), smtp.data() as writer:
            writer.write(b"half a mess")
            raise ZeroDivisionError
        assert not smtp.is_open
        smtp.close()
    assert got == [ON_WIRE]


def test_client_without_a_loop_that_gets_no_session_leaves_nothing_behind() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("554 5.7.1 not you")
        await peer.gone()

    with Threaded(script) as address, pytest.raises(CommandRefused, match="554"):
        SmtpClient.connect(address)


async def test_client_for_programs_without_a_loop_says_so_inside_one() -> None:
    with pytest.raises(LocalProtocolError, match="use AsyncSmtpClient"):
        SmtpClient.connect("127.0.0.1:25")
