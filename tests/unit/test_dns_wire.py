"""The packet reader says what dnspython says, and survives what no honest server sends."""

import struct

import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.net.dns_wire import (
    MalformedPacket,
    RecordType,
    Response,
    answers_question,
    decode_response,
    encode_name,
    encode_query,
    encode_question,
)

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
TTL = st.integers(0, 2**31 - 1)


def response_to(name: str, kind: str) -> dns.message.Message:
    return dns.message.make_response(dns.message.make_query(f"{name}.", kind))


@given(name=NAME, kind=st.sampled_from(list(RecordType)), query_id=st.integers(0, 65535))
def test_query_is_what_dnspython_reads(name: str, kind: RecordType, query_id: int) -> None:
    query = dns.message.from_wire(encode_query(query_id, encode_question(name, kind), edns=True))
    assert query.id == query_id
    assert query.question[0].name.to_text(omit_final_dot=True) == name
    assert query.question[0].rdtype == kind
    assert (query.edns, query.payload) == (0, 1232)
    assert query.flags & 0x0100
    plain = dns.message.from_wire(encode_query(1, encode_question(name, kind), edns=False))
    assert plain.edns == -1


@given(name=NAME, hosts=st.lists(st.tuples(st.integers(0, 65535), NAME), min_size=1), ttl=TTL)
def test_mx_answer_is_read_as_dnspython_wrote_it(
    name: str, hosts: list[tuple[int, str]], ttl: int
) -> None:
    message = response_to(name, "MX")
    texts = [f"{preference} {host}." for preference, host in hosts]
    message.answer.append(dns.rrset.from_text_list(f"{name}.", ttl, "IN", "MX", texts))
    read = decode_response(message.to_wire())
    assert {(one.preference, one.data) for one in read.records} == set(hosts)
    assert {(one.name, one.ttl_s, one.type) for one in read.records} == {(name, ttl, 15)}


@given(name=NAME, v4=st.lists(st.ip_addresses(v=4)), v6=st.lists(st.ip_addresses(v=6)))
def test_addresses_and_aliases_are_read_as_dnspython_wrote_them(name, v4, v6) -> None:  # type: ignore[no-untyped-def]
    message = response_to(f"alias.{name}", "A")
    message.answer.append(dns.rrset.from_text(f"alias.{name}.", 60, "IN", "CNAME", f"{name}."))
    if v4:
        texts = [str(one) for one in v4]
        message.answer.append(dns.rrset.from_text_list(f"{name}.", 60, "IN", "A", texts))
    if v6:
        texts = [str(one) for one in v6]
        message.answer.append(dns.rrset.from_text_list(f"{name}.", 60, "IN", "AAAA", texts))
    read = decode_response(message.to_wire()).records
    assert (read[0].name, read[0].data) == (f"alias.{name}", name)
    assert {one.data for one in read[1:]} == {
        r.address for rrset in message.answer[1:] for r in rrset
    }


def test_negative_ttl_is_the_smaller_of_soa_ttl_and_minimum() -> None:
    message = response_to("nothing.test", "MX")
    message.authority.append(
        dns.rrset.from_text("test.", 900, "IN", "SOA", "ns.test. h.test. 1 2 3 4 77")
    )
    assert decode_response(message.to_wire()).negative_ttl_s == 77


def test_referral_is_told_from_an_answer_without_data() -> None:
    message = response_to("nothing.test", "MX")
    message.authority.append(dns.rrset.from_text("test.", 900, "IN", "NS", "ns.test."))
    assert decode_response(message.to_wire()).is_referral
    message.authority.append(
        dns.rrset.from_text("test.", 900, "IN", "SOA", "ns.test. h.test. 1 2 3 4 77")
    )
    assert not decode_response(message.to_wire()).is_referral


def test_name_that_is_no_host_name_is_kept_escaped() -> None:
    message = response_to("odd.test", "MX")
    message.answer.append(
        dns.rrset.from_text("odd.test.", 60, "IN", "MX", r"5 mx\.evil\124x\032y.test.")
    )
    assert decode_response(message.to_wire()).records[0].data == r"mx\046evil\124x\032y.test"


@given(packet=st.binary(max_size=400))
@example(packet=b"\0\0\x80\0\0\1\0\0\0\0\0\0\xc0\x0c")
def test_reader_ends_on_any_packet(packet: bytes) -> None:
    try:
        assert isinstance(decode_response(packet), Response)
    except MalformedPacket:
        pass


@given(cut=st.integers(0, 200), flip=st.integers(0, 200), value=st.integers(0, 255))
def test_reader_ends_on_damaged_answers(cut: int, flip: int, value: int) -> None:
    message = response_to("example.test", "MX")
    message.answer.append(
        dns.rrset.from_text("example.test.", 60, "IN", "MX", "1 a.example.test.", "2 b.test.")
    )
    wire = bytearray(message.to_wire())
    wire[flip % len(wire)] = value
    try:
        decode_response(bytes(wire[: max(len(wire) - cut, 0)]))
    except MalformedPacket:
        pass


@pytest.mark.parametrize(
    "name",
    [b"\xc0\x1e", b"\xc0\xff", b"\x40abc\0", b"\x3fabc", (b"\x3f" + b"a" * 63) * 5 + b"\0"],
    ids=["pointer to itself", "pointer forward", "label type", "cut short", "over 255 octets"],
)
def test_name_that_breaks_the_format_is_refused(name: bytes) -> None:
    head = struct.pack("!HHHHHH", 1, 0x8180, 1, 1, 0, 0)
    question = encode_question("example.test", RecordType.MX)
    packet = head + question + name + struct.pack("!HHIH", 1, 1, 60, 4) + b"\1\2\3\4"
    with pytest.raises(MalformedPacket):
        decode_response(packet)


@pytest.mark.parametrize("name", ["a..b", "a" * 64, ".".join(["a" * 60] * 5)])
def test_question_refuses_what_is_no_domain_name(name: str) -> None:
    with pytest.raises(ValueError, match="domain name"):
        encode_name(name)


def test_answer_must_repeat_the_question_in_any_case_of_letters() -> None:
    question = encode_question("example.test", RecordType.MX)
    right = response_to("EXAMPLE.test", "MX").to_wire()
    assert answers_question(right, question)
    assert not answers_question(response_to("example.test", "A").to_wire(), question)
    assert not answers_question(response_to("example2.test", "MX").to_wire(), question)
    assert not answers_question(right[:2] + b"\x01\x00" + right[4:], question)  # a query
    assert not answers_question(right[:11], question)


def test_bare_format_error_counts_as_an_answer() -> None:
    question = encode_question("example.test", RecordType.MX)
    assert answers_question(struct.pack("!HHHHHH", 1, 0x8181, 0, 0, 0, 0), question)
    assert not answers_question(struct.pack("!HHHHHH", 1, 0x8180, 0, 0, 0, 0), question)
