"""The DNS server, asked by dnspython over real sockets."""

import asyncio

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from relay.sim.server import Sink
from relay.sim.wire import build_answer, parse_question
from relay.sim.zone import Answer

RUNS_ON_BOTH_LOOPS = True


@pytest.fixture
async def sink():
    async with Sink() as running:
        yield running


async def ask(sink, name, kind, *, tcp=False, edns=True):
    query = dns.message.make_query(name, kind, use_edns=0 if edns else False)
    ask_over = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await ask_over(query, "127.0.0.1", port=sink.dns_port, timeout=2)


def values(response, kind):
    wanted = dns.rdatatype.from_text(kind)
    return [str(r) for rrset in response.answer if rrset.rdtype == wanted for r in rrset]


@pytest.mark.parametrize("tcp", [False, True])
async def test_dns_gives_an_ordinary_domain_two_mx_hosts(sink, tcp):
    response = await ask(sink, "a.test", "MX", tcp=tcp)
    assert values(response, "MX") == ["10 mx1.a.test.", "20 mx2.a.test."]
    assert response.flags & dns.flags.AA


async def test_dns_gives_every_host_its_own_loopback_address(sink):
    first = values(await ask(sink, "mx1.a.test", "A"), "A")
    second = values(await ask(sink, "mx2.a.test", "A"), "A")
    assert first != second
    assert all(address.startswith("127.") for address in first + second)


async def test_dns_gives_the_same_host_the_same_address_in_another_sink(sink):
    async with Sink() as other:
        assert other.address_of("mx1.a.test") == sink.address_of("mx1.a.test")


async def test_dns_answers_for_real_names_too_without_reading_keywords(sink):
    assert values(await ask(sink, "nullmx.example.org", "MX"), "MX")[0].startswith("10 mx1.")
    assert (await ask(sink, "nxdomain.example.org", "A")).rcode() == dns.rcode.NOERROR


async def test_dns_gives_many_domains_of_a_provider_the_same_hosts(sink):
    one = values(await ask(sink, "one.gsuite.test", "MX"), "MX")
    assert one == values(await ask(sink, "two.gsuite.test", "MX"), "MX")
    assert one[0] == "1 aspmx.l.google.test."


async def test_dns_gives_sites_of_one_provider_hosts_of_their_own(sink):
    assert values(await ask(sink, "shop.m365.test", "MX"), "MX") == [
        "0 shop-m365-test.mail.protection.outlook.test."
    ]


async def test_dns_knows_the_hosts_of_real_providers(sink):
    hosts = values(await ask(sink, "gmail.com", "MX"), "MX")
    assert hosts[0] == "5 gmail-smtp-in.l.google.com." and len(hosts) == 5


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nxdomain.test", dns.rcode.NXDOMAIN),
        ("servfail.test", dns.rcode.SERVFAIL),
        ("mx1.noaddress.test", dns.rcode.NXDOMAIN),
        ("_mta-sts.a.test", dns.rcode.NXDOMAIN),
    ],
)
async def test_dns_answers_scripted_codes(sink, name, code):
    assert (await ask(sink, name, "A")).rcode() == code


async def test_dns_negative_answers_carry_a_start_of_authority(sink):
    response = await ask(sink, "a.test", "AAAA")
    assert not response.answer
    assert response.authority[0].rdtype == dns.rdatatype.SOA


async def test_dns_publishes_a_null_mx(sink):
    assert values(await ask(sink, "nullmx.test", "MX"), "MX") == ["0 ."]


async def test_dns_has_no_mx_but_an_address_for_an_implicit_mx(sink):
    assert values(await ask(sink, "nomx.test", "MX"), "MX") == []
    assert values(await ask(sink, "nomx.test", "A"), "A") == [sink.address_of("nomx.test")]


async def test_dns_stops_failing_after_n_questions(sink):
    codes = [(await ask(sink, "servfail2.test", "MX")).rcode() for _ in range(3)]
    assert codes == [dns.rcode.SERVFAIL, dns.rcode.SERVFAIL, dns.rcode.NOERROR]


async def test_dns_can_stay_silent(sink):
    query = dns.message.make_query("dnstimeout.test", "MX")
    with pytest.raises(dns.exception.Timeout):
        await dns.asyncquery.udp(query, "127.0.0.1", port=sink.dns_port, timeout=0.2)


async def test_dns_refers_to_others_like_a_lame_server(sink):
    response = await ask(sink, "lamedns.test", "MX")
    assert response.rcode() == dns.rcode.NOERROR and not response.answer
    assert response.authority[0].rdtype == dns.rdatatype.NS
    assert not response.flags & dns.flags.AA


@pytest.mark.parametrize("name", ["garbagedns1.test", "garbagedns1.nomx.test"])
async def test_dns_answers_garbage_to_the_first_questions(sink, name):
    with pytest.raises(dns.exception.DNSException):
        await ask(sink, name, "MX")
    assert (await ask(sink, name, "MX")).rcode() == dns.rcode.NOERROR


async def test_dns_answers_under_a_wrong_id(sink):
    with pytest.raises(dns.query.BadResponse):
        await ask(sink, "wrongid.test", "MX")


async def test_dns_truncates_and_gives_nothing_by_tcp(sink):
    response = await ask(sink, "notcp.test", "MX")
    assert response.flags & dns.flags.TC and not response.answer
    with pytest.raises(EOFError):
        await ask(sink, "notcp.test", "MX", tcp=True)


