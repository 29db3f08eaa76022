"""A lane's record becomes addresses in the order to try and the way to speak to them."""

from collections.abc import AsyncIterator
from random import Random

import msgspec
import pytest
from scripted_dns import ScriptedDns, serving

from relay.delivery.plan import Plan, plan_for
from relay.delivery.routing import (
    MxHost,
    Routed,
    Unroutable,
    decode_site,
    encode_site,
    resolve_destination,
)
from relay.model.verdict import Scope, Severity
from relay.net.resolver import Resolver
from relay.policy.route import RouteTable
from relay.policy.shape import load_shaping
from relay.settings.schema import Delivery, Dns, Mode, Route, Settings, Timeouts, TlsPolicy

RUNS_ON_BOTH_LOOPS = True

QUICK = Dns(timeout=0.5, lifetime=1.0)
LIVE = Settings(
    dns=QUICK,
    delivery=Delivery(mode=Mode.LIVE, hostname="relay.test"),
    timeouts=Timeouts(connect=7.0),
)
SINK = Settings(dns=QUICK, delivery=Delivery(mode=Mode.SINK, hostname="relay.test"))
SHAPING = load_shaping(
    """
    [provider.google]
    match = [{mx_suffix = ".google.test"}]
    max_connections = 3
    [provider.microsoft]
    match = [{domain_suffix = ".onmicrosoft.test"}]
    max_connections = 4
    """
)


@pytest.fixture
async def dns_server() -> AsyncIterator[ScriptedDns]:
    async with serving() as server:
        yield server


@pytest.fixture
async def resolver(dns_server: ScriptedDns) -> AsyncIterator[Resolver]:
    resolver = Resolver(QUICK, nameservers=(dns_server.nameserver,))
    yield resolver
    await resolver.aclose()


DIGEST = b"\0" * 8


async def record_of(destination: str, resolver: Resolver, settings: Settings = LIVE) -> Routed:
    """The site record of a destination, as another process reads it."""
    routed = await resolve_destination(
        destination,
        resolver=resolver,
        routes=RouteTable.from_settings(settings),
        shaping=SHAPING,
        settings=settings,
        random=Random(1),
    )
    record = decode_site(encode_site(routed, DIGEST), DIGEST)
    assert isinstance(record, Routed), record
    return record


async def plan_from(
    record: Routed, resolver: Resolver, settings: Settings = LIVE, seed: int = 1
) -> Plan | Unroutable:
    return await plan_for(
        record.lane,
        record,
        resolver=resolver,
        settings=settings,
        routes=RouteTable.from_settings(settings),
        shaping=SHAPING,
        random=Random(seed),
    )


async def planned(
    destination: str, resolver: Resolver, settings: Settings = LIVE, seed: int = 1
) -> Plan:
    record = await record_of(destination, resolver, settings)
    plan = await plan_from(record, resolver, settings, seed)
    assert isinstance(plan, Plan), plan
    return plan


@pytest.mark.client_row("C98")
async def test_plan_tries_hosts_by_preference_and_both_families_in_turn(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "10 mx1.a.test.", "20 mx2.a.test.")
    dns_server.add("mx1.a.test", "A", "8.8.8.1", "8.8.8.2")
    dns_server.add("mx1.a.test", "AAAA", "2607:f8b0::1")
    dns_server.add("mx2.a.test", "A", "8.8.8.3")
    plan = await planned("a.test", resolver)
    assert [one.host for one in plan.endpoints] == ["mx1.a.test"] * 3 + ["mx2.a.test"]
    assert [":" in one.address for one in plan.endpoints] == [False, True, False, False]
    assert {one.port for one in plan.endpoints} == {25}
    assert not any(one.implicit_tls for one in plan.endpoints)


