"""Each row of the table in docs/tls.md of what wins, with real DNS, a real policy, a real plan."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from scripted_dns import ScriptedDns, serving
from scripted_smtp import Certificate

from relay.delivery.addresses import AddressRules
from relay.delivery.plan import Plan, plan_for
from relay.delivery.routing import Routed, Unroutable, resolve_destination
from relay.delivery.sts_policies import StsPolicies
from relay.ingress.submit import Draft, Submitter
from relay.ingress.trace import Origin
from relay.model.address import parse_address
from relay.net.resolver import Resolver
from relay.policy.route import RouteTable
from relay.policy.shape import load_shaping
from relay.settings.schema import Delivery, Dns, Mode, Route, Settings, Tls, TlsPolicy
from tests.support.https_server import HttpsServer, answer
from tests.support.processes import ROOT

HOSTS = {"mx1.a.test", "mx2.a.test"}
RECORDS = {"usable": f"3 1 1 {'ab' * 32}", "unusable": f"1 1 1 {'ab' * 32}"}
PATIENT = Dns(timeout=20.0, lifetime=30.0)


class Row(msgspec.Struct, frozen=True):
    """One row: who says what, and what comes of it."""

    operator: str
    mta_sts: str
    tlsa: str
    message: str
    hosts: str
    demanded: str
    told_as: str

    def __str__(self) -> str:
        return "-".join(filter(None, msgspec.structs.astuple(self)))


def rows() -> list[Row]:
    text = (ROOT / "docs" / "tls.md").read_text()
    table = text.partition("## Which wins")[2].partition("## MTA-STS")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return [Row(*one) for one in cells]


@pytest.fixture
async def dns_server() -> AsyncIterator[ScriptedDns]:
    async with serving() as server:
        server.is_signed = True
        server.add("a.test", "MX", "10 mx1.a.test.", "20 mx2.a.test.")
        server.add("mx1.a.test", "A", "127.0.0.1")
        server.add("mx2.a.test", "A", "127.0.0.2")
        server.add("mta-sts.a.test", "A", "127.0.0.1")
        yield server


def settings_of(row: Row) -> Settings:
    where, _, word = row.operator.partition(": ")
    routes = (Route(domain="a.test", tls=TlsPolicy(word)),) if where == "route" else ()
    delivery = Delivery(mode=Mode.LIVE, hostname="relay.test", allow_private=True)
    return Settings(dns=PATIENT, delivery=delivery, tls=Tls(dane=True), routes=routes)


def destination_of(row: Row, settings: Settings) -> str:
    """Where the door groups the row's message."""
    field = b"TLS-Required: No\r\n" if "TLS-Required: No" in row.message else b""
    submitter = Submitter(settings, None, RouteTable.from_settings(settings))  # type: ignore[arg-type]
    draft = Draft(
        reverse_path=None,
        forward_paths=(parse_address("ann@a.test"),),
        content=b"From: <me@b.test>\r\n" + field + b"\r\nhello\r\n",
        ingress="smtp",
        origin=Origin("API"),
        requires_tls="REQUIRETLS" in row.message,
    )
    submission = submitter.prepare(draft).submission
    assert (field in submission.content) is True
    return submission.destinations[0]


async def planned(row: Row, resolver: Resolver, sts: StsPolicies) -> Plan | Unroutable:
    settings = settings_of(row)
    where, _, word = row.operator.partition(": ")
    shaping = load_shaping(f'["default"]\ntls = "{word}"' if where == "shaping" else "")
    shared = {
        "resolver": resolver,
        "settings": settings,
        "routes": RouteTable.from_settings(settings),
        "shaping": shaping,
        "random": Random(1),
    }
    routed = await resolve_destination(destination_of(row, settings), sts=sts, **shared)
    assert isinstance(routed, Routed), routed
    return await plan_for(routed.lane, routed, **shared)


@pytest.mark.parametrize("row", rows(), ids=str)
async def test_table_of_what_wins_is_what_is_done(
    row: Row, dns_server: ScriptedDns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = Certificate(tmp_path, "mta-sts.a.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    for host in HOSTS:
        if row.tlsa in RECORDS:
            dns_server.add(f"_25._tcp.{host}", "TLSA", RECORDS[row.tlsa])
        elif row.tlsa:
            dns_server.fail(f"_25._tcp.{host}", "TLSA")
    if row.mta_sts:
        dns_server.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=one"')
    policy = f"version: STSv1\r\nmode: {row.mta_sts}\r\nmx: mx1.a.test\r\nmax_age: 604800\r\n"
    resolver = Resolver(PATIENT, nameservers=(dns_server.nameserver,))
    async with HttpsServer(answer(policy)).running(certificate.server) as server:
        rules = AddressRules.for_mx(settings_of(row), server.port)
        sts = StsPolicies(resolver, rules, None, server.port)
        plan = await planned(row, resolver, sts)
        await sts.aclose()
    await resolver.aclose()

    if row.hosts == "none":
        assert isinstance(plan, Unroutable)
        assert (plan.may_pass, row.demanded) == (True, "waits")
        return
    assert isinstance(plan, Plan)
    expected = {"all": HOSTS, "admitted": {"mx1.a.test"}}[row.hosts]
    assert {endpoint.host for endpoint in plan.endpoints} == expected
    for endpoint in plan.endpoints:
        demanded = endpoint.tls or plan.dialogue.tls
        if endpoint.tlsa:
            assert demanded is TlsPolicy.REQUIRED
        assert ("TLSA" if endpoint.tlsa else demanded.value) == row.demanded
        told_as = endpoint.demanded_by or plan.dialogue.demanded_by or plan.dialogue.tls.value
        assert told_as == row.told_as


def test_table_of_what_wins_says_nothing_twice() -> None:
    said = [msgspec.structs.astuple(row)[:4] for row in rows()]
    assert len(said) == len(set(said)) == 29