async def test_dns_denies_a_flapping_domain_at_every_other_question(sink):
    codes = [(await ask(sink, "flapdns.test", "MX")).rcode() for _ in range(4)]
    assert codes == [dns.rcode.NOERROR, dns.rcode.NXDOMAIN] * 2


async def test_dns_truncates_what_is_too_large_for_udp(sink):
    response = await ask(sink, "manymx.test", "MX")
    assert response.flags & dns.flags.TC and not response.answer
    assert len(values(await ask(sink, "manymx.test", "MX", tcp=True), "MX")) == 200


async def test_dns_keeps_to_512_octets_without_edns(sink):
    large, small = "manymx12.test", "manymx6.test"
    assert (await ask(sink, large, "MX", edns=False)).flags & dns.flags.TC == 0
    assert (await ask(sink, "manymx20.test", "MX", edns=False)).flags & dns.flags.TC
    assert (await ask(sink, "manymx20.test", "MX", edns=True)).flags & dns.flags.TC == 0
    assert len(values(await ask(sink, small, "MX", edns=False), "MX")) == 6


async def test_dns_follows_an_alias_to_its_target(sink):
    response = await ask(sink, "cname.a.test", "MX")
    assert values(response, "CNAME") == ["mx-target.cname.a.test."]
    assert len(values(response, "MX")) == 2


async def test_dns_alias_loop_points_back(sink):
    there = values(await ask(sink, "cnameloop.test", "MX"), "CNAME")
    back = values(await ask(sink, there[0], "MX"), "CNAME")
    assert (there, back) == (["other.cnameloop.test."], ["cnameloop.test."])


async def test_dns_offers_ipv6_only_where_scripted(sink):
    assert values(await ask(sink, "mx1.deadv6.test", "AAAA"), "AAAA") == ["::1"]
    assert values(await ask(sink, "mx1.deadv6.test", "A"), "A")
    assert values(await ask(sink, "mx1.ipv6only.test", "A"), "A") == []


async def test_dns_names_the_host_of_an_address(sink):
    reverse = ".".join(reversed(sink.address_of("mx1.a.test").split(".")))
    assert values(await ask(sink, f"{reverse}.in-addr.arpa", "PTR"), "PTR") == ["mx1.a.test."]


async def test_dns_answers_what_was_set(sink):
    zone = sink.scenario.zone
    zone.override("a.test", "MX", ["5 other.b.test."])
    zone.override("b.test", "MX", [], "SERVFAIL")
    zone.override("c.test", "TXT", ['"v=spf1 -all"'])
    zone.override("d.test", "CNAME", ["e.test."])
    assert values(await ask(sink, "a.test", "MX"), "MX") == ["5 other.b.test."]
    assert (await ask(sink, "b.test", "MX")).rcode() == dns.rcode.SERVFAIL
    assert values(await ask(sink, "c.test", "TXT"), "TXT") == ['"v=spf1 -all"']
    aliased = await ask(sink, "d.test", "MX")
    assert values(aliased, "CNAME") == ["e.test."] and len(values(aliased, "MX")) == 2


async def test_dns_answers_for_all_names_below_a_star_the_nearest_star_first(sink):
    zone = sink.scenario.zone
    zone.override("*.shop.test", "A", ["127.0.0.9"])
    zone.override("*.old.shop.test", "A", ["127.0.0.8"])
    zone.override("own.shop.test", "A", ["127.0.0.7"])
    for name, address in (
        ("mx1.a.shop.test", "127.0.0.9"),
        ("mx1.old.shop.test", "127.0.0.8"),
        ("own.shop.test", "127.0.0.7"),
    ):
        assert values(await ask(sink, name, "A"), "A") == [address]
    assert values(await ask(sink, "shop.test", "A"), "A") != ["127.0.0.9"]
    assert values(await ask(sink, "a.shop.test", "MX"), "MX")[0] == "10 mx1.a.shop.test."
    zone.clear()
    assert values(await ask(sink, "mx1.a.shop.test", "A"), "A") != ["127.0.0.9"]


def test_zone_refuses_what_is_no_record():
    with pytest.raises(ValueError, match=r"MX \['nonsense'\] for a\.test"):
        Sink().scenario.zone.override("a.test", "MX", ["nonsense"])


def test_answer_to_another_opcode_is_not_implemented():
    query = dns.message.make_query("a.test", "SOA")
    query.set_opcode(dns.opcode.STATUS)
    wire = build_answer(parse_question(query.to_wire()), Answer(), over_udp=True)
    assert dns.message.from_wire(wire).rcode() == dns.rcode.NOTIMP


async def test_dns_answers_several_questions_on_one_tcp_connection(sink):
    reader, writer = await asyncio.open_connection("127.0.0.1", sink.dns_port)
    queries = [dns.message.make_query(f"{n}.test", "MX").to_wire() for n in range(3)]
    wire = b"".join(len(q).to_bytes(2, "big") + q for q in queries)
    for octet in wire[:20]:
        writer.write(bytes([octet]))
        await writer.drain()
    writer.write(wire[20:])
    for n in range(3):
        size = int.from_bytes(await reader.readexactly(2), "big")
        response = dns.message.from_wire(await reader.readexactly(size))
        assert values(response, "MX")[0] == f"10 mx1.{n}.test."
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("octets", [b"", b"\0" * 11, b"\0" * 12, b"\xff" * 40])
def test_parse_question_ignores_what_is_no_question(octets):
    assert parse_question(octets) is None


def test_parse_question_survives_every_cut():
    wire = dns.message.make_query("some.name.test", "MX").to_wire()
    for end in range(len(wire)):
        parse_question(wire[:end])
    assert parse_question(wire).name == "some.name.test"