async def test_plan_holds_at_most_five_addresses_each_once(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", *(f"10 mx{number}.a.test." for number in range(9)))
    for number in range(9):
        dns_server.add(f"mx{number}.a.test", "A", "8.8.8.8", f"8.8.4.{number}")
    plan = await planned("a.test", resolver)
    addresses = [one.address for one in plan.endpoints]
    assert len(set(addresses)) == len(addresses) == 5


async def test_hosts_of_equal_preference_share_the_load(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", *(f"10 mx{number}.a.test." for number in range(4)))
    for number in range(4):
        dns_server.add(f"mx{number}.a.test", "A", f"8.8.8.{number}")
    record = await record_of("a.test", resolver)
    plans = [await plan_from(record, resolver, seed=seed) for seed in range(60)]
    firsts = {plan.endpoints[0].host for plan in plans if isinstance(plan, Plan)}
    assert len(firsts) == 4


async def test_hosts_after_enough_addresses_are_not_asked_for(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "10 mx1.a.test.", "20 mx2.a.test.")
    dns_server.add("mx1.a.test", "A", *(f"8.8.8.{number}" for number in range(5)))
    await planned("a.test", resolver)
    assert dns_server.count("mx2.a.test", "A") == 0


async def test_dialogue_says_how_to_speak(resolver: Resolver, dns_server: ScriptedDns) -> None:
    dns_server.add("a.test", "MX", "10 mx.google.test.")
    dns_server.add("mx.google.test", "A", "8.8.8.8")
    plan = await planned("a.test", resolver)
    assert plan.dialogue.hello_name == "relay.test"
    assert plan.dialogue.tls is TlsPolicy.OPPORTUNISTIC
    assert plan.dialogue.timeouts.connect == 7.0
    assert plan.dialogue.credentials is None
    assert not plan.dialogue.allow_only_loopback
    assert (plan.provider, plan.shape.max_connections) == ("google", 3)


async def test_provider_found_by_domain_keeps_its_shape(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.onmicrosoft.test", "A", "8.8.8.8")
    plan = await planned("a.onmicrosoft.test", resolver)
    assert (plan.provider, plan.shape.max_connections) == ("microsoft", 4)


async def test_sink_mode_plans_loopback_only(resolver: Resolver, dns_server: ScriptedDns) -> None:
    dns_server.add("a.test", "MX", "10 out.a.test.", "20 mx.a.test.")
    dns_server.add("out.a.test", "A", "8.8.8.8", "10.0.0.1")
    dns_server.add("mx.a.test", "A", "127.1.2.3")
    delivery = Delivery(mode=Mode.SINK, hostname="relay.test", source_address="8.8.4.4")
    settings = msgspec.structs.replace(SINK, delivery=delivery)
    plan = await planned("a.test", resolver, settings)
    assert [(one.address, one.port) for one in plan.endpoints] == [("127.1.2.3", 8454)]
    assert plan.dialogue.allow_only_loopback
    assert plan.dialogue.source_address == ""


async def test_source_address_chooses_the_family(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "A", "8.8.8.8")
    dns_server.add("a.test", "AAAA", "2607:f8b0::1")
    delivery = Delivery(mode=Mode.LIVE, hostname="relay.test", source_address="2607:f8b0::2")
    settings = msgspec.structs.replace(LIVE, delivery=delivery)
    plan = await planned("a.test", resolver, settings)
    assert [one.address for one in plan.endpoints] == ["2607:f8b0::1"]
    assert plan.dialogue.source_address == "2607:f8b0::2"
    dns_server.add("b.test", "A", "8.8.8.8")
    record = msgspec.structs.replace(
        await record_of("a.test", resolver, settings), hosts=(MxHost("b.test", 10, 25),)
    )
    refused = await plan_from(record, resolver, settings)
    assert isinstance(refused, Unroutable)
    assert "our source address 2607:f8b0::2 cannot reach" in refused.verdict.text


async def test_smarthost_plan_carries_port_tls_and_account(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    url = "smtps://user:secret@out.test:4650"
    settings = msgspec.structs.replace(LIVE, routes=(Route(domain="*", smarthost=url, name="esp"),))
    dns_server.add("out.test", "A", "10.1.2.3")
    dns_server.add("out.test", "MX", "10 elsewhere.test.")
    plan = await planned("[esp]", resolver, settings)
    [endpoint] = plan.endpoints
    assert (endpoint.host, endpoint.address, endpoint.port) == ("out.test", "10.1.2.3", 4650)
    assert endpoint.implicit_tls
    assert plan.dialogue.tls is TlsPolicy.REQUIRED
    assert plan.dialogue.credentials is not None
    assert plan.dialogue.credentials.password == "secret"
    assert "secret" not in repr(plan)
    assert dns_server.count("out.test", "MX") == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_smarthost_on_this_machine_needs_no_dns(
    resolver: Resolver, dns_server: ScriptedDns, host: str
) -> None:
    for settings in (LIVE, SINK):
        delivery = msgspec.structs.replace(settings.delivery, smarthost=f"smtp://{host}:1025")
        with_smarthost = msgspec.structs.replace(settings, delivery=delivery)
        destination = RouteTable.from_settings(with_smarthost).destination_for("a.test")
        plan = await planned(destination, resolver, with_smarthost)
        assert {one.port for one in plan.endpoints} == {1025}
    assert dns_server.asked == []


async def test_socket_needs_no_dns_and_no_address(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    for settings in (LIVE, SINK):
        delivery = Delivery(
            mode=settings.delivery.mode,
            source_address="2607:f8b0::2",
            smarthost="lmtp:///run/dovecot/lmtp",
        )
        by_socket = msgspec.structs.replace(settings, delivery=delivery)
        plan = await planned("[lmtp-run-dovecot-lmtp]", resolver, by_socket)
        [endpoint] = plan.endpoints
        assert (endpoint.host, endpoint.address) == ("/run/dovecot/lmtp", "/run/dovecot/lmtp")
        assert endpoint.lmtp and not endpoint.implicit_tls
        assert plan.dialogue.tls is TlsPolicy.OFF
    assert dns_server.asked == []


async def test_smarthost_that_is_ourselves_waits(resolver: Resolver) -> None:
    delivery = Delivery(mode=Mode.LIVE, smarthost="smtp://127.0.0.1:2525")
    settings = Settings(dns=QUICK, delivery=delivery)
    record = await record_of("[127.0.0.1:2525]", resolver, settings)
    plan = await plan_from(record, resolver, settings)
    assert isinstance(plan, Unroutable)
    assert (plan.verdict.severity, plan.verdict.scope) == (Severity.TRANSIENT, Scope.ROUTE)
    assert plan.verdict.reason == "routing_loop"


async def test_smarthost_that_does_not_resolve_never_bounces(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    for settings, url in ((LIVE, "smtp://gone.invalid"), (SINK, "smtp://gone.test")):
        delivery = msgspec.structs.replace(settings.delivery, smarthost=url)
        with_smarthost = msgspec.structs.replace(settings, delivery=delivery)
        destination = RouteTable.from_settings(with_smarthost).destination_for("a.test")
        record = await record_of(destination, resolver, with_smarthost)
        plan = await plan_from(record, resolver, with_smarthost)
        assert isinstance(plan, Unroutable)
        assert (plan.verdict.severity, plan.verdict.scope) == (Severity.TRANSIENT, Scope.ROUTE)


async def test_changed_route_is_never_sent_to_the_old_host(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    def configured(url: str) -> Settings:
        return msgspec.structs.replace(LIVE, routes=(Route(domain="*", smarthost=url, name="esp"),))

    dns_server.add("out.test", "A", "10.1.2.3")
    dns_server.add("new.test", "A", "10.1.2.4")
    record = await record_of("[esp]", resolver, configured("smtp://u:p@out.test"))
    for url in ("smtp://u:p@new.test", "smtp://u:p@out.test:2587", "smtp://x:p@out.test"):
        plan = await plan_from(record, resolver, configured(url))
        assert isinstance(plan, Unroutable)
        assert plan.verdict.reason == "route_changed"
    again = await plan_from(record, resolver, configured("smtp://u:new@out.test"))
    assert isinstance(again, Plan)
    assert again.dialogue.credentials is not None
    assert again.dialogue.credentials.password == "new"


async def test_hosts_that_vanish_after_routing_end_as_a_verdict(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("mx.test", "A", "8.8.8.8")
    dns_server.add("a.test", "MX", "10 mx.test.")
    record = await record_of("a.test", resolver)
    gone = msgspec.structs.replace(record, hosts=(MxHost("gone.test", 10, 25),))
    plan = await plan_from(gone, resolver)
    assert isinstance(plan, Unroutable)
    assert plan.verdict.severity is Severity.PERMANENT
    sick = msgspec.structs.replace(record, hosts=(MxHost("sick.test", 10, 25),))
    dns_server.fail("sick.test", "A")
    dns_server.fail("sick.test", "AAAA")
    plan = await plan_from(sick, resolver)
    assert isinstance(plan, Unroutable)
    assert plan.verdict.reason == "dns_unavailable"


@pytest.mark.parametrize(
    ("hostname", "smarthost", "expected"),
    [
        ("relay.test", "", "relay.test"),
        ("relay.test", "smtp://10.0.0.1", "relay.test"),
        # A content filter or another server of this machine has a port of its own.
        ("relay.test", "smtp://10.0.0.1:10025", ""),
        ("localhost", "", ""),
        ("localhost.localdomain", "", ""),
    ],
)
@pytest.mark.client_row("C10")
async def test_own_name_means_a_loop_on_the_port_of_mx_hosts(
    resolver: Resolver, dns_server: ScriptedDns, hostname: str, smarthost: str, expected: str
) -> None:
    dns_server.add("a.test", "MX", "10 mx.a.test.")
    dns_server.add("mx.a.test", "A", "8.8.8.8")
    delivery = Delivery(mode=Mode.LIVE, hostname=hostname, smarthost=smarthost)
    settings = Settings(dns=QUICK, delivery=delivery)
    destination = RouteTable.from_settings(settings).destination_for("a.test")
    record = await record_of(destination, resolver, settings)
    plan = await plan_from(record, resolver, settings)
    assert isinstance(plan, Plan)
    assert (plan.own_name, plan.is_by_smarthost) == (expected, bool(smarthost))
