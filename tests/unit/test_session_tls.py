"""STARTTLS, implicit TLS and AUTH over real sockets, with certificates made for the test."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_smtp import Certificate, Peer, ScriptedServer

from relay.delivery.opening import is_private_path
from relay.delivery.session import Session, open_session
from relay.delivery.values import Credentials, Dialogue, Endpoint, SessionFailed, Transaction
from relay.model.errors import DeadlineExpired, RemoteProtocolError, TlsFailed
from relay.settings.schema import Timeouts, TlsPolicy

RUNS_ON_BOTH_LOOPS = True

TIMEOUTS = Timeouts(
    greeting=5.0, tls=5.0, command=5.0, data=5.0, data_block=5.0, data_done=5.0, quit=2.0
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def good(folder: Path) -> Certificate:
    return Certificate(folder, "mx.test", "127.0.0.1")


@pytest.fixture
def trusted(good: Certificate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Certificate]:
    """The good certificate, in the store that verification uses."""
    monkeypatch.setenv("SSL_CERT_FILE", str(good.file))
    return good


def dialogue(tls: TlsPolicy, **more: object) -> Dialogue:
    return Dialogue("relay.test", tls=tls, timeouts=TIMEOUTS, **more)  # type: ignore[arg-type]


async def opened(server: ScriptedServer, how: Dialogue, host: str = "mx.test") -> Session:
    return await open_session(Endpoint(host, "127.0.0.1", server.port), how)


async def fail(server: ScriptedServer, how: Dialogue, host: str = "mx.test") -> SessionFailed:
    with pytest.raises(SessionFailed) as caught:
        await opened(server, how, host)
    return caught.value


def encrypted(certificate: Certificate):
    """A script: STARTTLS, then other offers than before it, one message, QUIT."""

    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS", "SIZE 1")
        await peer.starttls(certificate.server)
        await peer.hello_again("PIPELINING")
        await peer.take()
        await peer.goodbye()

    return script


async def in_clear(peer: Peer) -> None:
    await peer.hello("PIPELINING", "STARTTLS")
    await peer.take()
    await peer.goodbye()


async def deliver(session: Session) -> None:
    message = Transaction("a@relay.test", ("b@mx.test",), b"Subject: x\r\n\r\nhello\r\n")
    result = await session.transact(message)
    assert result.final is not None, result.dialogue
    await session.close()


@pytest.mark.client_row("C41")
async def test_opportunistic_tls_accepts_any_certificate(folder: Path) -> None:
    expired = Certificate(folder, "other.test", days=-1)
    async with ScriptedServer(encrypted(expired)).running() as server:
        session = await opened(server, dialogue(TlsPolicy.OPPORTUNISTIC))
        assert session.tls["version"] == "TLSv1.3"
        assert session.tls["cipher"]
        assert session.tls["verified"] is False
        assert session.extensions.size_limit is None
        assert set(session.timings) == {"connect", "greeting", "hello", "tls"}
        await deliver(session)


async def test_verified_tls_takes_a_certificate_of_the_store_with_the_right_name(
    trusted: Certificate,
) -> None:
    async with ScriptedServer(encrypted(trusted)).running() as server:
        session = await opened(server, dialogue(TlsPolicy.VERIFIED))
        assert session.tls["verified"] is True
        await deliver(session)
        session = await opened(server, dialogue(TlsPolicy.VERIFIED), host="127.0.0.1")
        await deliver(session)


@pytest.mark.parametrize(("is_demanded", "final"), [(True, 250), (False, None)])
async def test_session_that_is_verified_by_way_of_trial_is_none_that_requiretls_asks_for(
    trusted: Certificate, is_demanded: bool, final: int | None
) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.starttls(trusted.server)
        await peer.hello_again("PIPELINING", "REQUIRETLS")
        if is_demanded:
            await peer.take()
        await peer.goodbye()

    tls = TlsPolicy.VERIFIED if is_demanded else TlsPolicy.OPPORTUNISTIC
    async with ScriptedServer(script).running() as server:
        session = await opened(server, dialogue(tls, tries_verified=not is_demanded))
        assert session.tls["verified"] is True
        message = Transaction(
            "a@relay.test", ("b@mx.test",), b"Subject: x\r\n\r\nhi\r\n", requires_tls=True
        )
        result = await session.transact(message)
        assert (result.final.code if result.final else None) == final
        assert result.is_local is not is_demanded
        await session.close()


@pytest.mark.client_row("C40")
async def test_verified_tls_refuses_another_name(trusted: Certificate) -> None:
    server = ScriptedServer(encrypted(trusted))
    async with server.running():
        failed = await fail(server, dialogue(TlsPolicy.VERIFIED), host="evil.test")
    assert failed.phase == "tls"
    assert isinstance(failed.cause, TlsFailed)
    assert "evil.test" in str(failed.cause)
    assert server.connections == 1


async def test_verified_tls_refuses_a_certificate_outside_the_store(
    trusted: Certificate, folder: Path
) -> None:
    other = Certificate(folder, "mx.test", days=20)
    async with ScriptedServer(encrypted(other)).running() as server:
        failed = await fail(server, dialogue(TlsPolicy.VERIFIED))
    assert "certificate not accepted" in str(failed.cause)


async def test_verified_tls_with_an_unreadable_store_fails_the_session(
    good: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")
    async with ScriptedServer(encrypted(good)).running() as server:
        failed = await fail(server, dialogue(TlsPolicy.VERIFIED))
    assert failed.phase == "tls"
    assert "/nowhere/at/all.pem" in str(failed.cause)


@pytest.mark.parametrize("policy", [TlsPolicy.REQUIRED, TlsPolicy.VERIFIED])
@pytest.mark.client_row("C38")
async def test_demanded_tls_is_asked_for_even_if_not_offered_and_never_done_without(
    policy: TlsPolicy,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.hear("STARTTLS")
        await peer.say("502 5.5.1 unknown")
        await peer.goodbye()

    server = ScriptedServer(script)
    async with server.running():
        failed = await fail(server, dialogue(policy))
        await asyncio.sleep(0.05)
    assert failed.phase == "tls"
    assert failed.reply is not None
    assert failed.reply.code == 502
    assert server.connections == 1
    assert server.peers[0].heard[-1] == b"QUIT\r\n"


@pytest.mark.parametrize("code", [454, 502])
@pytest.mark.client_row("C37")
async def test_opportunistic_tls_refused_goes_on_in_clear_on_the_same_session(code: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING", "STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say(f"{code} not now")
        await peer.take()
        await peer.goodbye()

    server = ScriptedServer(script)
    async with server.running():
        await deliver(await opened(server, dialogue(TlsPolicy.OPPORTUNISTIC)))
    assert server.connections == 1


@pytest.mark.client_row("C39")
async def test_tls_off_ignores_the_offer() -> None:
    async with ScriptedServer(in_clear).running() as server:
        session = await opened(server, dialogue(TlsPolicy.OFF))
        assert session.tls == {}
        await deliver(session)


async def handshake_garbage(peer: Peer) -> None:
    await peer.hello("STARTTLS")
    await peer.hear("STARTTLS")
    await peer.say("220 go")
    await peer.reader.read(100)
    await peer.say("this is no handshake")


async def handshake_closed(peer: Peer) -> None:
    await peer.hello("STARTTLS")
    await peer.hear("STARTTLS")
    await peer.say("220 go")
    await peer.reader.read(100)


async def handshake_reset(peer: Peer) -> None:
    await handshake_closed(peer)
    peer.reset()


broken_handshakes = pytest.mark.parametrize(
    "script", [handshake_garbage, handshake_closed, handshake_reset]
)


@broken_handshakes
async def test_failed_opportunistic_handshake_is_followed_by_clear_text_once(script) -> None:
    server = ScriptedServer(script, in_clear)
    async with server.running():
        session = await opened(server, dialogue(TlsPolicy.OPPORTUNISTIC))
        assert session.tls == {}
        assert "TLS handshake failed" in session.clear_because
        await deliver(session)
    assert server.connections == 2


@broken_handshakes
@pytest.mark.client_row("C43")
async def test_failed_demanded_handshake_is_never_followed_by_clear_text(script) -> None:
    server = ScriptedServer(script, in_clear)
    async with server.running():
        failed = await fail(server, dialogue(TlsPolicy.REQUIRED))
    assert failed.phase == "tls"
    assert isinstance(failed.cause, TlsFailed)
    assert server.connections == 1


async def test_failed_handshake_with_credentials_is_never_followed_by_clear_text() -> None:
    server = ScriptedServer(handshake_closed, in_clear)
    async with server.running():
        how = dialogue(TlsPolicy.OPPORTUNISTIC, credentials=Credentials("user", "secret"))
        failed = await fail(server, how)
    assert failed.phase == "tls"
    assert server.connections == 1


@pytest.mark.client_row("C45")
async def test_hanging_handshake_meets_its_deadline_and_clear_text_follows() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        await peer.gone()

    server = ScriptedServer(script, in_clear)
    async with server.running():
        how = Dialogue("relay.test", timeouts=Timeouts(tls=0.2))
        session = await opened(server, how)
        assert "0.2 s (tls)" in session.clear_because
        await deliver(session)
        server.connections = 0
        failed = await fail(
            server, Dialogue("relay.test", tls=TlsPolicy.REQUIRED, timeouts=Timeouts(tls=0.2))
        )
    assert isinstance(failed.cause, DeadlineExpired)


@pytest.mark.parametrize("policy", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRED])
@pytest.mark.client_row("C36")
async def test_octets_behind_the_starttls_reply_fail_the_connection(
    policy: TlsPolicy, good: Certificate
) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go", "250-injected", "250 AUTH PLAIN")
        await peer.gone()

    server = ScriptedServer(script, in_clear)
    async with server.running():
        failed = await fail(server, dialogue(policy))
    assert failed.phase == "tls"
    assert isinstance(failed.cause, RemoteProtocolError)
    assert server.connections == 1


@pytest.mark.client_row("C36")
async def test_octets_just_after_the_starttls_reply_never_become_replies(
    good: Certificate,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        await peer.say("250-injected", "250 AUTH PLAIN")
        await peer.writer.start_tls(good.server)
        await peer.hello_again("PIPELINING")

    server = ScriptedServer(script)
    async with server.running():
        failed = await fail(server, dialogue(TlsPolicy.REQUIRED))
    assert failed.phase == "tls"


@pytest.mark.client_row("C44")
async def test_connection_lost_right_after_the_handshake_counts_as_tls_failure(
    good: Certificate,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.starttls(good.server)
        peer.reset()

    server = ScriptedServer(script, in_clear)
    async with server.running():
        session = await opened(server, dialogue(TlsPolicy.OPPORTUNISTIC))
        assert session.tls == {}
        assert session.clear_because
        await deliver(session)
    assert server.connections == 2


async def test_implicit_tls_greets_inside_tls(trusted: Certificate) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("PIPELINING", "AUTH PLAIN")
        await peer.hear("AUTH PLAIN ")
        await peer.say("235 ok")
        await peer.take()
        await peer.goodbye()

    async with ScriptedServer(script, tls=trusted.server).running() as server:
        how = dialogue(TlsPolicy.VERIFIED, credentials=Credentials("user", "secret"))
        session = await open_session(Endpoint("mx.test", "127.0.0.1", server.port, True), how)
        assert session.tls["verified"] is True
        await deliver(session)


async def test_implicit_tls_is_never_followed_by_clear_text() -> None:
    async def script(peer: Peer) -> None:
        with contextlib.suppress(AssertionError):  # a ClientHello may have a line end in it
            await in_clear(peer)

    server = ScriptedServer(script)
    async with server.running():
        with pytest.raises(SessionFailed) as caught:
            await open_session(
                Endpoint("mx.test", "127.0.0.1", server.port, True),
                dialogue(TlsPolicy.OPPORTUNISTIC),
            )
    assert caught.value.phase == "tls"
    assert server.connections == 1


@pytest.mark.parametrize(
    ("address", "implicit_tls", "is_private"),
    [
        ("127.0.0.1", False, True),
        ("127.200.3.4", False, True),
        ("::1", False, True),
        ("192.0.2.1", False, False),
        ("10.0.0.1", False, False),
        ("2001:db8::1", False, False),
        ("::ffff:192.0.2.1", False, False),
        ("192.0.2.1", True, True),
    ],
)
def test_credentials_go_in_clear_to_this_machine_only(
    address: str, implicit_tls: bool, is_private: bool
) -> None:
    """What is not private waits for STARTTLS: see tests/transcripts/test_starttls_auth.py."""
    assert is_private_path(Endpoint("mx.test", address, 587, implicit_tls)) is is_private


async def test_credentials_go_inside_tls_only_after_it(good: Certificate) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS", "AUTH PLAIN")
        await peer.starttls(good.server)
        await peer.hello_again("AUTH LOGIN", "PIPELINING")
        await peer.hear("AUTH LOGIN")
        await peer.say("334 VXNlcm5hbWU6")
        await peer.hear()
        await peer.say("334 UGFzc3dvcmQ6")
        await peer.hear()
        await peer.say("235 ok")
        await peer.take()
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        how = dialogue(TlsPolicy.REQUIRED, credentials=Credentials("user", "secret"))
        session = await opened(server, how)
        assert "auth" in session.timings
        await deliver(session)


async def test_large_content_and_early_refusal_work_inside_tls(good: Certificate) -> None:
    content = (b"x" * 78 + b"\r\n") * 25_000

    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.starttls(good.server)
        await peer.hello_again("PIPELINING")
        assert len(await peer.take()) == len(content) + 3
        await peer.envelope()
        await peer.reader.read(1000)
        await peer.say("550 5.7.1 enough")
        await peer.gone()

    async with ScriptedServer(script).running() as server:
        session = await opened(server, dialogue(TlsPolicy.REQUIRED))
        message = Transaction("a@relay.test", ("b@mx.test",), content)
        assert (await session.transact(message)).final is not None
        refused = Transaction("a@relay.test", ("b@mx.test",), content * 10)
        result = await session.transact(refused)
        assert result.final is not None
        assert result.final.code == 550
        await session.close()


@pytest.mark.client_row("C42", "C43")
async def test_tls_1_1_server_is_reached_in_clear_by_opportunistic_only() -> None:
    """A server that knows only TLS 1.1: played by an alert, since OpenSSL refuses to be one."""

    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        await peer.reader.read(100)
        peer.writer.write(b"\x15\x03\x02\x00\x02\x02\x46")  # fatal alert: protocol_version
        await peer.gone()

    server = ScriptedServer(script, in_clear)
    async with server.running():
        session = await opened(server, dialogue(TlsPolicy.OPPORTUNISTIC))
        assert "version" in session.clear_because
        await deliver(session)


class _Aiosmtpd:
    """An aiosmtpd server in a thread of its own, keeping what it receives."""

    def __init__(self, context: ssl.SSLContext) -> None:
        from aiosmtpd.controller import Controller
        from aiosmtpd.smtp import AuthResult

        self.envelopes: list[object] = []
        self.lock = threading.Lock()

        def authenticate(server, session, envelope, mechanism, data):
            success = (data.login, data.password) == (b"user", b"secret")
            return AuthResult(success=success, handled=False)

        self.controller = Controller(
            self,
            hostname="127.0.0.1",
            port=0,
            tls_context=context,
            authenticator=authenticate,
            auth_require_tls=True,
            enable_SMTPUTF8=True,
        )

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        with self.lock:
            self.envelopes.append(envelope)
        return "250 2.0.0 kept"

    async def handle_RCPT(  # noqa: N802
        self,
        server,
        session,
        envelope,
        address,
        rcpt_options,
    ) -> str:
        if address.startswith("no"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"


@pytest.fixture
def aiosmtpd_server(good: Certificate) -> Iterator[_Aiosmtpd]:
    server = _Aiosmtpd(good.server)
    # Port 0 is not for Controller: take a free one.
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server.controller.port = free.getsockname()[1]
    server.controller.start()
    try:
        yield server
    finally:
        server.controller.stop()


async def test_aiosmtpd_takes_authenticated_messages_over_starttls(
    aiosmtpd_server: _Aiosmtpd, trusted: Certificate
) -> None:
    how = dialogue(TlsPolicy.VERIFIED, credentials=Credentials("user", "secret"))
    content = b"Subject: x\r\n\r\n.\r\n..\r\nlast without end"
    port = aiosmtpd_server.controller.port
    session = await open_session(Endpoint("mx.test", "127.0.0.1", port), how)
    for _ in range(3):
        message = Transaction("a@relay.test", ("b@mx.test", "no@mx.test"), content, is_8bit=True)
        result = await session.transact(message)
        assert result.final is not None
        assert [reply and reply.code for reply in result.replies] == [250, 550]
    await session.close()
    assert [envelope.content for envelope in aiosmtpd_server.envelopes] == [  # type: ignore[attr-defined]
        content + b"\r\n"
    ] * 3


async def test_aiosmtpd_refuses_a_wrong_password(
    aiosmtpd_server: _Aiosmtpd, trusted: Certificate
) -> None:
    how = dialogue(TlsPolicy.REQUIRED, credentials=Credentials("user", "wrong"))
    port = aiosmtpd_server.controller.port
    with pytest.raises(SessionFailed) as caught:
        await open_session(Endpoint("mx.test", "127.0.0.1", port), how)
    assert caught.value.phase == "auth"
    assert caught.value.reply is not None
    assert caught.value.reply.code == 535
