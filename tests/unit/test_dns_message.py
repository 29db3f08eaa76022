"""What dnspython reads of an answer arrives whole, and no packet, however odd, does harm."""

import struct

import dns.flags
import dns.message
import dns.rrset
import pytest
from dns.rcode import Rcode
from dns.rdatatype import RdataType
from hypothesis import example, given
from hypothesis import strategies as st

from relay.net.dns_message import RECORDS_READ, MalformedPacket, Query, Question, Response

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
TTL = st.integers(0, 2**31 - 1)
KINDS = [RdataType.A, RdataType.MX, RdataType.AAAA]

QUERY = Query(Question("example.test", RdataType.MX), 4711, edns=True)
#: Header and question of an answer to QUERY; what follows is up to the test.
QUESTION = b"\7example\4test\0\0\x0f\0\1"


def head(answers: int = 0, authorities: int = 0, *, flags: int = 0x8180) -> bytes:
    return struct.pack("!HHHHHH", 4711, flags, 1, answers, authorities, 0) + QUESTION


def record(kind: int, data: bytes, *, name: bytes = b"\xc0\x0c", ttl: int = 60) -> bytes:
    return name + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def asked(name: str, kind: str) -> tuple[Query, dns.message.Message]:
    """A query and an empty answer to it."""
    query = Query(Question(name, RdataType[kind]), 4711, edns=True)
    return query, dns.message.make_response(dns.message.from_wire(query.wire))


def read(query: Query, message: dns.message.Message) -> Response:
    response = query.read(message.to_wire(max_size=65535))
    assert response is not None
    return response


# -- questions -------------------------------------------------------------------------------


@pytest.mark.parametrize("edns", [True, False])
@given(name=NAME, kind=st.sampled_from(KINDS), query_id=st.integers(0, 65535))
def test_query_is_what_dnspython_would_write(
    name: str, kind: RdataType, query_id: int, edns: bool
) -> None:
    wire = Query(Question(name, kind), query_id, edns=edns).wire
    whole = dns.message.make_query(
        f"{name}.",
        kind,
        use_edns=0 if edns else False,
        payload=1232,
        id=query_id,
        flags=dns.flags.RD | dns.flags.AD,
    )
    assert wire == whole.to_wire()
    message = dns.message.from_wire(wire)
    assert (message.edns, message.payload) == ((0, 1232) if edns else (-1, 0))
    assert message.flags == dns.flags.RD | dns.flags.AD


@pytest.mark.parametrize("name", ["a..b", "a" * 64, ".".join(["a" * 60] * 5)])
def test_question_refuses_what_is_no_domain_name(name: str) -> None:
    with pytest.raises(ValueError, match="domain name"):
        Question(name, RdataType.MX)


# -- answers ---------------------------------------------------------------------------------


@given(
    name=NAME,
    hosts=st.sets(st.tuples(st.integers(0, 65535), NAME), min_size=1, max_size=99),
    ttl=TTL,
)
def test_mx_answer_arrives_whole(name: str, hosts: set[tuple[int, str]], ttl: int) -> None:
    query, message = asked(name, "MX")
    texts = [f"{preference} {host}." for preference, host in hosts]
    message.answer.append(dns.rrset.from_text_list(f"{name}.", ttl, "IN", "MX", texts))
    records = read(query, message).records
    assert sorted((one.preference, one.data) for one in records) == sorted(hosts)
    assert {(one.name, one.ttl_s, one.type) for one in records} == {(name, ttl, RdataType.MX)}


@given(name=NAME, v4=st.sets(st.ip_addresses(v=4)), v6=st.sets(st.ip_addresses(v=6)))
def test_addresses_and_aliases_arrive_whole(name, v4, v6) -> None:  # type: ignore[no-untyped-def]
    query, message = asked(f"alias.{name}", "A")
    message.answer.append(dns.rrset.from_text(f"alias.{name}.", 60, "IN", "CNAME", f"{name}."))
    for kind, addresses in (("A", v4), ("AAAA", v6)):
        if addresses:
            texts = [str(one) for one in addresses]
            message.answer.append(dns.rrset.from_text_list(f"{name}.", 60, "IN", kind, texts))
    records = read(query, message).records
    assert (records[0].name, records[0].data) == (f"alias.{name}", name)
    assert sorted(one.data for one in records[1:]) == sorted(
        rdata.address for rrset in message.answer[1:] for rdata in rrset
    )


