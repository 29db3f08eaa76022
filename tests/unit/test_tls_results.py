"""What TLS with a domain came to, by the words of RFC 8460 §4.3: from handshake to count."""

import contextlib
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from certificates import issue
from scripted_dns import ScriptedDns, serving
from scripted_smtp import Certificate, Peer, Script, ScriptedServer

from relay.delivery.addresses import AddressRules
from relay.delivery.dane import Unusable
from relay.delivery.directory import load_directory
from relay.delivery.plan import Plan, plan_for
from relay.delivery.routes import Routes
from relay.delivery.routing import Routed, Unroutable, resolve_destination
from relay.delivery.session import Session, open_session
from relay.delivery.sts_policies import StsPolicies
from relay.delivery.tls_report_sender import tallies_of
from relay.delivery.tls_results import TlsResults
from relay.delivery.values import Dialogue, Endpoint, SessionFailed
from relay.model.errors import StoreUnavailable
from relay.model.lane import Lane
from relay.net.resolver import Resolver
from relay.policy.shape import Shape
from relay.policy.tls_report import SUCCESS, day_of, make_report
from relay.settings.schema import Delivery, Dns, Mode, Route, Settings, Timeouts, Tls, TlsPolicy
from relay.store.queue import Store
from relay.store.tls_counts import TlsCounts
from relay.store.work import Work
from tests.store import mail
from tests.support.https_server import HttpsServer, answer
from tests.support.tls_report import check_report

PATIENT = Dns(timeout=20.0, lifetime=30.0)
SETTINGS = Settings(
    dns=PATIENT,
    delivery=Delivery(mode=Mode.LIVE, hostname="relay.test", allow_private=True),
    tls=Tls(reports=True, dane=True, mta_sts=False),
)
TIMEOUTS = Timeouts(greeting=30.0, tls=30.0, command=30.0, quit=5.0)
DIGEST = "ab" * 32
HOST = "mx.a.test"


@pytest.fixture
async def dns_server() -> AsyncIterator[ScriptedDns]:
    async with serving() as server:
        server.is_signed = True
        server.add("_smtp._tls.a.test", "TXT", '"v=TLSRPTv1; rua=mailto:tls@a.test"')
        server.add("a.test", "MX", "10 mx.a.test.")
        server.add(HOST, "A", "127.0.0.1")
        server.add("mta-sts.a.test", "A", "127.0.0.1")
        yield server


class Counting:
    """A worker that counts; `report` is what the domain would be told."""

    def __init__(self, directory: Any, work: Work) -> None:
        self.directory = directory
        self.work = work
        self.results = TlsResults(directory, work)

    async def report(self) -> list[dict[str, Any]]:
        """The policies of a.test's report of today, as JSON."""
        await self.results.flush()
        day = day_of(self.work.store.clock.now())
        tallies = tallies_of(await TlsCounts(self.work.store).read(day, "a.test"))
        report = make_report(
            "a.test", day, tallies, organization="relay.test", contact="postmaster@relay.test"
        )
        shown = json.loads(msgspec.json.encode(report))
        check_report(shown)
        policies: list[dict[str, Any]] = shown["policies"]
        return policies

    async def mail_on(self, lane: str) -> None:
        """Mail for a.test is on the lane: what fails of it is counted to a.test."""
        await self.work.store.accept(mail.submission("ann@a.test"))
        await self.work.routed("a.test", lane, b"site", fresh_s=1000)


@pytest.fixture
async def counting(store: Store, dns_server: ScriptedDns) -> AsyncIterator[Counting]:
    resolver = Resolver(PATIENT, nameservers=(dns_server.nameserver,))
    yield Counting(load_directory(SETTINGS, resolver, signs=False), await mail.worker(store))
    await resolver.aclose()


def plan(dialogue: Dialogue) -> Plan:
    return Plan(Lane("site"), (), dialogue, Shape(), "")


