"""DANE from the DNS packet to the handshake: who is believed, what is demanded, what is refused."""

import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from certificates import issue
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from scripted_dns import ScriptedDns, serving
from scripted_smtp import Peer, ScriptedServer

from relay.delivery.plan import Plan, plan_for
from relay.delivery.routing import Routed, Unroutable, resolve_destination
from relay.delivery.session import open_session
from relay.delivery.values import Dialogue, Endpoint, SessionFailed, Transaction
from relay.model.errors import ResolverUnavailable, TlsFailed
from relay.model.verdict import Severity
from relay.net.resolver import Resolver
from relay.policy.dane import Tlsa
from relay.policy.route import RouteTable
from relay.policy.shape import Shaping
from relay.policy.tls import Security
from relay.settings.schema import Delivery, Dns, Mode, Route, Settings, Timeouts, Tls, TlsPolicy

RUNS_ON_BOTH_LOOPS = True

QUICK = Dns(timeout=0.5, lifetime=1.0)
LIVE = Settings(
    dns=QUICK, delivery=Delivery(mode=Mode.LIVE, hostname="relay.test"), tls=Tls(dane=True)
)
TIMEOUTS = Timeouts(
    greeting=5.0, tls=5.0, command=5.0, data=5.0, data_block=5.0, data_done=5.0, quit=2.0
)
DIGEST = "ab" * 32


