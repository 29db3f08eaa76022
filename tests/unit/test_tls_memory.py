"""What one connection leaves to the next: TLS sessions, and hosts whose TLS is broken."""

import os
import ssl
from pathlib import Path

import pytest
from certificates import issue
from scripted_smtp import Certificate, Peer, ScriptedServer

from relay.delivery.broken_hosts import BrokenHosts
from relay.delivery.session import Session, open_session
from relay.delivery.values import Dialogue, Endpoint, SessionFailed, Transaction
from relay.net.tls import client_context, peer_name
from relay.settings.schema import Timeouts, TlsPolicy

RUNS_ON_BOTH_LOOPS = True

TIMEOUTS = Timeouts(
    greeting=5.0, tls=5.0, command=5.0, data=5.0, data_block=5.0, data_done=5.0, quit=2.0
)


def dialogue(tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC) -> Dialogue:
    return Dialogue("relay.test", tls=tls, timeouts=TIMEOUTS)


def endpoint(server: ScriptedServer, host: str = "mx.test") -> Endpoint:
    return Endpoint(host, "127.0.0.1", server.port)


def encrypted(certificate: Certificate):
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.starttls(certificate.server)
        await peer.hello_again("PIPELINING")
        await peer.take()
        await peer.goodbye()

    return script


async def broken(peer: Peer) -> None:
    await peer.hello("STARTTLS")
    await peer.hear("STARTTLS")
    await peer.say("220 go")
    peer.writer.close()


async def in_clear(peer: Peer) -> None:
    await peer.hello("PIPELINING", "STARTTLS")
    await peer.take()
    await peer.goodbye()


async def deliver(session: Session) -> None:
    message = Transaction("a@relay.test", ("b@mx.test",), b"Subject: x\r\n\r\nhello\r\n")
    result = await session.transact(message)
    assert result.final is not None, result.dialogue
    await session.close()


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    good = Certificate(tmp_path, "mx.test", "other.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(good.file))
    return good


@pytest.mark.parametrize("policy", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.VERIFIED])
async def test_second_connection_to_a_host_resumes_the_session_of_the_first(
    certificate: Certificate, policy: TlsPolicy
) -> None:
    client_context(verified=policy is TlsPolicy.VERIFIED).forget("mx.test")
    async with ScriptedServer(encrypted(certificate)).running() as server:
        resumed = []
        for _ in range(3):
            session = await open_session(endpoint(server), dialogue(policy))
            assert session.tls["verified"] is (policy is TlsPolicy.VERIFIED)
            assert session.tls["policy"] == policy.value
            assert session.tls["peer_name"] == "mx.test"
            resumed.append(session.tls["resumed"])
            await deliver(session)
    assert resumed == [False, True, True]


async def test_session_is_resumed_neither_with_another_host_nor_under_another_policy(
    certificate: Certificate,
) -> None:
    for verified in (False, True):
        for host in ("mx.test", "other.test"):
            client_context(verified=verified).forget(host)
    async with ScriptedServer(encrypted(certificate)).running() as server:
        await deliver(await open_session(endpoint(server), dialogue()))
        other = await open_session(endpoint(server, "other.test"), dialogue())
        assert other.tls["resumed"] is False
        await deliver(other)
        verified = await open_session(endpoint(server), dialogue(TlsPolicy.VERIFIED))
        assert verified.tls["resumed"] is False
        await deliver(verified)


async def test_session_that_a_host_has_forgotten_costs_a_full_handshake_and_nothing_else(
    certificate: Certificate, tmp_path: Path
) -> None:
    client_context(verified=False).forget("mx.test")
    anew = Certificate(tmp_path, "mx.test", days=29)
    server = ScriptedServer(encrypted(certificate), encrypted(anew))
    async with server.running():
        await deliver(await open_session(endpoint(server), dialogue()))
        session = await open_session(endpoint(server), dialogue())
        assert session.tls["resumed"] is False
        await deliver(session)
    assert server.connections == 2


async def test_broken_tls_is_tried_once_and_then_remembered() -> None:
    memory = BrokenHosts(3600.0)
    server = ScriptedServer(broken, in_clear)
    async with server.running():
        for _ in range(3):
            session = await open_session(endpoint(server), dialogue(), memory)
            assert session.tls == {}
            assert "TLS handshake failed" in session.clear_because
            await deliver(session)
    assert server.connections == 4


async def test_broken_tls_is_tried_with_every_connection_where_nothing_is_to_be_remembered() -> (
    None
):
    memory = BrokenHosts(0.0)
    server = ScriptedServer(broken, in_clear, broken, in_clear)
    async with server.running():
        for _ in range(2):
            await deliver(await open_session(endpoint(server), dialogue(), memory))
    assert server.connections == 4