def kinds(policy: dict[str, Any]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in policy["failure-details"]:
        found[one["result-type"]] += one["failed-session-count"]
    return dict(found)


def good_of(policy: dict[str, Any]) -> int:
    count: int = policy["summary"]["total-successful-session-count"]
    return count


def speaking(context: ssl.SSLContext | None) -> Script:
    """A host that speaks until the client is gone, with STARTTLS if it has a context."""

    async def script(peer: Peer) -> None:
        await peer.hello(*(["STARTTLS"] if context else []))
        with contextlib.suppress(OSError):
            while line := await peer.reader.readline():
                if line != b"STARTTLS\r\n":
                    await peer.say("250 ok" if line.startswith(b"EHLO") else "221 bye")
                elif context is None:
                    await peer.say("502 5.5.1 no")
                else:
                    await peer.say("220 go")
                    await peer.writer.start_tls(context)

    return script


# -- handshakes ------------------------------------------------------------------------------


def expired(folder: Path) -> Certificate:
    return Certificate(folder, HOST, days=-1)


def of_another(folder: Path) -> Certificate:
    return Certificate(folder, "other.test")


def unknown(folder: Path) -> Certificate:
    return Certificate(folder, HOST, days=20)


@pytest.mark.parametrize(
    ("certificate", "is_known", "result"),
    [
        (expired, True, "certificate-expired"),
        (of_another, True, "certificate-host-mismatch"),
        (unknown, False, "certificate-not-trusted"),
        (None, False, "starttls-not-supported"),
    ],
)
async def test_session_that_is_not_the_verified_one_that_was_tried_is_told_by_why_it_is_not(
    counting: Counting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: Callable[[Path], Certificate] | None,
    is_known: bool,
    result: str,
) -> None:
    known = Certificate(tmp_path, "known.test")
    shown = certificate(tmp_path) if certificate is not None else known
    monkeypatch.setenv("SSL_CERT_FILE", str((shown if is_known else known).file))

    how = Dialogue("relay.test", timeouts=TIMEOUTS, tries_verified=True)
    strict = Dialogue("relay.test", timeouts=TIMEOUTS, tls=TlsPolicy.VERIFIED)
    await counting.mail_on(str(plan(strict).lane))
    async with ScriptedServer(speaking(shown.server if certificate else None)).running() as server:
        endpoint = Endpoint(HOST, "127.0.0.1", server.port)
        session = await open_session(endpoint, how)
        counting.results.opened("a.test", session, plan(how))
        await session.close()
        with pytest.raises(SessionFailed) as caught:
            await open_session(endpoint, strict)
        counting.results.failed(endpoint, caught.value, plan(strict))
    (policy,) = await counting.report()
    assert policy["policy"]["policy-type"] == "no-policy-found"
    assert (good_of(policy), kinds(policy)) == (0, {result: 2})
    assert {one["receiving-mx-hostname"] for one in policy["failure-details"]} == {HOST}
    assert {one["receiving-ip"] for one in policy["failure-details"]} == {"127.0.0.1"}
    assert {one.get("sending-mta-ip") for one in policy["failure-details"]} == {"127.0.0.1"}


# -- DANE ------------------------------------------------------------------------------------


async def a_session(endpoint: Endpoint, how: Dialogue) -> Session:
    session = await open_session(endpoint, how)
    await session.close()
    return session


async def test_sessions_with_tlsa_records_are_told_by_their_policy_and_what_came_of_it(
    counting: Counting, tmp_path: Path
) -> None:
    context = issue("leaf", HOST).server(tmp_path)

    how = Dialogue("relay.test", timeouts=TIMEOUTS)
    found = await planned(counting, f"1 1 1 {DIGEST}")
    assert isinstance(found, Plan)
    async with ScriptedServer(speaking(context)).running() as server:
        unusable = msgspec.structs.replace(found.endpoints[0], port=server.port)
        counting.results.opened("a.test", await a_session(unusable, how), plan(how))
        wrong = await planned(counting, f"3 1 1 {DIGEST}")
        assert isinstance(wrong, Plan)
        endpoint = msgspec.structs.replace(wrong.endpoints[0], port=server.port)
        with pytest.raises(SessionFailed) as caught:
            await open_session(endpoint, how)
        counting.results.failed(endpoint, caught.value, wrong)
    told = {tuple(one["policy"]["policy-string"]): one for one in await counting.report()}
    assert {one["policy"]["policy-type"] for one in told.values()} == {"tlsa"}
    assert {lines: kinds(one) for lines, one in told.items()} == {
        (): {"tlsa-invalid": 1},
        (f"3 1 1 {DIGEST}",): {"validation-failure": 1},
    }
    assert all(one["policy"]["mx-host"] == [HOST] for one in told.values())
    assert all(one["policy"]["policy-domain"] == HOST for one in told.values())


async def planned(counting: Counting, *records: str) -> Plan | Unroutable:
    """The plan for a.test, whose host has these TLSA records; none: they cannot be had."""
    directory = counting.directory
    async with serving() as server:
        server.is_signed = True
        server.add("a.test", "MX", "10 mx.a.test.")
        server.add(HOST, "A", "127.0.0.1")
        if records:
            server.add(f"_25._tcp.{HOST}", "TLSA", *records)
        else:
            server.fail(f"_25._tcp.{HOST}", "TLSA")
        resolver = Resolver(PATIENT, nameservers=(server.nameserver,))
        shared = {
            "resolver": resolver,
            "settings": SETTINGS,
            "routes": directory.routes,
            "shaping": directory.shaping,
            "random": Random(1),
        }
        try:
            routed = await resolve_destination("a.test", **shared)
            assert isinstance(routed, Routed)
            await counting.mail_on(str(routed.lane))
            return await plan_for(routed.lane, routed, results=counting.results, **shared)
        finally:
            await resolver.aclose()


async def test_host_whose_tlsa_records_cannot_be_had_is_told_of(counting: Counting) -> None:
    assert isinstance(await planned(counting), Unroutable)
    (policy,) = await counting.report()
    assert (policy["policy"]["policy-type"], kinds(policy)) == ("tlsa", {"dnssec-invalid": 1})
    (detail,) = policy["failure-details"]
    assert "TLSA of _25._tcp.mx.a.test" in detail["failure-reason-code"]


async def test_route_that_demands_dane_where_there_is_none_is_told_of(
    counting: Counting, dns_server: ScriptedDns
) -> None:
    strict = msgspec.structs.replace(SETTINGS, routes=(Route(domain="a.test", tls=TlsPolicy.DANE),))
    directory = load_directory(strict, counting.directory.resolver, signs=False)
    counting = Counting(directory, counting.work)
    routes = Routes(directory, counting.work, Random(1), counting.results)
    await counting.work.store.accept(mail.submission("ann@a.test"))
    await routes.find("a.test")
    (lane,) = [lane async for lane in lanes_of(counting.work, "a.test")]
    assert Lane.parse(lane).security == "required+dane-only"
    routed = await routes.site_of(lane)
    assert isinstance(routed, Routed)
    planned = await plan_for(
        Lane.parse(lane),
        routed,
        resolver=directory.resolver,
        settings=strict,
        routes=directory.routes,
        shaping=directory.shaping,
        random=Random(1),
        results=counting.results,
    )
    assert isinstance(planned, Unroutable)
    assert planned.verdict.reason == "dane_required"

    directory.resolver._memory.clear()
    dns_server.is_signed = False
    await routes.find("a.test")
    told = {one["policy"]["policy-domain"]: one for one in await counting.report()}
    assert {domain: kinds(one) for domain, one in told.items()} == {
        HOST: {"dane-required": 1},
        "a.test": {"dane-required": 1},
    }


async def lanes_of(work: Work, destination: str) -> AsyncIterator[str]:
    for lane in await work.wanting("default", 10):
        if destination in await work.destinations_of(lane, 10):
            yield lane


# -- MTA-STS ---------------------------------------------------------------------------------

POLICY = "version: STSv1\r\nmode: enforce\r\nmx: {mx}\r\nmax_age: 604800\r\n"


@contextlib.asynccontextmanager
async def with_policies(counting: Counting, server: HttpsServer) -> AsyncIterator[Counting]:
    rules = AddressRules.for_mx(SETTINGS, server.port)
    sts = StsPolicies(counting.directory.resolver, rules, None, server.port)
    await sts.of("a.test")  # as who routes the domain does
    yield Counting(msgspec.structs.replace(counting.directory, sts=sts), counting.work)
    await sts.aclose()


@pytest.mark.parametrize(
    ("reply", "name", "result"),
    [
        (answer(status="404 Not Found"), "mta-sts.a.test", "sts-policy-fetch-error"),
        (answer("version: STSv2\r\n"), "mta-sts.a.test", "sts-policy-invalid"),
        (answer(POLICY.format(mx=HOST)), "other.test", "sts-webpki-invalid"),
    ],
)
async def test_sessions_of_a_domain_whose_policy_cannot_be_had_are_told_for_themselves_and_for_that(
    counting: Counting,
    dns_server: ScriptedDns,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reply: bytes,
    name: str,
    result: str,
) -> None:
    dns_server.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=one"')
    certificate = Certificate(tmp_path, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    how = Dialogue("relay.test", timeouts=TIMEOUTS)
    async with (
        HttpsServer(reply).running(certificate.server) as policies,
        with_policies(counting, policies) as counting,
        ScriptedServer(speaking(certificate.server)).running() as server,
    ):
        session = await a_session(Endpoint(HOST, "127.0.0.1", server.port), how)
        for _ in range(2):
            counting.results.opened("a.test", session, plan(how))
        told = {one["policy"]["policy-type"]: one for one in await counting.report()}
    assert {kind: (good_of(one), kinds(one)) for kind, one in told.items()} == {
        "sts": (0, {result: 2}),
        "no-policy-found": (2, {}),
    }


async def test_policy_that_admits_no_host_and_sessions_under_it_are_told_under_it(
    counting: Counting, dns_server: ScriptedDns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns_server.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=one"')
    certificate = Certificate(tmp_path, "mta-sts.a.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    reply = answer(POLICY.format(mx="mx.b.test"))
    async with (
        HttpsServer(reply).running(certificate.server) as policies,
        with_policies(counting, policies) as counting,
    ):
        routes = Routes(counting.directory, counting.work, Random(1), counting.results)
        await routes.find("a.test")
        (policy,) = await counting.report()
    assert kinds(policy) == {"validation-failure": 1}
    assert policy["policy"] == {
        "policy-type": "sts",
        "policy-domain": "a.test",
        "policy-string": POLICY.format(mx="mx.b.test").split("\r\n")[:4],
        "mx-host": ["mx.b.test"],
    }
    (detail,) = policy["failure-details"]
    assert "admits none of its MX hosts (mx.a.test)" in detail["failure-reason-code"]


async def test_policy_that_was_never_to_be_had_is_no_failure_once_the_domain_announces_none(
    counting: Counting, dns_server: ScriptedDns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns_server.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=one"')
    certificate = Certificate(tmp_path, "mta-sts.a.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    async with (
        HttpsServer(answer(status="404 Not Found")).running(certificate.server) as policies,
        with_policies(counting, policies) as counting,
    ):
        del dns_server._records["_mta-sts.a.test", "TXT"]
        counting.directory.resolver._memory.clear()
        counting.results._note("a.test", None, SUCCESS + HOST)
        (policy,) = await counting.report()
        assert (policy["policy"]["policy-type"], good_of(policy)) == ("no-policy-found", 1)
        assert len(policies.requests) == 1


# -- what is not lost -----------------------------------------------------------------------


async def test_what_the_store_does_not_take_and_what_comes_meanwhile_is_counted_later(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, add = counting.results, counting.results._counts.add
    await counting.mail_on(str(plan(Dialogue("relay.test")).lane))
    results.without_tlsa("site|default|opportunistic|", HOST, Unusable("no answer"))
    results._note("a.test", None, SUCCESS + HOST)

    async def away(*_: Any) -> None:
        results._note("a.test", None, SUCCESS + HOST)
        raise StoreUnavailable("it is away")

    monkeypatch.setattr(results._counts, "add", away)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await results.flush()

    async def slowly(*arguments: Any) -> None:
        results._note("a.test", None, SUCCESS + HOST)
        await add(*arguments)

    monkeypatch.setattr(results._counts, "add", slowly)
    await results.flush()
    monkeypatch.setattr(results._counts, "add", add)
    told = {one["policy"]["policy-type"]: one for one in await counting.report()}
    assert kinds(told["tlsa"]) == {"dnssec-invalid": 1}
    assert good_of(told["no-policy-found"]) == 5


# -- bounds ----------------------------------------------------------------------------------


async def test_policies_and_results_of_a_day_are_bounded_in_redis(store: Store) -> None:
    counts = TlsCounts(store)
    for number in range(150):
        await counts.add("2026-11-21", "a.test", b'["tlsa",["%d"],[]]' % number, {"+": 1})
    for number in range(150):
        failure = f'["validation-failure","mx{number}.a.test","","",""]'
        await counts.add("2026-11-21", "a.test", b'["tlsa",["0"],[]]', {failure: 1})
    found = await counts.read("2026-11-21", "a.test")
    assert sum(len(one) for _, one in found) + len(found) <= 205
    first = next(one for policy, one in found if policy == b'["tlsa",["0"],[]]')
    assert first["+"] == 1
    assert first['["validation-failure","","","",""]'] == 150
    assert await store.wire.call("TTL", f"{store.p}tls-counts:2026-11-21:a.test") > 0
