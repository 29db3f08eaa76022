"""Policies of recipient domains: found in real DNS packets, fetched from real HTTPS servers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import pytest
from scripted_dns import ScriptedDns, serving
from scripted_smtp import Certificate

from relay.delivery.addresses import AddressRules
from relay.delivery.routing import Routed, Unroutable, resolve_destination
from relay.delivery.sts_policies import Kept, StsPolicies
from relay.model.verdict import Severity
from relay.net.resolver import Resolver
from relay.policy.mta_sts import StsMode, StsPolicy
from relay.policy.route import RouteTable
from relay.policy.shape import load_shaping
from relay.policy.tls_report import STS_INVALID, STS_UNFETCHED, STS_UNTRUSTED
from relay.settings.schema import Delivery, Dns, Mode, Route, Settings, Sink, Tls, TlsPolicy
from tests.support.https_server import HttpsServer
from tests.support.https_server import answer as https_answer

RUNS_ON_BOTH_LOOPS = True

QUICK = Dns(timeout=0.5, lifetime=1.0)
PRIVATE = Settings(
    dns=QUICK,
    delivery=Delivery(mode=Mode.LIVE, hostname="relay.test", allow_private=True),
)
PUBLIC = Settings(dns=QUICK, delivery=Delivery(mode=Mode.LIVE, hostname="relay.test"))
POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mx1.a.test\r\nmax_age: 604800\r\n"


def answer(
    body: str = POLICY, *, status: str = "200 OK", media: str = "text/plain", more: str = ""
) -> bytes:
    return https_answer(body, status=status, media=media, more=more)


class SharedCache:
    """A cache that two processes share."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.life_s = 0.0

    async def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self.kept[key], self.life_s = value, ttl_s


@pytest.fixture
async def dns_server() -> AsyncIterator[ScriptedDns]:
    async with serving() as server:
        server.add("a.test", "MX", "10 mx1.a.test.", "20 mx2.a.test.")
        server.add("mx1.a.test", "A", "127.0.0.1")
        server.add("mx2.a.test", "A", "127.0.0.2")
        server.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=one"')
        server.add("mta-sts.a.test", "A", "127.0.0.1")
        yield server


@pytest.fixture
async def resolver(dns_server: ScriptedDns) -> AsyncIterator[Resolver]:
    resolver = Resolver(QUICK, nameservers=(dns_server.nameserver,))
    yield resolver
    await resolver.aclose()


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    certificate = Certificate(tmp_path, "mta-sts.a.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    return certificate


Policies = Callable[..., StsPolicies]


@pytest.fixture
async def made(resolver: Resolver) -> AsyncIterator[Policies]:
    all_made: list[StsPolicies] = []

    def make(server: HttpsServer, cache: SharedCache | None = None, settings=PRIVATE):
        rules = AddressRules.for_mx(settings, server.port)
        all_made.append(StsPolicies(resolver, rules, cache, server.port))
        return all_made[-1]

    yield make
    for policies in all_made:
        await policies.aclose()


# -- the fetch -------------------------------------------------------------------------------


async def test_policy_is_fetched_once_from_the_host_that_its_certificate_names(
    trusted: Certificate, made: Policies
) -> None:
    async with HttpsServer(answer()).running(trusted.server) as server:
        policies = made(server)
        for _ in range(3):
            policy = await policies.of("a.test")
            assert policy == StsPolicy(StsMode.ENFORCE, ("mx1.a.test",), 604800)
    (request,) = server.requests
    assert request.startswith("GET /.well-known/mta-sts.txt HTTP/1.1\r\n")
    assert f"\r\nhost: mta-sts.a.test:{server.port}\r\n" in request.lower()


async def test_many_who_ask_at_once_cost_one_fetch(trusted: Certificate, made: Policies) -> None:
    server = HttpsServer(answer())
    server.gate = asyncio.Event()
    async with server.running(trusted.server):
        policies = made(server)
        asking = [asyncio.create_task(policies.of("a.test")) for _ in range(20)]
        while not server.requests:
            await asyncio.sleep(0.01)
        server.gate.set()
        found = await asyncio.gather(*asking)
    assert len(server.requests) == 1
    assert {policy.mode for policy in found if policy} == {StsMode.ENFORCE}
    assert all(found)


@pytest.mark.parametrize(
    ("reply", "problem", "result"),
    [
        (answer(status="404 Not Found"), "answered 404", STS_UNFETCHED),
        (
            answer(status="301 Moved", more="Location: https://127.0.0.1/\r\n"),
            "answered 301",
            STS_UNFETCHED,
        ),
        (answer(status="203 Transformed"), "answered 203", STS_UNFETCHED),
        (answer(media="text/html"), "text/html", STS_UNFETCHED),
        (answer(more="Content-Encoding: gzip\r\n"), "compressed", STS_UNFETCHED),
        (answer(POLICY + "x: " + "y" * 70_000), "larger than 65536", STS_INVALID),
        (answer("<html>hello</html>"), "no colon", STS_INVALID),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 999\r\n\r\nver",
            "",
            STS_UNFETCHED,
        ),
        (b"220 smtp.test ESMTP\r\n", "", STS_UNFETCHED),
        (b"", "", STS_UNFETCHED),
    ],
    ids=["404", "redirect", "203", "html", "gzip", "huge", "text", "cut", "smtp", "nothing"],
)
async def test_what_is_no_policy_leaves_the_domain_without_one_and_is_not_asked_for_again_soon(
    trusted: Certificate, made: Policies, reply: bytes, problem: str, result: str
) -> None:
    cache = SharedCache()
    async with HttpsServer(reply).running(trusted.server) as server:
        for policies in (made(server, cache), made(server, cache)):
            assert await policies.of("a.test") is None
            assert await policies.of("a.test") is None
            _, told, words = await policies.known("a.test")
            assert (told, problem in words) == (result, True), words
    assert len(server.requests) == 1