class Shared(dict[str, bytes]):
    """A cache that processes share."""

    async def get(self, key: str) -> bytes | None:  # type: ignore[override]
        return dict.get(self, key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self[key] = value


@pytest.fixture
async def dns_server() -> AsyncIterator[ScriptedDns]:
    async with serving() as server:
        server.is_signed = True
        server.add("a.test", "MX", "10 mx1.a.test.", "20 mx2.a.test.")
        for number in (1, 2):
            server.add(f"mx{number}.a.test", "A", f"8.8.8.{number}")
        yield server


@pytest.fixture
async def resolver(dns_server: ScriptedDns) -> AsyncIterator[Resolver]:
    resolver = Resolver(QUICK, nameservers=(dns_server.nameserver,))
    yield resolver
    await resolver.aclose()


async def routed(resolver: Resolver, settings: Settings = LIVE) -> Routed:
    found = await resolve_destination(
        "a.test",
        resolver=resolver,
        routes=RouteTable.from_settings(settings),
        shaping=Shaping(),
        settings=settings,
        random=Random(1),
    )
    assert isinstance(found, Routed), found
    return found


async def plan(resolver: Resolver, settings: Settings = LIVE) -> Plan | Unroutable:
    record = await routed(resolver, settings)
    return await plan_for(
        record.lane,
        record,
        resolver=resolver,
        settings=settings,
        routes=RouteTable.from_settings(settings),
        shaping=Shaping(),
        random=Random(1),
    )


async def demands(resolver: Resolver) -> dict[str, tuple[TlsPolicy | None, int, str]]:
    found = await plan(resolver)
    assert isinstance(found, Plan), found
    return {one.host: (one.tls, len(one.tlsa), one.demanded_by) for one in found.endpoints}


# -- DNS -------------------------------------------------------------------------------------


async def test_answer_is_authentic_where_a_resolver_that_we_trust_says_so(
    dns_server: ScriptedDns,
) -> None:
    dns_server.add("_25._tcp.mx1.a.test", "TLSA", f"3 1 1 {DIGEST}")
    for trusts, signed in ((True, True), (True, False), (False, True)):
        dns_server.is_signed = signed
        resolver = Resolver(QUICK, nameservers=(dns_server.nameserver,))
        resolver._is_trusted = lambda _nameserver, word=trusts: word  # type: ignore[method-assign]
        believed = trusts and signed
        assert (await resolver.mx("a.test")).authentic is believed
        assert await resolver.is_authentic("mx1.a.test") is believed
        tlsa = await resolver.tlsa("mx1.a.test", 25)
        assert tlsa == ((f"3 1 1 {DIGEST}",) if believed else ())
        await resolver.aclose()


@pytest.mark.parametrize(
    ("nameserver", "trust_ad", "trusted"),
    [
        ("127.0.0.53:53", False, True),
        ("[::1]:53", False, True),
        ("192.0.2.53", False, False),
        ("192.0.2.53", True, True),
    ],
)
async def test_resolver_elsewhere_is_believed_only_if_the_operator_says_so(
    nameserver: str, trust_ad: bool, trusted: bool
) -> None:
    resolver = Resolver(Dns(trust_ad=trust_ad), nameservers=(nameserver,))
    assert resolver.is_trusted is trusted
    await resolver.aclose()


async def test_what_is_authentic_stays_so_in_a_shared_cache(dns_server: ScriptedDns) -> None:
    cache = Shared()
    for _ in range(2):
        resolver = Resolver(QUICK, cache, nameservers=(dns_server.nameserver,))
        assert (await resolver.mx("a.test")).authentic
        await resolver.aclose()
    assert dns_server.count("a.test", "MX") == 1


# -- the plan --------------------------------------------------------------------------------


async def test_hosts_with_tlsa_records_demand_tls_and_others_do_not(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("_25._tcp.mx1.a.test", "TLSA", f"3 1 1 {DIGEST}", f"0 1 1 {DIGEST}")
    assert (await routed(resolver)).lane.security == "opportunistic+dane"
    assert await demands(resolver) == {
        "mx1.a.test": (TlsPolicy.REQUIRED, 1, "dane"),
        "mx2.a.test": (None, 0, ""),
    }


async def test_records_of_which_none_is_usable_demand_tls_of_any_certificate(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("_25._tcp.mx1.a.test", "TLSA", f"1 1 1 {DIGEST}")
    assert (await demands(resolver))["mx1.a.test"] == (TlsPolicy.REQUIRED, 0, "dane")


async def test_host_whose_records_cannot_be_had_is_not_used(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.fail("_25._tcp.mx1.a.test", "TLSA")
    assert list(await demands(resolver)) == ["mx2.a.test"]


async def test_mail_waits_where_no_host_has_records_that_can_be_had(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    for host in ("mx1", "mx2"):
        dns_server.fail(f"_25._tcp.{host}.a.test", "TLSA")
    refused = await plan(resolver)
    assert isinstance(refused, Unroutable)
    assert refused.verdict.severity is Severity.TRANSIENT
    assert refused.verdict.reason == "dns_unavailable"
    assert refused.by_demand
    assert "TLSA of _25._tcp.mx" in refused.verdict.text
    with pytest.raises(ResolverUnavailable):
        await resolver.tlsa("mx1.a.test", 25)


async def test_unsigned_domain_or_host_costs_no_question_about_tlsa(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("_25._tcp.mx1.a.test", "TLSA", f"3 1 1 {DIGEST}")
    dns_server.unsigned.add("mx1.a.test")
    assert (await demands(resolver))["mx1.a.test"] == (None, 0, "")
    assert dns_server.count("_25._tcp.mx1.a.test", "TLSA") == 0
    dns_server.unsigned.add("a.test")
    resolver._memory.clear()
    assert (await routed(resolver)).lane.security == "opportunistic"


@pytest.mark.parametrize(
    "settings",
    [
        Settings(dns=QUICK, delivery=LIVE.delivery),
        Settings(
            dns=QUICK,
            delivery=LIVE.delivery,
            tls=LIVE.tls,
            routes=(Route(domain="a.test", tls=TlsPolicy.OPPORTUNISTIC),),
        ),
    ],
    ids=["switched off", "a route has its word"],
)
async def test_dane_is_not_used_where_it_is_not_asked_for(
    resolver: Resolver, dns_server: ScriptedDns, settings: Settings
) -> None:
    dns_server.add("_25._tcp.mx1.a.test", "TLSA", f"3 1 1 {DIGEST}")
    assert (await routed(resolver, settings)).lane.security == "opportunistic"


# -- aliases and names -----------------------------------------------------------------------


def alias(dns_server: ScriptedDns) -> None:
    """mx1.a.test becomes an alias of host.b.test."""
    del dns_server._records["mx1.a.test", "A"]
    dns_server.add("mx1.a.test", "CNAME", "host.b.test.")
    dns_server.add("host.b.test", "A", "8.8.8.8")


async def names(resolver: Resolver) -> dict[str, tuple[int, tuple[str, ...]]]:
    found = await plan(resolver)
    assert isinstance(found, Plan), found
    return {one.host: (len(one.tlsa), one.tls_names) for one in found.endpoints}


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (["host.b.test"], (1, ("host.b.test",))),
        (["mx1.a.test"], (1, ("mx1.a.test",))),
        (["host.b.test", "mx1.a.test"], (1, ("host.b.test",))),
        ([], (0, ())),
    ],
)
async def test_records_of_an_alias_are_those_of_its_target_and_else_its_own(
    resolver: Resolver,
    dns_server: ScriptedDns,
    published: list[str],
    expected: tuple[int, tuple[str, ...]],
) -> None:
    alias(dns_server)
    for name in published:
        dns_server.add(f"_25._tcp.{name}", "TLSA", f"3 1 1 {DIGEST}")
    assert (await names(resolver))["mx1.a.test"] == expected


async def test_alias_out_of_dnssec_has_its_own_records_where_dnssec_vouches_for_the_alias(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    alias(dns_server)
    for name in ("host.b.test", "mx1.a.test"):
        dns_server.add(f"_25._tcp.{name}", "TLSA", f"3 1 1 {DIGEST}")
    dns_server.unsigned |= {("mx1.a.test", "A"), ("mx1.a.test", "AAAA")}
    assert (await names(resolver))["mx1.a.test"] == (1, ("mx1.a.test",))
    assert dns_server.count("_25._tcp.host.b.test", "TLSA") == 0


async def test_alias_for_which_dnssec_does_not_vouch_has_none(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    alias(dns_server)
    dns_server.add("_25._tcp.mx1.a.test", "TLSA", f"3 1 1 {DIGEST}")
    dns_server.unsigned.add("mx1.a.test")
    assert (await names(resolver))["mx1.a.test"] == (0, ())
    assert dns_server.count("_25._tcp.mx1.a.test", "TLSA") == 0


@pytest.mark.parametrize("question", [("_25._tcp.host.b.test", "TLSA"), ("mx1.a.test", "CNAME")])
async def test_alias_of_which_something_cannot_be_had_is_not_used(
    resolver: Resolver, dns_server: ScriptedDns, question: tuple[str, str]
) -> None:
    alias(dns_server)
    dns_server.add("_25._tcp.mx1.a.test", "TLSA", f"3 1 1 {DIGEST}")
    dns_server.fail(*question)
    if question[1] == "CNAME":
        dns_server.unsigned |= {("mx1.a.test", "A"), ("mx1.a.test", "AAAA")}
    assert list(await names(resolver)) == ["mx2.a.test"]


async def test_records_of_issuers_let_a_certificate_have_the_domains_name_on_a_lane_of_its_own(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("_25._tcp.mx1.a.test", "TLSA", f"2 1 1 {DIGEST}")
    dns_server.add("_25._tcp.mx2.a.test", "TLSA", f"3 1 1 {DIGEST}")
    lane = (await routed(resolver)).lane
    assert lane.security == "opportunistic+dane.a.test"
    assert Security.parse(lane.security).next_hop == "a.test"
    assert await names(resolver) == {
        "mx1.a.test": (1, ("mx1.a.test", "a.test")),
        "mx2.a.test": (1, ("mx2.a.test", "a.test")),
    }


async def test_domain_with_very_many_hosts_costs_few_questions_about_tlsa(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    for number in range(3, 60):
        dns_server.add("a.test", "MX", f"{number}0 mx{number}.a.test.")
        dns_server.add(f"mx{number}.a.test", "A", f"8.8.9.{number}")
    del dns_server._records["a.test", "MX"][0]
    assert (await routed(resolver)).lane.security == "opportunistic+dane"
    assert sum(kind == "TLSA" for _, kind, _ in dns_server.asked) == 10


async def test_alias_of_a_domain_lends_both_its_names_to_certificates(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    del dns_server._records["a.test", "MX"]
    dns_server.add("a.test", "CNAME", "c.test.")
    dns_server.add("c.test", "MX", "10 mx1.a.test.")
    dns_server.add("_25._tcp.mx1.a.test", "TLSA", f"2 1 1 {DIGEST}")
    assert await names(resolver) == {"mx1.a.test": (1, ("mx1.a.test", "a.test", "c.test"))}


# -- the session -----------------------------------------------------------------------------


async def open_with(
    server: ScriptedServer, *records: Tlsa, tls: TlsPolicy = TlsPolicy.REQUIRED
) -> dict[str, object]:
    endpoint = Endpoint(
        "mx.test", "127.0.0.1", server.port, tls=tls, tlsa=records, demanded_by="dane"
    )
    session = await open_session(endpoint, Dialogue("relay.test", timeouts=TIMEOUTS))
    message = Transaction("a@relay.test", ("b@mx.test",), b"Subject: x\r\n\r\nhello\r\n")
    assert (await session.transact(message)).final is not None
    await session.close()
    return dict(session.tls)


async def test_certificate_that_a_record_vouches_for_is_taken_again_and_again(
    tmp_path: Path,
) -> None:
    root = issue("root", ca=True)
    leaf = issue("leaf", "mx.test", issuer=root)
    context = leaf.server(tmp_path, root)
    key = leaf.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    own = Tlsa(3, 1, 1, hashlib.sha256(key).digest())
    issuer = Tlsa(2, 0, 1, hashlib.sha256(root.der).digest())

    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.starttls(context)
        await peer.hello_again("PIPELINING")
        await peer.take()
        await peer.goodbye()

    async with ScriptedServer(script).running() as server:
        for records in ((own,), (issuer,), (own,), (Tlsa(3, 1, 1, bytes(32)), issuer)):
            tls = await open_with(server, *records)
            assert (tls["policy"], tls["verified"], tls["resumed"]) == ("dane", True, False)
            assert tls["peer_name"] == "mx.test"


async def test_host_is_asked_for_by_the_name_of_its_records_and_may_show_the_domains(
    tmp_path: Path,
) -> None:
    root = issue("root", ca=True)
    issuer = Tlsa(2, 0, 1, hashlib.sha256(root.der).digest())
    asked: list[str | None] = []
    for name, names, is_taken in (
        ("host.b.test", ("host.b.test", "a.test"), True),
        ("a.test", ("host.b.test", "a.test"), True),
        ("mx.test", ("host.b.test", "a.test"), False),
    ):
        context = issue("leaf", name, issuer=root).server(tmp_path, root)
        context.sni_callback = lambda _tls, name, _context: asked.append(name)  # type: ignore

        async def script(peer: Peer, context: ssl.SSLContext = context) -> None:
            await peer.hello("STARTTLS")
            await peer.starttls(context)
            await peer.reader.readline()

        async with ScriptedServer(script).running() as server:
            endpoint = Endpoint(
                "mx.test",
                "127.0.0.1",
                server.port,
                tls=TlsPolicy.REQUIRED,
                tlsa=(issuer,),
                tls_names=names,
                demanded_by="dane",
            )
            with pytest.raises(SessionFailed) as caught:
                await open_session(endpoint, Dialogue("relay.test", timeouts=TIMEOUTS))
        assert ("is not for host.b.test" in str(caught.value)) is not is_taken, name
    assert asked == ["host.b.test"] * 3


async def test_certificate_that_no_record_vouches_for_ends_the_session_before_a_word(
    tmp_path: Path,
) -> None:
    context = issue("leaf", "mx.test").server(tmp_path)

    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.starttls(context)
        assert await peer.gone() == b""

    server = ScriptedServer(script)
    async with server.running():
        with pytest.raises(SessionFailed) as caught:
            await open_with(server, Tlsa(3, 1, 1, bytes(32)))
    assert caught.value.phase == "tls"
    assert isinstance(caught.value.cause, TlsFailed)
    assert "no TLSA record stands for the server's certificate" in str(caught.value.cause)
    assert server.connections == 1


async def test_host_that_demands_tls_is_never_spoken_to_in_clear() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello("STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        peer.reset()

    server = ScriptedServer(script)
    async with server.running():
        with pytest.raises(SessionFailed):
            await open_with(server)
    assert server.connections == 1


# -- whom to believe -------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", ["SERVFAIL", "silence"])
@pytest.mark.parametrize("heeds_dnssec", [True, False])
async def test_what_the_believed_nameserver_refuses_is_not_asked_of_another(
    dns_server: ScriptedDns, refusal: str, heeds_dnssec: bool
) -> None:
    if refusal == "silence":
        dns_server.silence("a.test", "MX")
    else:
        dns_server.fail("a.test", "MX", refusal)
    async with serving() as forger:
        forger.add("a.test", "MX", "10 mx.forged.test.")
        nameservers = (dns_server.nameserver, forger.nameserver)
        resolver = Resolver(QUICK, nameservers=nameservers, heeds_dnssec=heeds_dnssec)
        resolver._is_trusted = lambda one: str(one) == nameservers[0]  # type: ignore[method-assign]
        if heeds_dnssec:
            with pytest.raises(ResolverUnavailable):
                await resolver.mx("a.test")
            assert forger.asked == []
        else:
            assert (await resolver.mx("a.test")).records == ((10, "mx.forged.test"),)
        await resolver.aclose()


async def test_answer_of_a_process_that_heeds_no_dnssec_is_none_to_one_that_does(
    dns_server: ScriptedDns,
) -> None:
    cache = Shared()
    for heeds_dnssec in (False, True):
        resolver = Resolver(
            QUICK, cache, nameservers=(dns_server.nameserver,), heeds_dnssec=heeds_dnssec
        )
        resolver._is_trusted = lambda _one, word=heeds_dnssec: word  # type: ignore[method-assign]
        assert (await resolver.mx("a.test")).authentic is heeds_dnssec
        await resolver.aclose()
    assert sorted(cache) == ["AD:MX:a.test", "MX:a.test"]


@pytest.mark.parametrize(
    ("settings", "lacks"),
    [
        (Settings(dns=Dns(nameservers=("192.0.2.53",)), tls=Tls(dane=True)), True),
        (Settings(dns=Dns(nameservers=("127.0.0.1",)), tls=Tls(dane=True)), False),
        (Settings(dns=Dns(nameservers=("192.0.2.53",), trust_ad=True), tls=Tls(dane=True)), False),
        (
            Settings(
                dns=Dns(nameservers=("192.0.2.53",)),
                routes=(Route(domain="a.test", tls=TlsPolicy.DANE),),
            ),
            True,
        ),
        (Settings(dns=Dns(nameservers=("192.0.2.53",))), False),
    ],
)
async def test_lack_of_a_nameserver_to_believe_is_known_where_dane_is_asked_for(
    settings: Settings, lacks: bool
) -> None:
    live = msgspec.structs.replace(settings, delivery=LIVE.delivery)
    resolver = Resolver.from_settings(live)
    assert resolver.lacks_dnssec is lacks
    await resolver.aclose()