def test_names_are_lower_case_and_the_root_is_empty() -> None:
    query, message = asked("example.test", "MX")
    message.answer.append(dns.rrset.from_text("Example.TEST.", 60, "IN", "MX", "5 MX.Test.", "0 ."))
    records = read(query, message).records
    assert {one.name for one in records} == {"example.test"}
    assert {one.data for one in records} == {"mx.test", ""}


def test_name_that_is_no_host_name_is_kept_escaped() -> None:
    query, message = asked("odd.test", "MX")
    message.answer.append(
        dns.rrset.from_text("odd.test.", 60, "IN", "MX", r"5 mx\.evil\124x\032y.test.")
    )
    assert read(query, message).records[0].data == r"mx\046evil\124x\032y.test"


@given(labels=st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=4))
def test_odd_name_never_equals_an_honest_one(labels: list[bytes]) -> None:
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    response = QUERY.read(head(1) + record(RdataType.MX, b"\0\1" + wire))
    assert response is not None
    [found] = response.records
    assert found.data.isascii()
    honest = set(b"".join(labels).lower()) <= set(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
    assert ("\\" not in found.data) is honest
    assert found.data.count(".") == len(labels) - 1


def test_records_of_other_classes_are_no_records() -> None:
    chaos = b"\xc0\x0c" + struct.pack("!HHIH", RdataType.MX, 3, 60, 5) + b"\0\1\1a\0"
    response = QUERY.read(head(1) + chaos)
    assert response == Response(Rcode.NOERROR, truncated=False)


def test_ttl_with_the_highest_bit_counts_as_none() -> None:
    response = QUERY.read(head(1) + record(RdataType.MX, b"\0\1\1a\0", ttl=2**31))
    assert response is not None
    assert response.records[0].ttl_s == 0


def test_negative_ttl_is_the_smaller_of_soa_ttl_and_minimum() -> None:
    for ttl, minimum in ((900, 77), (77, 900)):
        query, message = asked("nothing.test", "MX")
        soa = f"ns.test. h.test. 1 2 3 4 {minimum}"
        message.authority.append(dns.rrset.from_text("test.", ttl, "IN", "SOA", soa))
        assert read(query, message).negative_ttl_s == 77


def test_referral_is_told_from_an_answer_without_data() -> None:
    query, message = asked("nothing.test", "MX")
    message.authority.append(dns.rrset.from_text("test.", 900, "IN", "NS", "ns.test."))
    assert read(query, message).is_referral
    message.authority.append(
        dns.rrset.from_text("test.", 900, "IN", "SOA", "ns.test. h.test. 1 2 3 4 77")
    )
    assert not read(query, message).is_referral


def test_truncated_answer_says_so_however_it_is_cut() -> None:
    for rest in (b"", b"\xc0", record(RdataType.MX, b"\0\1\1a\0")[:-2]):
        response = QUERY.read(head(5, flags=0x8380) + rest)
        assert response == Response(Rcode.NOERROR, truncated=True)


def test_no_more_records_are_read_than_an_honest_zone_has() -> None:
    records = b"".join(
        record(RdataType.MX, struct.pack("!H", number) + b"\1a\0") for number in range(2000)
    )
    response = QUERY.read(head(2000, 2000) + records)
    assert response is not None
    assert len(response.records) == RECORDS_READ


def test_additional_section_is_not_read() -> None:
    header = struct.pack("!HHHHHH", 4711, 0x8180, 1, 1, 0, 7)
    packet = header + QUESTION + record(RdataType.MX, b"\0\1\1a\0") + b"\xff" * 30
    response = QUERY.read(packet)
    assert response is not None
    assert [one.data for one in response.records] == ["a"]


# -- which answer is ours ----------------------------------------------------------------------


def test_answer_must_repeat_the_question_in_any_case_of_letters() -> None:
    right = head().replace(b"example", b"EXAMPLE")
    assert QUERY.read(right) == Response(Rcode.NOERROR, truncated=False)
    assert QUERY.read(b"\0\0" + right[2:]) is None  # another id
    assert QUERY.read(head(flags=0x0100)) is None  # a query
    assert QUERY.read(head(flags=0xA080)) is None  # another opcode
    assert QUERY.read(right[:11]) is None
    for wrong in (
        QUESTION.replace(b"example", b"exampel"),
        QUESTION[:-3] + b"\1\0\1",  # another type
        QUESTION[:-1] + b"\3",  # another class
        QUESTION[:-2],
    ):
        assert QUERY.read(head()[:12] + wrong) is None


def test_answer_to_another_question_is_none_even_if_malformed() -> None:
    wrong = head(1).replace(b"example", b"exampel")
    assert QUERY.read(wrong + b"\xff") is None
    with pytest.raises(MalformedPacket):
        QUERY.read(head(1) + b"\xff")


@pytest.mark.parametrize("rcode", [Rcode.FORMERR, Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED])
def test_bare_failure_counts_as_an_answer(rcode: Rcode) -> None:
    bare = struct.pack("!HHHHHH", 4711, 0x8180 | rcode, 0, 0, 0, 0)
    assert QUERY.read(bare) == Response(rcode, truncated=False)


@pytest.mark.parametrize("rcode", [Rcode.NOERROR, Rcode.NXDOMAIN])
def test_bare_answer_that_would_settle_something_does_not_count(rcode: Rcode) -> None:
    assert QUERY.read(struct.pack("!HHHHHH", 4711, 0x8180 | rcode, 0, 0, 0, 0)) is None


# -- hostile packets -------------------------------------------------------------------------


@given(packet=st.binary(max_size=400))
@example(packet=b"\0\0\x80\0\0\1\0\0\0\0\0\0\xc0\x0c")
def test_reader_ends_on_any_packet(packet: bytes) -> None:
    assert QUERY.read(packet) is None


@given(
    counts=st.tuples(*[st.integers(0, 65535)] * 3),
    rest=st.binary(max_size=400),
    flags=st.integers(0, 0xFFFF),
)
def test_reader_ends_on_any_answer(counts: tuple[int, int, int], rest: bytes, flags: int) -> None:
    packet = struct.pack("!HHHHHH", 4711, flags, 1, *counts) + QUESTION + rest
    try:
        QUERY.read(packet)
    except MalformedPacket:
        pass


@given(
    kind=st.sampled_from(list(RdataType)) | st.integers(0, 65535),
    data=st.binary(max_size=60),
    is_authority=st.booleans(),
)
def test_reader_ends_on_records_of_any_type(kind: int, data: bytes, is_authority: bool) -> None:
    counts = (0, 1) if is_authority else (1, 0)
    try:
        QUERY.read(head(*counts) + record(kind, data))
    except MalformedPacket:
        pass


@given(cut=st.integers(0, 200), flip=st.integers(0, 200), value=st.integers(0, 255))
def test_reader_ends_on_damaged_answers(cut: int, flip: int, value: int) -> None:
    query, message = asked("example.test", "MX")
    message.answer.append(
        dns.rrset.from_text("example.test.", 60, "IN", "MX", "1 a.example.test.", "2 b.test.")
    )
    wire = bytearray(message.to_wire())
    wire[flip % len(wire)] = value
    try:
        query.read(bytes(wire[: max(len(wire) - cut, 0)]))
    except MalformedPacket:
        pass


@pytest.mark.parametrize(
    "name",
    [b"\xc0\x1e", b"\xc0\xff", b"\x40abc\0", b"\x3fabc", (b"\x3f" + b"a" * 63) * 5 + b"\0"],
    ids=["pointer to itself", "pointer forward", "label type", "cut short", "over 255 octets"],
)
def test_name_that_breaks_the_format_is_refused(name: bytes) -> None:
    with pytest.raises(MalformedPacket):
        QUERY.read(head(1) + record(RdataType.A, b"\1\2\3\4", name=name))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (RdataType.A, b"\1\2\3"),
        (RdataType.AAAA, bytes(15)),
        (RdataType.MX, b"\0\1\1a\0\0"),
        (RdataType.CNAME, b""),
    ],
)
def test_record_whose_length_does_not_fit_its_type_is_refused(kind: RdataType, data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        QUERY.read(head(1) + record(kind, data))
