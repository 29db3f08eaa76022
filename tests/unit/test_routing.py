"""Destinations become lanes, or verdicts: real DNS packets, addresses that are never dialled."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest
from dns.rdatatype import RdataType
from hypothesis import given
from hypothesis import strategies as st
from scripted_dns import ScriptedDns, serving

from relay.delivery.addresses import AddressRules, Found, Reach, find_addresses, reach_of
from relay.delivery.routing import (
    MxHost,
    Routed,
    Unroutable,
    decode_site,
    doubt_of_name,
    encode_site,
    groups_of,
    resolve_destination,
    rules_digest,
)
from relay.model.lane import Lane
from relay.model.verdict import Scope, Severity, Verdict
from relay.net.dns_cache import Answer, Status
from relay.net.resolver import Resolver
from relay.policy.route import RouteTable
from relay.policy.shape import Shaping, load_shaping
from relay.settings.schema import (
    Delivery,
    Dns,
    Mode,
    Route,
    Settings,
    Sink,
    Smtp,
    TlsPolicy,
    Worker,
)

RUNS_ON_BOTH_LOOPS = True

DIGEST = b"\0" * 8
QUICK = Dns(timeout=0.5, lifetime=1.0)
LIVE = Settings(dns=QUICK, delivery=Delivery(mode=Mode.LIVE, hostname="relay.test"))
SINK = Settings(dns=QUICK, delivery=Delivery(mode=Mode.SINK), sink=Sink(smtp="127.0.0.1:8454"))
PRIVATE = Settings(
    dns=QUICK, delivery=Delivery(mode=Mode.LIVE, hostname="relay.test", allow_private=True)
)
SHAPING = load_shaping(
    """
    [provider.google]
    match = [{mx_suffix = ".google.test"}]
    tls = "required"
    max_connections = 3
    [provider.microsoft]
    match = [{domain_suffix = ".onmicrosoft.test"}]
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


async def resolve(
    destination: str, resolver: Resolver, settings: Settings = LIVE, shaping: Shaping = SHAPING
) -> Routed | Unroutable:
    return await resolve_destination(
        destination,
        resolver=resolver,
        routes=RouteTable.from_settings(settings),
        shaping=shaping,
        settings=settings,
        random=Random(1),
    )


async def routed(destination: str, resolver: Resolver, settings: Settings = LIVE) -> Routed:
    result = await resolve(destination, resolver, settings)
    assert isinstance(result, Routed), result
    return result


async def refused(
    destination: str, resolver: Resolver, settings: Settings = LIVE
) -> tuple[Severity, Scope, str, str]:
    result = await resolve(destination, resolver, settings)
    assert isinstance(result, Unroutable), result
    assert result.retry_after_s > 0
    verdict = result.verdict
    assert verdict.text.endswith(".")
    return verdict.severity, verdict.scope, verdict.reason, verdict.text


# -- lanes -----------------------------------------------------------------------------------