async def test_remembered_broken_tls_never_weakens_a_demand() -> None:
    memory = BrokenHosts(3600.0)
    server = ScriptedServer(broken, in_clear, broken)
    async with server.running():
        await deliver(await open_session(endpoint(server), dialogue(), memory))
        for policy in (TlsPolicy.REQUIRED, TlsPolicy.VERIFIED):
            with pytest.raises(SessionFailed) as caught:
                await open_session(endpoint(server), dialogue(policy), memory)
            assert caught.value.phase == "tls"
    assert server.connections == 4


async def test_host_that_takes_no_session_in_clear_either_is_not_remembered() -> None:
    async def refusing(peer: Peer) -> None:
        await peer.say("421 4.3.2 not now")

    memory = BrokenHosts(3600.0)
    server = ScriptedServer(broken, refusing)
    async with server.running():
        with pytest.raises(SessionFailed):
            await open_session(endpoint(server), dialogue(), memory)
        assert memory.why(endpoint(server)) == ""


def test_name_of_what_is_no_certificate_is_empty() -> None:
    assert peer_name(b"") == peer_name(b"\x30\x03abc") == ""


# -- a policy in testing mode ----------------------------------------------------------------


def in_testing_mode() -> Dialogue:
    return Dialogue("relay.test", timeouts=TIMEOUTS, tries_verified=True)


async def test_testing_mode_gives_a_verified_session_where_there_is_one(
    certificate: Certificate,
) -> None:
    server = ScriptedServer(encrypted(certificate))
    async with server.running():
        session = await open_session(endpoint(server), in_testing_mode())
        assert (session.tls["policy"], session.tls["verified"]) == ("opportunistic", True)
        assert session.unverified_because == ""
        await deliver(session)
    assert server.connections == 1


async def test_testing_mode_delivers_to_whom_cannot_be_verified_and_says_why(
    certificate: Certificate, tmp_path: Path
) -> None:
    async def refused(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.starttls(other.server)

    other = Certificate(tmp_path, "elsewhere.test")
    server = ScriptedServer(refused, encrypted(other))
    async with server.running():
        session = await open_session(endpoint(server), in_testing_mode())
        assert session.tls["verified"] is False
        assert "certificate not accepted" in session.unverified_because
        await deliver(session)
    assert server.connections == 2


async def test_testing_mode_delivers_in_clear_to_whom_has_no_tls_and_says_why() -> None:
    async def without(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.hear("STARTTLS")
        await peer.say("502 5.5.1 no such command")

    async def plain(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.take()
        await peer.goodbye()

    server = ScriptedServer(without, plain)
    async with server.running():
        session = await open_session(endpoint(server), in_testing_mode())
        assert session.tls == {}
        assert "502" in session.unverified_because
        await deliver(session)
    assert server.connections == 2


async def test_store_that_has_changed_is_read_again_and_what_it_vouched_for_is_not_resumed(
    certificate: Certificate, tmp_path: Path
) -> None:
    strict, kept = dialogue(TlsPolicy.VERIFIED), certificate.file.read_bytes()
    client_context(verified=True).forget("mx.test")
    async with ScriptedServer(encrypted(certificate)).running() as server:
        for _ in range(2):
            session = await open_session(endpoint(server), strict)
            await deliver(session)
        assert session.tls["resumed"] is True
        certificate.file.write_bytes(Certificate(tmp_path, "stranger.test").file.read_bytes())
        os.utime(certificate.file, ns=(1, 1))
        with pytest.raises(SessionFailed, match="certificate not accepted"):
            await open_session(endpoint(server), strict)
        certificate.file.write_bytes(kept)
        os.utime(certificate.file, ns=(2, 2))
        session = await open_session(endpoint(server), strict)
        assert session.tls["resumed"] is False
        await deliver(session)


async def test_common_name_of_a_certificate_is_no_host_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = issue("root", ca=True)
    store = tmp_path / "root.pem"
    store.write_bytes(root.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    for names, is_taken in (((), False), (("mx.test",), True)):
        context = issue("mx.test", *names, issuer=root).server(tmp_path, root)

        async def script(peer: Peer, context: ssl.SSLContext = context) -> None:
            await peer.hello("STARTTLS")
            await peer.starttls(context)
            await peer.reader.readline()

        async with ScriptedServer(script).running() as server:
            with pytest.raises(SessionFailed) as caught:
                await open_session(endpoint(server), dialogue(TlsPolicy.VERIFIED))
        assert ("certificate not accepted" in str(caught.value)) is not is_taken