async def test_certificate_of_another_name_or_of_nobody_known_is_no_policy(
    trusted: Certificate, made: Policies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Certificate(tmp_path, "other.test")
    expired = Certificate(tmp_path, "mta-sts.a.test", days=-1)
    for certificate, known, problem in (
        (other, other, "mta-sts.a.test"),
        (other, trusted, "certificate not accepted"),
        (expired, expired, "expired"),
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(known.file))
        async with HttpsServer(answer()).running(certificate.server) as server:
            policies = made(server)
            assert await policies.of("a.test") is None
            _, told, words = await policies.known("a.test")
            assert (told, problem in words) == (STS_UNTRUSTED, True), words
        assert server.requests == []


async def test_private_address_is_never_asked_in_live_mode(
    trusted: Certificate, made: Policies
) -> None:
    async with HttpsServer(answer()).running(trusted.server) as server:
        policies = made(server, settings=PUBLIC)
        assert await policies.of("a.test") is None
    assert server.requests == []
    assert "127.0.0.1, which is loopback" in policies._kept["a.test"].problem


# -- what is kept ----------------------------------------------------------------------------


async def test_domain_without_a_record_costs_one_look_up_and_no_fetch(
    trusted: Certificate, made: Policies, dns_server: ScriptedDns
) -> None:
    async with HttpsServer(answer()).running(trusted.server) as server:
        policies = made(server, SharedCache())
        for _ in range(5):
            assert await policies.of("b.test") is None
        assert server.requests == []
    assert dns_server.count("_mta-sts.b.test", "TXT") == 1
    assert dns_server.count("mta-sts.b.test", "A") == 0


async def test_policy_outlives_its_record_its_host_and_the_process(
    trusted: Certificate, made: Policies, dns_server: ScriptedDns, resolver: Resolver
) -> None:
    cache = SharedCache()
    async with HttpsServer(answer(), answer(status="500 Oops")).running(trusted.server) as server:
        assert await made(server, cache).of("a.test") is not None
        assert 604_000 < cache.life_s <= 604_800
        resolver._memory.clear()
        dns_server.fail("_mta-sts.a.test", "TXT", "NXDOMAIN")
        assert await made(server, cache).of("a.test") is not None
        resolver._memory.clear()
        dns_server.fail("_mta-sts.a.test", "TXT", "SERVFAIL")
        assert await made(server, cache).of("a.test") is not None
    assert len(server.requests) == 1


async def test_new_id_brings_the_new_policy_or_keeps_the_old_where_it_cannot_be_had(
    trusted: Certificate, made: Policies, dns_server: ScriptedDns, resolver: Resolver
) -> None:
    testing = answer(POLICY.replace("enforce", "testing"))
    server = HttpsServer(answer(), answer(status="500 Oops"), testing)
    async with server.running(trusted.server):
        policies = made(server)
        assert (await policies.of("a.test")).mode is StsMode.ENFORCE
        change_id(dns_server, resolver, "two")
        assert (await policies.of("a.test")).mode is StsMode.ENFORCE
        assert (await policies.of("a.test")).mode is StsMode.ENFORCE
        assert len(server.requests) == 2
        change_id(dns_server, resolver, "three")
        assert (await policies.of("a.test")).mode is StsMode.TESTING
    assert len(server.requests) == 3


async def test_policy_past_its_age_is_none_and_one_in_its_second_half_is_fetched_beside(
    trusted: Certificate, made: Policies
) -> None:
    async with HttpsServer(answer()).running(trusted.server) as server:
        policies = made(server)
        policy = StsPolicy(StsMode.TESTING, ("old.test",), 7200)
        policies._kept["a.test"] = Kept("one", policy, time.time() - 7201)
        assert (await policies.of("a.test")).mode is StsMode.ENFORCE
        policies._kept["a.test"] = Kept("one", policy, time.time() - 3700)
        assert await policies.of("a.test") == policy
        async with asyncio.timeout(20):
            while (await policies.of("a.test")) == policy:
                await asyncio.sleep(0.01)
    assert len(server.requests) == 2


def change_id(dns_server: ScriptedDns, resolver: Resolver, policy_id: str) -> None:
    resolver._memory.clear()
    dns_server._records.pop(("_mta-sts.a.test", "TXT"))
    dns_server.add("_mta-sts.a.test", "TXT", f'"v=STSv1; id={policy_id}"')


# -- the road --------------------------------------------------------------------------------


async def route(
    resolver: Resolver, sts: StsPolicies | None, settings: Settings = PRIVATE, shaping: str = ""
) -> Routed | Unroutable:
    return await resolve_destination(
        "a.test",
        resolver=resolver,
        routes=RouteTable.from_settings(settings),
        shaping=load_shaping(shaping),
        settings=settings,
        random=Random(1),
        sts=sts,
    )


async def test_enforced_policy_leaves_the_admitted_hosts_on_a_lane_of_its_own(
    trusted: Certificate, made: Policies, resolver: Resolver
) -> None:
    whole = answer(POLICY.replace("mx1.a.test", "*.a.test"))
    async with HttpsServer(answer()).running(trusted.server) as server:
        some = await route(resolver, made(server))
    async with HttpsServer(whole).running(trusted.server) as server:
        all_hosts = await route(resolver, made(server))
    plain = await route(resolver, None)
    assert isinstance(some, Routed) and isinstance(all_hosts, Routed) and isinstance(plain, Routed)
    assert [host.name for host in some.hosts] == ["mx1.a.test"]
    assert [host.name for host in all_hosts.hosts] == ["mx1.a.test", "mx2.a.test"]
    assert all_hosts.lane.security == "verified+mta-sts"
    assert some.lane.security.startswith("verified+mta-sts.")
    assert plain.lane.security == "opportunistic"
    assert some.site == all_hosts.site == plain.site


@pytest.mark.parametrize("mode", ["testing", "none"])
async def test_policy_that_is_not_enforced_changes_nothing(
    trusted: Certificate, made: Policies, resolver: Resolver, mode: str
) -> None:
    lenient = answer(POLICY.replace("enforce", mode).replace("mx1.a", "elsewhere"))
    async with HttpsServer(lenient).running(trusted.server) as server:
        with_policy, without = await route(resolver, made(server)), await route(resolver, None)
    assert isinstance(with_policy, Routed) and isinstance(without, Routed)
    assert (with_policy.lane, with_policy.hosts) == (without.lane, without.hosts)


async def test_policy_that_admits_no_host_makes_mail_wait_and_says_why(
    trusted: Certificate, made: Policies, resolver: Resolver
) -> None:
    wrong = answer(POLICY.replace("mx1.a.test", "mx.elsewhere.test"))
    async with HttpsServer(wrong).running(trusted.server) as server:
        refused = await route(resolver, made(server))
    assert isinstance(refused, Unroutable)
    assert refused.verdict.severity is Severity.TRANSIENT
    assert refused.verdict.reason == "mta_sts_failed"
    assert "admits none of its MX hosts (mx1.a.test, mx2.a.test), only mx.elsewhere.test" in (
        refused.verdict.text
    )


async def test_what_the_operator_says_of_tls_goes_before_what_the_domain_publishes(
    trusted: Certificate, made: Policies, resolver: Resolver
) -> None:
    routes = (Route(domain="a.test", tls=TlsPolicy.OPPORTUNISTIC),)
    said = Settings(dns=QUICK, delivery=PRIVATE.delivery, routes=routes)
    async with HttpsServer(answer()).running(trusted.server) as server:
        by_route = await route(resolver, made(server), said)
        by_shape = await route(resolver, made(server), shaping='["default"]\ntls = "off"')
    assert isinstance(by_route, Routed) and by_route.lane.security == "opportunistic"
    assert isinstance(by_shape, Routed) and by_shape.lane.security == "off"
    assert server.requests == []


def test_policies_are_asked_for_unless_switched_off_or_without_a_policy_host_in_sink_mode() -> None:
    def policies(mode: Mode, https: str = "", mta_sts: bool = True) -> StsPolicies | None:
        settings = Settings(
            delivery=Delivery(mode=mode), sink=Sink(https=https), tls=Tls(mta_sts=mta_sts)
        )
        return StsPolicies.from_settings(settings, None, None)  # type: ignore[arg-type]

    assert policies(Mode.LIVE) is not None
    assert policies(Mode.LIVE, mta_sts=False) is None
    assert policies(Mode.SINK) is None
    assert policies(Mode.SINK, "127.0.0.1:8443") is not None