async def test_domains_with_the_same_mx_set_share_a_lane(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    for domain in ("a.test", "b.test"):
        dns_server.add(domain, "MX", "10 mx1.host.test.", "20 mx2.host.test.", ttl=100)
    dns_server.add("c.test", "MX", "10 mx1.host.test.", ttl=100)
    dns_server.add("mx1.host.test", "A", "8.8.8.8")
    a, b, c = [await routed(f"{name}.test", resolver) for name in "abc"]
    assert a.lane == b.lane != c.lane
    assert a.lane.site == a.site
    assert str(a.lane).split("|")[1:] == ["default", "opportunistic", ""]
    assert a.hosts == (MxHost("mx1.host.test", 10, 25), MxHost("mx2.host.test", 20, 25))
    assert 98 < a.ttl_s <= 100
    assert a.provider == ""


async def test_provider_decides_security_and_limits(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "10 mx1.google.test.")
    dns_server.add("mx1.google.test", "A", "8.8.8.8")
    result = await routed("a.test", resolver)
    assert (result.provider, result.lane.security) == ("google", "required")


async def test_provider_found_by_domain_has_a_site_of_its_own(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("mx.host.test", "A", "8.8.8.8")
    for domain in ("a.test", "a.onmicrosoft.test"):
        dns_server.add(domain, "MX", "10 mx.host.test.")
    plain = await routed("a.test", resolver)
    special = await routed("a.onmicrosoft.test", resolver)
    assert special.provider == "microsoft"
    assert special.site == f"{plain.site}~microsoft"


async def test_demand_for_tls_makes_a_lane_of_its_own(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    settings = Settings(
        dns=QUICK,
        delivery=LIVE.delivery,
        routes=(Route(domain="a.test", tls=TlsPolicy.VERIFIED),),
    )
    dns_server.add("mx.host.test", "A", "8.8.8.8")
    for domain in ("a.test", "b.test"):
        dns_server.add(domain, "MX", "10 mx.host.test.")
    demanded = await routed("a.test", resolver, settings)
    assert demanded.lane.security == "verified"
    assert demanded.site == (await routed("b.test", resolver, settings)).site


async def test_sink_mode_sends_to_the_port_of_the_sink(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "10 mx.a.test.")
    dns_server.add("mx.a.test", "A", "127.3.4.5")
    assert (await routed("a.test", resolver, SINK)).hosts == (MxHost("mx.a.test", 10, 8454),)


async def test_pool_is_one_that_the_workers_own(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "A", "8.8.8.8")
    settings = Settings(dns=QUICK, delivery=LIVE.delivery, worker=Worker(pools=("news",)))
    assert (await routed("a.test", resolver, settings)).lane.pool == "news"


@pytest.mark.client_row("C96")
async def test_dead_first_host_does_not_stand_in_the_way(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "10 gone.a.test.", "20 sick.a.test.", "30 mx.a.test.")
    dns_server.fail("sick.a.test", "A")
    dns_server.fail("sick.a.test", "AAAA")
    dns_server.add("mx.a.test", "A", "8.8.8.8")
    assert len((await routed("a.test", resolver)).hosts) == 3


# -- nowhere to go ---------------------------------------------------------------------------


@pytest.mark.client_row("C94")
async def test_domain_that_takes_no_mail_is_permanent_without_a_look_at_addresses(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "0 .")
    dns_server.add("a.test", "A", "8.8.8.8")
    permanent = (Severity.PERMANENT, Scope.DOMAIN)
    assert await refused("a.test", resolver) == (
        *permanent,
        "null_mx",
        "a.test accepts no mail (null MX).",
    )
    assert dns_server.count("a.test", "A") == 0
    assert (await refused("gone.test", resolver))[:3] == (*permanent, "no_such_domain")
    dns_server.add("text.test", "TXT", "x")
    assert (await refused("text.test", resolver))[:3] == (*permanent, "no_usable_host")


async def test_sick_dns_is_temporary(resolver: Resolver, dns_server: ScriptedDns) -> None:
    dns_server.fail("a.test", "MX")
    dns_server.silence("b.test", "MX")
    dns_server.add("b.test", "A", "8.8.8.8")
    for domain in ("a.test", "b.test"):
        assert (await refused(domain, resolver))[:3] == (
            Severity.TRANSIENT,
            Scope.DOMAIN,
            "dns_unavailable",
        )


@pytest.mark.parametrize("order", [("10", "20"), ("20", "10"), ("10", "10")])
async def test_soft_beats_hard_among_the_hosts(
    resolver: Resolver, dns_server: ScriptedDns, order: tuple[str, str]
) -> None:
    dns_server.add("a.test", "MX", f"{order[0]} gone.a.test.", f"{order[1]} sick.a.test.")
    dns_server.fail("sick.a.test", "A")
    assert (await refused("a.test", resolver))[0] is Severity.TRANSIENT


async def test_hosts_that_all_do_not_exist_are_permanent_and_the_domain_is_not_tried(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "10 gone.a.test.", "20 gone2.a.test.")
    dns_server.add("a.test", "A", "8.8.8.8")
    severity, _, reason, text = await refused("a.test", resolver)
    assert (severity, reason) == (Severity.PERMANENT, "no_usable_host")
    assert "gone.a.test does not exist" in text


async def test_mx_that_is_an_address_is_refused(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "10 8.8.8.8.")
    severity, _, reason, text = await refused("a.test", resolver, PRIVATE)
    assert (severity, reason) == (Severity.PERMANENT, "no_usable_host")
    assert "IP address" in text


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "0.0.0.0", "192.168.1.1", "224.0.0.1"]
)
@pytest.mark.client_row("C99")
async def test_special_addresses_are_refused(
    resolver: Resolver, dns_server: ScriptedDns, address: str
) -> None:
    dns_server.add("a.test", "MX", "10 mx.a.test.")
    dns_server.add("mx.a.test", "A", address)
    severity, _, reason, text = await refused("a.test", resolver)
    assert (severity, reason) == (Severity.PERMANENT, "no_usable_host")
    assert address in text


@pytest.mark.client_row("C99")
async def test_private_addresses_are_allowed_when_the_operator_says_so(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "A", "10.0.0.1")
    dns_server.add("b.test", "A", "127.0.0.1")
    dns_server.add("c.test", "A", "0.0.0.0")
    await routed("a.test", resolver, PRIVATE)
    await routed("b.test", resolver, PRIVATE)
    assert (await refused("c.test", resolver, PRIVATE))[2] == "no_usable_host"


@pytest.mark.client_row("C99")
async def test_mx_localhost_is_refused(resolver: Resolver, dns_server: ScriptedDns) -> None:
    dns_server.add("a.test", "MX", "10 localhost.")
    assert (await refused("a.test", resolver))[0] is Severity.PERMANENT


async def test_sink_mode_refuses_all_but_loopback_without_bouncing(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    for name, address in (("a.test", "8.8.8.8"), ("b.test", "10.0.0.1")):
        dns_server.add(name, "A", address)
        severity, scope, _, text = await refused(name, resolver, SINK)
        assert (severity, scope) == (Severity.TRANSIENT, Scope.LOCAL)
        assert address in text


# -- ourselves -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hostname", "mode", "doubted"),
    [
        ("mail.example.org", Mode.LIVE, False),
        ("localhost", Mode.LIVE, True),
        ("vm", Mode.LIVE, True),
        ("vm.localdomain", Mode.LIVE, True),
        ("vm", Mode.SINK, False),
    ],
)
def test_name_that_receivers_would_refuse_is_doubted(
    hostname: str, mode: Mode, doubted: bool
) -> None:
    doubt = doubt_of_name(Settings(delivery=Delivery(mode=mode, hostname=hostname)))
    assert bool(doubt) is doubted
    assert not doubted or (f"'{hostname}'" in doubt and "delivery.hostname" in doubt)


async def test_own_name_as_best_host_is_a_loop(resolver: Resolver, dns_server: ScriptedDns) -> None:
    dns_server.add("a.test", "MX", "10 RELAY.test.", "10 mx.a.test.", "20 mx2.a.test.")
    assert (await refused("a.test", resolver))[:3] == (
        Severity.PERMANENT,
        Scope.DOMAIN,
        "routing_loop",
    )


async def test_own_name_cuts_itself_and_all_worse_hosts(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "10 mx.a.test.", "20 relay.test.", "30 mx3.a.test.")
    dns_server.add("mx.a.test", "A", "8.8.8.8")
    result = await routed("a.test", resolver)
    assert [host.name for host in result.hosts] == ["mx.a.test"]
    assert result.is_backup


async def test_backup_waits_for_a_primary_that_does_not_resolve(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "10 gone.a.test.", "20 relay.test.")
    severity, _, reason, text = await refused("a.test", resolver)
    assert (severity, reason) == (Severity.TRANSIENT, "no_usable_host")
    assert "backup" in text


@pytest.mark.client_row("C97")
async def test_own_address_is_a_loop_on_port_25(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    delivery = Delivery(mode=Mode.LIVE, hostname="relay.test", source_address="8.8.4.4")
    dns_server.add("a.test", "MX", "10 mx.a.test.")
    dns_server.add("mx.a.test", "A", "8.8.4.4", "8.8.8.8")
    settings = Settings(dns=QUICK, delivery=delivery)
    assert (await refused("a.test", resolver, settings))[2] == "routing_loop"
    dns_server.add("b.test", "MX", "10 gone.b.test.", "20 mx.a.test.")
    assert (await refused("b.test", resolver, settings))[0] is Severity.TRANSIENT
    dns_server.add("c.test", "MX", "10 mx.c.test.", "20 mx.a.test.")
    dns_server.add("mx.c.test", "A", "8.8.8.8")
    assert isinstance(await resolve("c.test", resolver, settings), Routed)


@pytest.mark.parametrize("listen", ["127.0.0.1:2525", "0.0.0.0:2525"])
@pytest.mark.client_row("C97")
async def test_own_listener_is_a_loop(
    resolver: Resolver, dns_server: ScriptedDns, listen: str
) -> None:
    delivery = Delivery(mode=Mode.LIVE, hostname="r.test", smtp_port=2525, allow_private=True)
    settings = Settings(dns=QUICK, delivery=delivery, smtp=Smtp(listen=(listen,)))
    dns_server.add("a.test", "A", "127.0.0.1")
    assert (await refused("a.test", resolver, settings))[2] == "routing_loop"
    dns_server.add("b.test", "A", "10.255.255.1")
    await routed("b.test", resolver, settings)


# -- smarthosts ------------------------------------------------------------------------------


async def test_smarthost_is_a_lane_named_by_host_and_port(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    delivery = Delivery(mode=Mode.LIVE, hostname="r.test")
    routes = (
        Route(domain="a.test", smarthost="smtps://user:secret@out.test:465", name="esp"),
        Route(domain="*", smarthost="smtp://[::1]:2526"),
    )
    settings = Settings(dns=QUICK, delivery=delivery, routes=routes)
    esp = await routed("[esp]", resolver, settings)
    assert (esp.site, esp.lane.security, esp.route) == ("out.test:465", "required", "[esp]")
    assert esp.lane.credentials
    assert "user" not in str(esp.lane)
    assert b"secret" not in encode_site(esp, DIGEST)
    table = RouteTable.from_settings(settings)
    other = await routed(table.destination_for("b.test"), resolver, settings)
    assert (other.site, other.lane.security) == ("[::1]:2526", "opportunistic")
    assert dns_server.asked == []


async def test_route_that_is_gone_from_the_configuration_waits(resolver: Resolver) -> None:
    assert (await refused("[esp]", resolver))[:3] == (
        Severity.TRANSIENT,
        Scope.ROUTE,
        "no_such_route",
    )


# -- records ---------------------------------------------------------------------------------


def test_site_record_is_read_as_it_was_written() -> None:
    lane = Lane("mx.test~1")
    hosts = (MxHost("mx.test", 10, 25), MxHost("mx2.test", 20, 25))
    routed = Routed(lane, "mx.test~1", "google", hosts, 300.0, is_backup=True)
    assert decode_site(encode_site(routed, DIGEST), DIGEST) == routed
    verdict = Verdict(Severity.PERMANENT, Scope.DOMAIN, "null_mx", "No mail.")
    nowhere = Unroutable(verdict, 300.0)
    assert decode_site(encode_site(nowhere, DIGEST), DIGEST) == nowhere


@pytest.mark.parametrize(
    "record", [b"", b"\x02", b"\x01" + DIGEST, b"\x02" + DIGEST, b"\x02" + DIGEST + b"\x80"]
)
def test_site_record_that_cannot_be_read_is_none(record: bytes) -> None:
    assert decode_site(record, DIGEST) is None


def test_site_record_made_under_other_rules_is_none() -> None:
    record = encode_site(Routed(Lane("mx.test~1"), "mx.test~1", "", (), 300.0), DIGEST)
    assert decode_site(record, b"\1" * 8) is None


def digest_of(settings: Settings, shaping: Shaping = SHAPING) -> bytes:
    return rules_digest(settings, RouteTable.from_settings(settings), shaping)


def smarthost(url: str) -> Settings:
    return Settings(delivery=Delivery(mode=Mode.LIVE, smarthost=url))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LIVE, PRIVATE),
        (LIVE, SINK),
        (LIVE, Settings(delivery=Delivery(mode=Mode.LIVE, smtp_port=2525))),
        (LIVE, smarthost("smtp://a.test")),
        (smarthost("smtp://a.test"), smarthost("smtp://b.test")),
        (smarthost("smtp://u:p@a.test"), smarthost("smtp://v:p@a.test")),
        (SINK, Settings(delivery=Delivery(mode=Mode.SINK), sink=Sink(smtp="127.0.0.1:9454"))),
    ],
)
def test_digest_of_the_rules_changes_with_what_routes_follow_from(
    one: Settings, other: Settings
) -> None:
    assert digest_of(one) == digest_of(one)
    assert digest_of(one) != digest_of(other)


