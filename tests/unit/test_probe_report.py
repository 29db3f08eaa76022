"""Probes of scripted hosts behind a scripted nameserver: what is found; nothing is ever sent."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted_dns import ScriptedDns, serving
from scripted_smtp import Certificate, Peer, Script, ScriptedServer

from relay.cli.probe import exit_code_of, lines_of
from relay.delivery.directory import load_directory
from relay.delivery.probe import probe
from relay.delivery.probe_report import ProbeReport
from relay.delivery.visits import Enquiry
from relay.model.address import parse_address
from relay.net.certificate import read_certificate
from relay.net.resolver import Resolver
from relay.settings.schema import Delivery, Dns, Mode, Route, Settings, Sink, TlsPolicy

PATIENT = Dns(timeout=10.0, lifetime=20.0)
ANN = Enquiry(parse_address("ann@shop.test"), parse_address("me@relay.test"))


@pytest.fixture
async def zone() -> AsyncIterator[ScriptedDns]:
    async with serving() as server:
        server.add("shop.test", "MX", "10 mx1.shop.test.", "20 mx2.shop.test.")
        server.add("mx1.shop.test", "A", "127.0.0.1")
        server.add("mx2.shop.test", "A", "127.0.0.2")
        yield server


async def probed(
    zone: ScriptedDns, *scripts: Script, enquiry: Enquiry | None = None, **more: Any
) -> ProbeReport:
    """The report on shop.test, whose first host does what the scripts say; the second is dead."""
    async with ScriptedServer(*scripts).running() as server:
        settings = Settings(
            dns=PATIENT,
            sink=Sink(dns=zone.nameserver, smtp=f"127.0.0.1:{server.port}"),
            **{"delivery": Delivery(mode=Mode.SINK, hostname="relay.test"), **more},
        )
        resolver = Resolver.from_settings(settings)
        try:
            return await probe("shop.test", load_directory(settings, resolver), enquiry)
        finally:
            await resolver.aclose()


def shown(report: ProbeReport) -> dict[str, Any]:
    """As the command line gets it."""
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(report))
    return decoded


async def test_probe_tells_of_each_host_and_says_nothing_but_ehlo_and_quit(
    zone: ScriptedDns,
) -> None:
    heard: list[bytes] = []

    async def polite(peer: Peer) -> None:
        await peer.hello("PIPELINING", "SIZE 1000")
        await peer.goodbye()
        heard.extend(peer.heard)

    report = await probed(zone, polite)
    assert report.takes_mail and report.problem is None and not report.implicit_mx
    assert [(mx.preference, mx.host, mx.addresses) for mx in report.mx] == [
        (10, "mx1.shop.test", ("127.0.0.1",)),
        (20, "mx2.shop.test", ("127.0.0.2",)),
    ]
    first, second = report.hosts
    assert (first.ready, first.greeting, first.name) == (True, "220 mx.test ESMTP", "mx.test")
    assert first.extensions == ("PIPELINING", "SIZE 1000")
    assert first.tls is None and set(first.timings) == {"connect", "greeting", "hello"}
    assert (second.ready, second.phase, second.verdict and second.verdict.reason) == (
        False,
        "connect",
        "connect_failed",
    )
    assert heard == [b"EHLO relay.test\r\n", b"QUIT\r\n"]
    assert report.route is not None and report.route.limits.max_connections > 0
    assert exit_code_of(shown(report)) == 0


@pytest.mark.parametrize(
    ("reply", "accepted", "reason", "code"),
    [
        ("250 2.1.5 ok", True, "accepted", 0),
        ("550 5.1.1 nobody", False, "no_such_mailbox", 67),
        ("451 4.7.1 greylisted, try again in 300 seconds", False, "greylisted", 75),
    ],
)
async def test_recipient_is_asked_for_without_data(
    zone: ScriptedDns, reply: str, accepted: bool, reason: str, code: int
) -> None:
    heard: list[bytes] = []

    async def asked(peer: Peer) -> None:
        await peer.hello("PIPELINING")
        await peer.hear("MAIL FROM:<me@relay.test>")
        await peer.hear("RCPT TO:<ann@shop.test>")
        await peer.say("250 2.1.0 ok", reply)
        await peer.goodbye()
        heard.extend(peer.heard)

    report = await probed(zone, asked, enquiry=ANN)
    found = report.recipient
    assert found is not None and (found.accepted, found.verdict.reason) == (accepted, reason)
    assert found.verdict.reply is not None and found.verdict.reply["code"] == int(reply[:3])
    assert found.host == "mx1.shop.test" and f"< {reply}" in found.dialogue
    assert [line.split()[0] for line in heard] == [b"EHLO", b"MAIL", b"RCPT", b"QUIT"]
    assert exit_code_of(shown(report)) == code


async def test_refused_sender_is_what_the_recipient_meets(zone: ScriptedDns) -> None:
    async def refusing(peer: Peer) -> None:
        await peer.hello()
        await peer.hear("MAIL")
        await peer.say("550 5.7.1 you are listed at bl.example")
        await peer.goodbye()

    report = await probed(zone, refusing, enquiry=ANN)
    assert report.recipient is not None and not report.recipient.accepted
    assert report.recipient.verdict.scope != "recipient"


async def test_certificate_is_read_and_told_why_it_is_not_verified(
    zone: ScriptedDns, tmp_path: Path
) -> None:
    certificate = Certificate(tmp_path, "mx1.shop.test", "mail.shop.test", days=-1)

    async def encrypted(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.starttls(certificate.server)
        await peer.hello_again()
        await peer.goodbye()

    report = await probed(zone, encrypted)
    tls = report.hosts[0].tls
    assert tls is not None and tls.version == "TLSv1.3" and tls.policy == "opportunistic"
    found = tls.certificate
    assert found is not None and found.names == ("mx1.shop.test", "mail.shop.test")
    assert not found.verified and found.problem.startswith("certificate not accepted: ")
    told = "\n".join(lines_of(shown(report), datetime(2100, 1, 1, tzinfo=UTC)))
    assert f"expired on {found.not_after:%Y-%m-%d}, not verified: certificate not" in told
    assert read_certificate(b"no certificate") is None


async def test_broken_tls_and_refusing_greeting_are_told(zone: ScriptedDns) -> None:
    async def broken(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        await peer.reader.read(1)
        await peer.say("no TLS at all")
        await peer.gone()

    async def clear(peer: Peer) -> None:
        await peer.hello()
        await peer.goodbye()

    report = await probed(zone, broken, clear)
    assert report.hosts[0].ready and report.hosts[0].clear_because

    async def busy(peer: Peer) -> None:
        await peer.say("421 4.3.2 too busy")

    report = await probed(zone, busy)
    assert not report.takes_mail
    said = report.hosts[0]
    assert (said.phase, said.greeting) == ("greeting", "421 4.3.2 too busy")
    assert said.verdict is not None and said.verdict.severity == "transient"
    assert exit_code_of(shown(report)) == 75

    async def closed(peer: Peer) -> None:
        await peer.say("554 5.3.2 no mail here")
        await peer.goodbye()

    assert not (await probed(zone, closed, enquiry=ANN)).takes_mail


async def test_host_that_is_ourselves_is_not_ready(zone: ScriptedDns) -> None:
    async def mirror(peer: Peer) -> None:
        await peer.hello()
        await peer.goodbye()

    report = await probed(
        zone, mirror, delivery=Delivery(mode=Mode.SINK, hostname="mx.test"), enquiry=ANN
    )
    host = report.hosts[0]
    assert not host.ready and host.verdict is not None and host.verdict.reason == "routing_loop"
    assert report.recipient is None


async def test_password_of_a_smarthost_is_nowhere_in_the_report(
    zone: ScriptedDns, tmp_path: Path
) -> None:
    secret = "tops3cret"

    async def smarthost(peer: Peer) -> None:
        await peer.hello("AUTH PLAIN")
        await peer.hear("AUTH PLAIN")
        await peer.say("235 2.7.0 ok")
        await peer.goodbye()

    async with ScriptedServer(smarthost).running() as server:
        url = f"smtp://user:{secret}@127.0.0.1:{server.port}"
        route = Route(domain="*", smarthost=url, tls=TlsPolicy.OFF)
        settings = Settings(
            dns=PATIENT,
            sink=Sink(dns=zone.nameserver),
            delivery=Delivery(mode=Mode.SINK, hostname="relay.test"),
            routes=(route,),
        )
        resolver = Resolver.from_settings(settings)
        report = await probe("shop.test", load_directory(settings, resolver))
        await resolver.aclose()
    assert report.route is not None and report.route.by_smarthost and report.mx == ()
    assert report.hosts[0].dialogue
    assert secret not in str(shown(report))


async def test_lmtp_host_behind_a_socket_is_probed(zone: ScriptedDns, tmp_path: Path) -> None:
    async def lmtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        await peer.say("220 store.test LMTP")
        await peer.hear("LHLO")
        await peer.say("250-store.test", "250-PIPELINING", "250 SIZE 1000")
        await peer.hear("MAIL")
        await peer.hear("RCPT")
        await peer.say("250 ok", "550 5.1.1 nobody")
        await peer.goodbye()
        writer.close()

    path = tmp_path / "lmtp"
    server = await asyncio.start_unix_server(lmtp, path)
    settings = Settings(
        dns=PATIENT,
        sink=Sink(dns=zone.nameserver),
        delivery=Delivery(mode=Mode.SINK, hostname="relay.test"),
        routes=(Route(domain="*", smarthost=f"lmtp://{path}"),),
    )
    resolver = Resolver.from_settings(settings)
    report = await probe("shop.test", load_directory(settings, resolver), ANN)
    await resolver.aclose()
    server.close()
    (host,) = report.hosts
    assert host.ready and host.extensions == ("PIPELINING", "SIZE 1000")
    assert report.recipient is not None and not report.recipient.accepted
    assert any("store.test LMTP" in line for line in lines_of(shown(report)))


async def test_domain_without_a_road_is_told_and_no_host_is_asked(zone: ScriptedDns) -> None:
    async def nobody(peer: Peer) -> None:
        raise AssertionError("a host was asked")

    zone.script("shop.test", "MX", lambda query, _: [_null_mx(query)])
    report = await probed(zone, nobody, enquiry=ANN)
    assert report.hosts == () and report.problem is not None
    assert report.problem.reason == "null_mx" and exit_code_of(shown(report)) == 68
    zone.fail("shop.test", "MX")
    report = await probed(zone, nobody)
    assert report.problem is not None and report.problem.reason == "dns_unavailable"
    assert exit_code_of(shown(report)) == 75
    assert list(lines_of(shown(report)))[-1] == "Mail has nowhere to go."


def _null_mx(query: Any) -> bytes:
    from scripted_dns import reply_with

    return reply_with(query, ("shop.test.", "MX", "0 .")).to_wire()


async def test_what_a_host_writes_cannot_act_on_a_terminal(zone: ScriptedDns) -> None:
    async def evil(peer: Peer) -> None:
        await peer.say("220 \x1b[2Jmx\x07 ESMTP")
        await peer.hello_again("X\x1b]0;evil\x07")
        await peer.goodbye()

    report = shown(await probed(zone, evil))
    assert all(line.isprintable() for line in lines_of(report))
