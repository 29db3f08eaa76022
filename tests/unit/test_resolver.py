"""The resolver against a real nameserver on loopback that answers, fails and lies as scripted."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import dns.flags
import dns.message
import dns.rrset
import pytest
from scripted_dns import SOA, ScriptedDns, reply_with, serving

from relay.model.errors import (
    ConfigError,
    NoMailHost,
    NoSuchDomain,
    NullMx,
    ResolverUnavailable,
    StoreUnavailable,
)
from relay.net.dns_cache import Answer, MemoryCache, Status, decode_shared, encode_shared
from relay.net.dns_transport import SOCKET_QUESTIONS, SOCKETS, parse_nameserver
from relay.net.resolver import Resolver
from relay.net.system_dns import system_addresses, system_nameservers
from relay.settings.schema import Delivery, Dns, Mode, Settings, Sink

RUNS_ON_BOTH_LOOPS = True
Opened = Callable[[Resolver], Resolver]

QUICK = Dns(timeout=0.5, lifetime=1.2)


@pytest.fixture
async def dns_server() -> AsyncIterator[ScriptedDns]:
    async with serving() as server:
        yield server


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    """Takes resolvers and closes them after the test."""
    resolvers: list[Resolver] = []

    def keep(resolver: Resolver) -> Resolver:
        resolvers.append(resolver)
        return resolver

    yield keep
    for resolver in resolvers:
        await resolver.aclose()


@pytest.fixture
def resolver(dns_server: ScriptedDns, opened: Opened) -> Resolver:
    return opened(Resolver(QUICK, nameservers=(dns_server.nameserver,)))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- MX --------------------------------------------------------------------------------------


async def test_mx_hosts_come_best_first(resolver: Resolver, dns_server: ScriptedDns) -> None:
    dns_server.add("a.test", "MX", "20 mx2.a.test.", "10 MX1.a.test.", ttl=120)
    answer = await resolver.mx("A.Test.")
    assert answer.records == ((10, "mx1.a.test"), (20, "mx2.a.test"))
    assert not answer.implicit
    assert 119 < answer.ttl_s <= 120


@pytest.mark.parametrize("record", ["0 .", "10 ."])
@pytest.mark.client_row("C94")
async def test_null_mx_is_told_apart(
    resolver: Resolver, dns_server: ScriptedDns, record: str
) -> None:
    dns_server.add("a.test", "MX", record)
    with pytest.raises(NullMx, match=r"a\.test accepts no mail"):
        await resolver.mx("a.test")


async def test_null_mx_beside_real_hosts_is_ignored(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "0 .", "10 mx.a.test.")
    assert (await resolver.mx("a.test")).records == ((10, "mx.a.test"),)


@pytest.mark.parametrize(("kind", "text"), [("A", "192.0.2.1"), ("AAAA", "2001:db8::1")])
async def test_domain_without_mx_is_its_own_host(
    resolver: Resolver, dns_server: ScriptedDns, kind: str, text: str
) -> None:
    dns_server.add("a.test", kind, text, ttl=200)
    answer = await resolver.mx("a.test")
    assert (answer.records, answer.implicit) == (((0, "a.test"),), True)
    assert 0 < answer.ttl_s <= 200


async def test_mx_nxdomain_with_address_is_its_own_host(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.fail("a.test", "MX", "NXDOMAIN")
    dns_server.add("a.test", "A", "192.0.2.1")
    assert (await resolver.mx("a.test")).implicit


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"])
@pytest.mark.client_row("C93")
async def test_failed_mx_is_temporary_and_never_falls_back_to_the_address(
    resolver: Resolver, dns_server: ScriptedDns, rcode: str
) -> None:
    dns_server.fail("a.test", "MX", rcode)
    dns_server.add("a.test", "A", "192.0.2.1")
    with pytest.raises(ResolverUnavailable, match=rf"MX of a\.test: .* answered {rcode}"):
        await resolver.mx("a.test")
    assert dns_server.count("a.test", "A") == 0


async def test_no_mx_with_failed_address_is_temporary(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.fail("a.test", "A")
    with pytest.raises(ResolverUnavailable):
        await resolver.mx("a.test")


async def test_domain_that_does_not_exist_is_told_from_one_without_hosts(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("text.test", "TXT", "hello")
    with pytest.raises(NoSuchDomain, match=r"^gone\.test does not exist$") as gone:
        await resolver.mx("gone.test")
    assert not isinstance(gone.value, NoMailHost)
    with pytest.raises(NoMailHost, match="neither MX nor address"):
        await resolver.mx("text.test")


@pytest.mark.parametrize("name", ["", "a..test", "127.0.0.1", "[127.0.0.1]", "a b.test", "a" * 70])
async def test_what_is_no_host_name_is_never_asked(
    resolver: Resolver, dns_server: ScriptedDns, name: str
) -> None:
    with pytest.raises(NoSuchDomain):
        await resolver.mx(name)
    with pytest.raises(NoSuchDomain):
        await resolver.addresses(name)
    assert dns_server.asked == []


async def test_huge_answer_comes_by_tcp_and_is_cut_to_100(
    opened: Opened, dns_server: ScriptedDns
) -> None:
    resolver = opened(Resolver(Dns(timeout=15), nameservers=(dns_server.nameserver,)))
    texts = [f"{number} mx{number}.a.test." for number in range(2000)]
    dns_server.add("a.test", "MX", *texts)
    answer = await resolver.mx("a.test")
    assert len(answer.records) == 100
    assert [via for _, _, via in dns_server.asked] == ["udp", "tcp"]


# -- CNAME -----------------------------------------------------------------------------------


def chain(server: ScriptedDns, links: int, *, stepwise: bool) -> None:
    """c0 → c1 → … → c<links>, which has an MX; stepwise: one link an answer."""
    server.add(f"c{links}.test", "MX", "10 mx.c.test.")
    for number in range(links):
        server.add(f"c{number}.test", "CNAME", f"c{number + 1}.test.", ttl=100 + number)
        if stepwise:
            alias = (f"c{number}.test.", "CNAME", f"c{number + 1}.test.")
            server.script(
                f"c{number}.test",
                "MX",
                lambda query, _, alias=alias: [reply_with(query, alias).to_wire()],  # type: ignore[misc]
            )


@pytest.mark.parametrize("stepwise", [False, True])
async def test_cname_chain_of_16_is_followed(
    resolver: Resolver, dns_server: ScriptedDns, stepwise: bool
) -> None:
    chain(dns_server, 16, stepwise=stepwise)
    answer = await resolver.mx("c0.test")
    assert answer.records == ((10, "mx.c.test"),)
    assert stepwise or answer.ttl_s <= 100


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.client_row("C95")
async def test_cname_chain_of_17_is_temporary(
    resolver: Resolver, dns_server: ScriptedDns, stepwise: bool
) -> None:
    chain(dns_server, 17, stepwise=stepwise)
    with pytest.raises(ResolverUnavailable, match="over 16 links"):
        await resolver.mx("c0.test")


@pytest.mark.client_row("C95")
async def test_cname_loop_is_temporary(resolver: Resolver, dns_server: ScriptedDns) -> None:
    dns_server.add("a.test", "CNAME", "b.test.")
    dns_server.add("b.test", "CNAME", "a.test.")
    dns_server.add("self.test", "CNAME", "self.test.")
    for name in ("a.test", "self.test"):
        with pytest.raises(ResolverUnavailable, match="loop"):
            await resolver.mx(name)


async def test_alias_without_data_is_followed_to_its_end(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("loop.test", "CNAME", "loop2.test.")
    for name, target in (("loop.test", "loop2.test."), ("loop2.test", "loop.test.")):

        def with_soa(query: dns.message.Message, _: str, name=name, target=target) -> list[bytes]:  # type: ignore[no-untyped-def]
            response = reply_with(query, (f"{name}.", "CNAME", target))
            soa = SOA.format(minimum=60)
            response.authority.append(dns.rrset.from_text("test.", 60, "IN", "SOA", soa))
            return [response.to_wire()]

        dns_server.script(name, "MX", with_soa)
    with pytest.raises(ResolverUnavailable, match="loop"):
        await resolver.mx("loop.test")
    dns_server.add("alias.test", "CNAME", "target.test.")
    dns_server.add("target.test", "A", "192.0.2.1")
    assert (await resolver.mx("alias.test")).implicit


async def test_mx_host_that_is_an_alias_is_tolerated(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("mx.test", "CNAME", "real.test.")
    dns_server.add("real.test", "A", "192.0.2.7")
    assert await resolver.addresses("mx.test") == ("192.0.2.7",)


async def test_alias_to_nowhere_does_not_exist(resolver: Resolver, dns_server: ScriptedDns) -> None:
    dns_server.add("a.test", "CNAME", "gone.test.")
    with pytest.raises(NoSuchDomain):
        await resolver.mx("a.test")


async def test_records_of_another_name_are_ignored(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    other = ("evil.test.", "A", "192.0.2.66")
    own = ("mx.test.", "A", "192.0.2.1")
    dns_server.script("mx.test", "A", lambda q, _: [reply_with(q, other, own).to_wire()])
    dns_server.add("mx.test", "TXT", "here")
    assert await resolver.addresses("mx.test") == ("192.0.2.1",)


# -- addresses -------------------------------------------------------------------------------


async def test_addresses_alternate_between_the_families(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("mx.test", "A", "192.0.2.1", "192.0.2.2", "192.0.2.3")
    dns_server.add("mx.test", "AAAA", "2001:db8::1")
    found = await resolver.addresses("mx.test")
    assert [":" in address for address in found] == [False, True, False, False]
    assert len(set(found)) == 4


async def test_one_family_serves_where_the_other_fails(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("mx.test", "A", "192.0.2.1")
    dns_server.fail("mx.test", "AAAA")
    assert await resolver.addresses("mx.test") == ("192.0.2.1",)


async def test_silent_second_family_is_not_awaited(dns_server: ScriptedDns, opened: Opened) -> None:
    dns_server.add("mx.test", "A", "192.0.2.1")
    dns_server.silence("mx.test", "AAAA")
    resolver = opened(Resolver(Dns(timeout=60, lifetime=60), nameservers=(dns_server.nameserver,)))
    async with asyncio.timeout(10):
        assert await resolver.addresses("mx.test") == ("192.0.2.1",)


async def test_soft_beats_hard_between_the_families(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.fail("mx.test", "A", "NXDOMAIN")
    dns_server.fail("mx.test", "AAAA", "SERVFAIL")
    with pytest.raises(ResolverUnavailable):
        await resolver.addresses("mx.test")


async def test_host_without_addresses_is_told_from_no_host(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("mx.test", "TXT", "here")
    assert await resolver.addresses("mx.test") == ()
    with pytest.raises(NoSuchDomain):
        await resolver.addresses("gone.test")


async def test_localhost_is_known_without_asking(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    assert "127.0.0.1" in await resolver.addresses("localhost")
    assert dns_server.asked == []


# -- packets ---------------------------------------------------------------------------------


async def test_answers_with_wrong_id_or_question_are_ignored(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    def liar(query: dns.message.Message, _via: str) -> list[bytes]:
        lie = reply_with(query, ("a.test.", "MX", "1 evil.test.")).to_wire()
        wrong_id = bytes([lie[0] ^ 0xFF]) + lie[1:]
        other = dns.message.make_query("b.test.", "MX", id=query.id)
        wrong_question = reply_with(other, ("a.test.", "MX", "1 evil.test.")).to_wire()
        echo = query.to_wire()
        truth = reply_with(query, ("a.test.", "MX", "1 mx.a.test.")).to_wire()
        return [wrong_id, wrong_question, echo, b"", b"\0", truth]

    dns_server.script("a.test", "MX", liar)
    assert (await resolver.mx("a.test")).records == ((1, "mx.a.test"),)


async def test_answer_from_elsewhere_is_ignored(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    def spoofed(query: dns.message.Message, _via: str) -> list[bytes]:
        lie = reply_with(query, ("a.test.", "MX", "1 evil.test.")).to_wire()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(lie, dns_server.sources[-1])
        return [reply_with(query, ("a.test.", "MX", "1 mx.a.test.")).to_wire()]

    dns_server.script("a.test", "MX", spoofed)
    assert (await resolver.mx("a.test")).records == ((1, "mx.a.test"),)


async def test_damaged_answer_is_temporary(resolver: Resolver, dns_server: ScriptedDns) -> None:
    def damaged(query: dns.message.Message, _via: str) -> list[bytes]:
        return [reply_with(query, ("a.test.", "MX", "1 mx.a.test.")).to_wire()[:-20]]

    dns_server.script("a.test", "MX", damaged)
    with pytest.raises(ResolverUnavailable, match="garbage"):
        await resolver.mx("a.test")


async def test_referral_of_a_lame_server_is_temporary(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    def lame(query: dns.message.Message, _via: str) -> list[bytes]:
        response = reply_with(query)
        response.authority.append(dns.rrset.from_text("test.", 60, "IN", "NS", "ns.test."))
        return [response.to_wire()]

    dns_server.script("a.test", "MX", lame)
    with pytest.raises(ResolverUnavailable, match="referral"):
        await resolver.mx("a.test")


async def test_server_without_edns_is_asked_plainly(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    def old(query: dns.message.Message, _via: str) -> list[bytes]:
        if query.edns >= 0:
            return [query.to_wire()[:2] + b"\x81\x81" + bytes(8)]
        return [reply_with(query, ("a.test.", "MX", "1 mx.a.test.")).to_wire()]

    dns_server.script("a.test", "MX", old)
    assert (await resolver.mx("a.test")).records == ((1, "mx.a.test"),)


@pytest.mark.parametrize("tcp", ["silence", "nonsense", "truncated"])
async def test_truncated_answer_without_tcp_is_temporary(
    resolver: Resolver, dns_server: ScriptedDns, tcp: str
) -> None:
    def cut(query: dns.message.Message, via: str) -> list[bytes]:
        response = reply_with(query)
        response.flags |= dns.flags.TC
        other = reply_with(dns.message.make_query("b.test.", "MX", id=query.id))
        by_tcp = {"silence": [], "nonsense": [other.to_wire()], "truncated": [response.to_wire()]}
        return [response.to_wire()] if via == "udp" else by_tcp[tcp]

    dns_server.script("a.test", "MX", cut)
    with pytest.raises(ResolverUnavailable):
        await resolver.mx("a.test")


async def test_ids_and_ports_vary_from_question_to_question(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    await asyncio.gather(
        *(resolver.mx(f"d{number}.test") for number in range(100)), return_exceptions=True
    )
    assert len({port for _, port in dns_server.sources}) == SOCKETS
    assert len(set(dns_server.ids)) > 250  # of 300 random ones


async def test_sockets_are_replaced_by_new_ports(
    resolver: Resolver, dns_server: ScriptedDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.net.dns_transport.SOCKET_QUESTIONS", 2)
    assert SOCKET_QUESTIONS > 2
    for number in range(100):
        with pytest.raises(NoSuchDomain):
            await resolver.mx(f"d{number}.test")
    assert len({port for _, port in dns_server.sources}) > 2 * SOCKETS


# -- several nameservers ---------------------------------------------------------------------


async def test_silent_nameserver_is_passed_over(dns_server: ScriptedDns, opened: Opened) -> None:
    dns_server.add("a.test", "MX", "1 mx.a.test.")
    dns_server.add("b.test", "MX", "1 mx.b.test.")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        names = (f"127.0.0.1:{port}", dns_server.nameserver)
        resolver = opened(Resolver(Dns(timeout=0.5, lifetime=5), nameservers=names))
        loop = asyncio.get_running_loop()
        await resolver.mx("a.test")
        began = loop.time()
        await resolver.mx("b.test")
        assert loop.time() - began < 0.4  # the silent one rests


async def test_closed_port_and_servfail_are_passed_over(
    dns_server: ScriptedDns, opened: Opened
) -> None:
    dns_server.add("a.test", "MX", "1 mx.a.test.")
    async with serving() as broken:
        broken.fail("a.test", "MX")
        names = (f"127.0.0.1:{free_port()}", broken.nameserver, dns_server.nameserver)
        resolver = opened(Resolver(Dns(timeout=30, lifetime=60), nameservers=names))
        async with asyncio.timeout(10):
            assert (await resolver.mx("a.test")).records == ((1, "mx.a.test"),)


async def test_dead_zone_does_not_rest_a_healthy_nameserver(
    dns_server: ScriptedDns, opened: Opened
) -> None:
    dns_server.silence("dead.test", "MX")
    resolver = opened(
        Resolver(Dns(timeout=0.3, lifetime=0.3), nameservers=(dns_server.nameserver,))
    )
    [nameserver] = resolver._nameservers
    loop = asyncio.get_running_loop()
    dead = asyncio.create_task(resolver.mx("dead.test"))
    await asyncio.sleep(0.1)
    with pytest.raises(NoSuchDomain):
        await resolver.mx("gone.test")
    with pytest.raises(ResolverUnavailable, match="did not answer"):
        await dead
    assert not nameserver.is_resting(loop.time())
    dns_server.silence("dead2.test", "MX")
    with pytest.raises(ResolverUnavailable):
        await resolver.mx("dead2.test")
    assert nameserver.is_resting(loop.time())


async def test_lifetime_bounds_all_tries(dns_server: ScriptedDns, resolver: Resolver) -> None:
    dns_server.silence("a.test", "MX")
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(ResolverUnavailable, match="did not answer"):
        await resolver.mx("a.test")
    assert 1.1 < loop.time() - began < 5
    assert dns_server.count("a.test", "MX") >= 2


async def test_unreachable_nameserver_fails_at_once(opened: Opened) -> None:
    resolver = opened(Resolver(Dns(), nameservers=(f"127.0.0.1:{free_port()}",)))
    async with asyncio.timeout(3):
        with pytest.raises(ResolverUnavailable, match="unreachable"):
            await resolver.mx("a.test")


# -- cache -----------------------------------------------------------------------------------


async def test_answers_are_remembered(resolver: Resolver, dns_server: ScriptedDns) -> None:
    dns_server.add("a.test", "MX", "1 mx.a.test.")
    dns_server.add("mx.a.test", "A", "192.0.2.1")
    dns_server.fail("sick.test", "MX")
    for _ in range(3):
        await resolver.mx("a.test")
        await resolver.addresses("mx.a.test")
        with pytest.raises(NoSuchDomain):
            await resolver.mx("gone.test")
        with pytest.raises(ResolverUnavailable):
            await resolver.mx("sick.test")
    assert len(dns_server.asked) == len(set(dns_server.asked))


async def test_one_question_serves_all_who_wait(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "1 mx.a.test.")
    answers = await asyncio.gather(*(resolver.mx("a.test") for _ in range(50)))
    assert {answer.records for answer in answers} == {((1, "mx.a.test"),)}
    assert dns_server.count("a.test", "MX") == 1


async def test_cancelled_waiter_takes_nobody_along(
    resolver: Resolver, dns_server: ScriptedDns
) -> None:
    dns_server.add("a.test", "MX", "1 mx.a.test.")
    first = asyncio.create_task(resolver.mx("a.test"))
    second = asyncio.create_task(resolver.mx("a.test"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).records == ((1, "mx.a.test"),)
    assert dns_server.count("a.test", "MX") == 1


@pytest.mark.parametrize(
    ("ttl", "low", "high"), [(0, 29, 30), (5, 29, 30), (60, 59, 60), (2**31 - 1, 3599, 3600)]
)
async def test_ttl_is_clamped(
    resolver: Resolver, dns_server: ScriptedDns, ttl: int, low: float, high: float
) -> None:
    dns_server.add("a.test", "MX", "1 mx.a.test.", ttl=ttl)
    assert low < (await resolver.mx("a.test")).ttl_s <= high


async def test_answer_is_asked_again_after_its_ttl(dns_server: ScriptedDns, opened: Opened) -> None:
    dns_server.add("a.test", "MX", "1 mx.a.test.", ttl=0)
    dns_server.minimum = 0
    dns = Dns(min_ttl=0.1, negative_ttl=0.1)
    resolver = opened(Resolver(dns, nameservers=(dns_server.nameserver,)))
    for _ in range(2):
        await resolver.mx("a.test")
        with pytest.raises(NoSuchDomain):
            await resolver.mx("gone.test")
        await asyncio.sleep(0.15)
    assert dns_server.count("a.test", "MX") == dns_server.count("gone.test", "MX") == 2


def test_memory_keeps_at_most_its_size_and_drops_the_oldest() -> None:
    memory = MemoryCache(3)
    for number in range(5):
        memory.put((f"{number}", 1), Answer(Status.NO_NAME, (), 10.0), now=0.0)
    memory.put(("2", 1), Answer(Status.NO_DATA, (), 10.0), now=0.0)
    memory.put(("5", 1), Answer(Status.NO_NAME, (), 10.0), now=0.0)
    assert len(memory) == 3
    kept = [number for number in range(6) if memory.get((f"{number}", 1), now=9.9)]
    assert kept == [2, 4, 5]
    assert memory.get(("5", 1), now=10.0) is None


class SharedMemory:
    """A DnsCache of another process, or one that is down."""

    def __init__(self, *, down: bool = False) -> None:
        self.kept: dict[str, bytes] = {}
        self.ttls: dict[str, float] = {}
        self.down = down

    async def get(self, key: str) -> bytes | None:
        if self.down:
            raise StoreUnavailable("Redis is loading")
        return self.kept.get(key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        if self.down:
            raise StoreUnavailable("Redis is loading")
        self.kept[key], self.ttls[key] = value, ttl_s


async def test_shared_cache_spares_the_second_process_the_question(
    dns_server: ScriptedDns, opened: Opened
) -> None:
    shared = SharedMemory()
    dns_server.add("a.test", "MX", "1 mx.a.test.", ttl=100)
    dns_server.fail("sick.test", "MX")
    for _ in range(2):
        resolver = opened(Resolver(QUICK, shared, nameservers=(dns_server.nameserver,)))
        answer = await resolver.mx("a.test")
        assert 98 < answer.ttl_s <= 100
        with pytest.raises(NoSuchDomain):
            await resolver.mx("gone.test")
        with pytest.raises(ResolverUnavailable):
            await resolver.mx("sick.test")
    assert dns_server.count("a.test", "MX") == dns_server.count("gone.test", "MX") == 1
    assert dns_server.count("sick.test", "MX") == 2  # our trouble is not everyone's
    assert shared.ttls["MX:a.test"] == 100


async def test_shared_cache_that_is_down_or_holds_rubbish_is_a_miss(
    dns_server: ScriptedDns, opened: Opened
) -> None:
    dns_server.add("a.test", "MX", "1 mx.a.test.")
    rubbish = SharedMemory()
    rubbish.kept["MX:a.test"] = b"\xc1rubbish"
    for shared in (SharedMemory(down=True), rubbish):
        resolver = opened(Resolver(QUICK, shared, nameservers=(dns_server.nameserver,)))
        assert (await resolver.mx("a.test")).records == ((1, "mx.a.test"),)


def test_shared_answer_ends_for_all_at_the_same_time() -> None:
    value = encode_shared(Answer(Status.FOUND, ((1, "mx.test"),), 60.0), now=1000.0)
    answer = decode_shared(value, now=1050.0)
    assert answer == Answer(Status.FOUND, ((1, "mx.test"),), 10.0)
    assert decode_shared(value, now=1060.0) is None
    early = decode_shared(value, now=900.0)  # a clock that lags
    assert early is not None
    assert early.ttl_s == 60.0


async def test_closing_abandons_what_is_under_way(dns_server: ScriptedDns) -> None:
    dns_server.silence("a.test", "MX")
    resolver = Resolver(Dns(), nameservers=(dns_server.nameserver,))
    waiting = asyncio.create_task(resolver.mx("a.test"))
    await asyncio.sleep(0.05)
    await resolver.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# -- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("127.0.0.53:5353", ("127.0.0.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
    ],
)
def test_nameserver_is_an_address_with_an_optional_port(
    text: str, address: tuple[str, int]
) -> None:
    assert parse_nameserver(text) == address


@pytest.mark.parametrize("text", ["", "dns.test", "192.0.2.53:x", "192.0.2.53:0", "[::1]x", "::1:"])
def test_nameserver_that_is_none_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.53"):
        parse_nameserver(text)


def test_system_nameservers_are_those_of_resolv_conf(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.1\n"
        "nameserver bogus\nnameserver 2001:db8::1\nnameserver 192.0.2.1\noptions edns0\n"
    )
    assert system_nameservers(file) == ("192.0.2.1", "2001:db8::1")
    assert system_nameservers(tmp_path / "missing") == ("127.0.0.1",)


async def test_changed_resolv_conf_is_followed_once_the_old_one_fails(
    dns_server: ScriptedDns, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    dead = (f"127.0.0.1:{free_port()}",)
    now = [dead]
    monkeypatch.setattr("relay.net.resolver.system_nameservers", lambda: now[0])
    resolver = opened(Resolver(QUICK))
    dns_server.add("a.test", "MX", "1 mx.a.test.")
    with pytest.raises(ResolverUnavailable):
        await resolver.mx("sick.test")
    now[0] = (dns_server.nameserver,)
    with pytest.raises(ResolverUnavailable):
        await resolver.mx("b.test")
    assert (await resolver.mx("a.test")).records == ((1, "mx.a.test"),)


async def test_sink_mode_asks_nobody_but_the_sink(dns_server: ScriptedDns, opened: Opened) -> None:
    dns_server.add("a.test", "MX", "1 mx.a.test.")
    settings = Settings(
        delivery=Delivery(mode=Mode.SINK),
        dns=Dns(nameservers=("192.0.2.53",)),
        sink=Sink(dns=dns_server.nameserver),
    )
    resolver = opened(Resolver.from_settings(settings))
    assert (await resolver.mx("a.test")).records == ((1, "mx.a.test"),)


async def test_system_knows_localhost_and_says_what_it_does_not_know() -> None:
    assert "127.0.0.1" in await system_addresses("localhost", timeout_s=10)
    with pytest.raises((NoSuchDomain, ResolverUnavailable)):
        await system_addresses("no-such-host.invalid", timeout_s=10)