def test_digest_of_the_rules_is_that_of_all_hosts_and_tells_no_password() -> None:
    """Names and source addresses differ from host to host; a password could be guessed at."""
    other = Delivery(mode=Mode.LIVE, hostname="b.test", source_address="192.0.2.7")
    assert digest_of(LIVE) == digest_of(Settings(delivery=other))
    assert digest_of(smarthost("smtp://u:p@a.test")) == digest_of(smarthost("smtp://u:q@a.test"))


def test_digest_of_the_rules_changes_with_the_shaping() -> None:
    assert digest_of(LIVE) != digest_of(LIVE, load_shaping(""))


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abcdef"))))
def test_groups_keep_preference_and_every_host(pairs: list[tuple[int, str]]) -> None:
    hosts = tuple(MxHost(name, preference, 25) for preference, name in pairs)
    groups = groups_of(hosts)
    assert sorted(name for group in groups for name in group) == sorted(n for _, n in pairs)
    assert [name for group in groups for name in group] == [
        name for _, name in sorted(pairs, key=lambda pair: pair[0])
    ]


# -- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("8.8.8.8", Reach.PUBLIC),
        ("2607:f8b0::1", Reach.PUBLIC),
        ("127.255.0.1", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("::ffff:8.8.8.8", Reach.PUBLIC),
        ("10.0.0.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("169.254.169.254", Reach.PRIVATE),
        ("192.0.2.1", Reach.PRIVATE),
        ("fe80::1", Reach.PRIVATE),
        ("fc00::1", Reach.PRIVATE),
        ("fec0::1", Reach.PRIVATE),
        ("2002:7f00:1::", Reach.LOOPBACK),
        ("2002:a00:1::", Reach.PRIVATE),
        ("64:ff9b::a00:1", Reach.PRIVATE),
        ("64:ff9b::808:808", Reach.PUBLIC),
        ("0.0.0.0", Reach.UNUSABLE),
        ("0.1.2.3", Reach.UNUSABLE),
        ("::", Reach.UNUSABLE),
        ("::7f00:1", Reach.UNUSABLE),
        ("224.0.0.1", Reach.UNUSABLE),
        ("ff02::1", Reach.UNUSABLE),
        ("255.255.255.255", Reach.UNUSABLE),
        ("240.0.0.1", Reach.UNUSABLE),
    ],
)
def test_reach_of_an_address_is_known(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


async def find_remembered(
    table: dict[str, tuple[str, ...]], names: list[list[str]], wanted: int, seed: int
) -> Found:
    """What is found by a resolver that remembers all the hosts' addresses."""
    resolver = Resolver(QUICK, nameservers=("127.0.0.1:1",))
    now = asyncio.get_running_loop().time()
    for host, addresses in table.items():
        for kind, colon in ((RdataType.A, False), (RdataType.AAAA, True)):
            records = tuple((0, one) for one in addresses if (":" in one) is colon)
            status = Status.FOUND if records else Status.NO_DATA
            resolver._memory.put((host, int(kind)), Answer(status, records, 60.0), now=now)
    rules = AddressRules(frozenset({Reach.PUBLIC}), 25)
    return await find_addresses(names, rules, resolver=resolver, wanted=wanted, random=Random(seed))


@given(
    groups=st.lists(
        st.lists(
            st.lists(st.integers(0, 30) | st.integers(1000, 1030), max_size=4),
            min_size=1,
            max_size=4,
        ),
        max_size=4,
    ),
    wanted=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_addresses_keep_the_order_of_groups_and_come_once(
    groups: list[list[list[int]]], wanted: int, seed: int
) -> None:
    def text(number: int) -> str:
        return f"8.8.8.{number}" if number < 1000 else f"2607:f8b0::{number}"

    table, names = {}, []
    for index, group in enumerate(groups):
        names.append([f"h{index}-{number}.test" for number in range(len(group))])
        for name, numbers in zip(names[-1], group, strict=True):
            table[name] = tuple(map(text, numbers))
    found = asyncio.run(find_remembered(table, names, wanted, seed))
    addresses = [address for _, address in found.addresses]
    assert len(addresses) == len(set(addresses)) <= wanted
    everything = {address for values in table.values() for address in values}
    assert len(addresses) == min(wanted, len(everything))
    ranks = [int(host[1 : host.index("-")]) for host, _ in found.addresses]
    assert ranks == sorted(ranks)
    assert all(address in table[host] for host, address in found.addresses)
    first = [a for host, a in found.addresses if host.startswith("h0-")]
    both = {":" in a for values in groups[:1] for host in values for a in map(text, host)}
    assert len(first) < 2 or len({":" in a for a in first}) == len(both)


def test_only_the_family_of_the_source_address_is_dialled() -> None:
    rules = AddressRules(frozenset({Reach.PUBLIC}), 25, source_address="8.8.4.4")
    assert rules.allows("8.8.8.8")
    assert not rules.allows("2607:f8b0::1")


def test_wildcard_listener_is_at_every_address_of_this_machine() -> None:
    settings = Settings(
        delivery=Delivery(mode=Mode.LIVE, allow_private=True), smtp=Smtp(listen=("[::]:26",))
    )
    assert AddressRules.for_mx(settings, 26).is_own("127.0.0.9")
    assert not AddressRules.for_mx(settings, 25).is_own("127.0.0.9")
    assert not AddressRules.for_mx(settings, 26).is_own("8.8.8.8")
