"""Packets of a hostile nameserver: an answer to our question, none, or a malformed one; no more."""

import re
import struct

import dns.flags
import dns.message
import dns.rrset
from dns.rdatatype import RdataType

from relay.net.dns_message import RECORDS_READ, MalformedPacket, Query, Question, Response
from tests.fuzz.campaign import Target
from tests.fuzz.source import Source

_NAME = re.compile(r"(?:[a-z0-9_\-.]|\\\d{3})*")
_KINDS = (RdataType.MX, RdataType.A, RdataType.AAAA, RdataType.TXT, RdataType.TLSA)
_TLSA = re.compile(r"\d{1,3} \d{1,3} \d{1,3} ([0-9a-f]{2})*")
_TYPES = (1, 2, 5, 6, 12, 15, 16, 28, 33, 39, 41, 43, 46, 47, 48, 50, 52, 64, 250, 255, 257)
#: Pieces of names: labels, pointers back, forward and to themselves, lengths that lie.
_PIECES = (
    b"\x04shop\x04test\0",
    b"\xc0\x0c",
    b"\xc0\x00",
    b"\xc0\x10",
    b"\xc0\xff",
    b"\xff\xff",
    b"\x3f" + b"x" * 63,
    b"\x40",
    b"\x80",
    b"\0",
    b"\x01.",
    b"\x03a\0b",
    b"\x02mx\xc0\x0c",
)
_ZONE = {
    RdataType.MX: ("10 mx1.shop.test.", "20 mx2.shop.test.", "0 ."),
    RdataType.A: ("192.0.2.1", "192.0.2.2"),
    RdataType.AAAA: ("2001:db8::1",),
    RdataType.TXT: ('"v=STSv1; " "id=1"', '"\\000\\255"'),
    RdataType.TLSA: ("3 1 1 " + "ab" * 32, "2 0 0 00"),
}


class DnsReaderTarget(Target):
    name = "dns-reader"

    def open(self) -> None:
        self._questions = {kind: Question("shop.test", kind) for kind in _KINDS}
        self._answers = {kind: _answers(kind) for kind in _KINDS}

    def check(self, source: Source) -> None:
        kind = source.one(_KINDS)
        query = Query(self._questions[kind], source.below(65536), edns=source.chance(0.5))
        packet = self._packet(source, query, kind)
        try:
            response = query.read(packet)
        except MalformedPacket as error:
            assert packet[:2] == query.wire[:2]
            assert str(error).isprintable()
            return
        if response is not None:
            assert packet[:2] == query.wire[:2] and packet[2] & 0x80
            _check_response(response)

    def _packet(self, source: Source, query: Query, kind: RdataType) -> bytes:
        way = source.random()
        head = query.wire[:2]
        if way < 0.5:
            packet = head + source.one(self._answers[kind])[2:]
        elif way < 0.9:
            packet = head + _forged(source, kind)
        else:
            return source.octets(600)
        if source.chance(0.7):
            # The head is spared as often as not: else most packets are passed over at once.
            spared = source.one((0, 12, 29))
            packet = packet[:spared] + source.mutated(packet[spared:], _PIECES)
        return packet


def _answers(kind: RdataType) -> list[bytes]:
    """Honest answers: found, by aliases, nothing, no such name, refused, a referral, truncated."""
    query = dns.message.make_query("shop.test", kind, id=0, use_edns=False)
    found = dns.rrset.from_text("shop.test.", 300, "IN", kind, *_ZONE[kind])
    alias = dns.rrset.from_text("shop.test.", 60, "IN", "CNAME", "a.shop.test.")
    behind = dns.rrset.from_text("a.shop.test.", 300, "IN", kind, *_ZONE[kind])
    soa = dns.rrset.from_text("test.", 60, "IN", "SOA", "ns.test. root.test. 1 2 3 4 5")
    ns = dns.rrset.from_text("test.", 60, "IN", "NS", "ns1.test.", "ns2.test.")
    cases = [([found], [], 0), ([alias, behind], [], 0), ([], [soa], 0), ([], [soa], 3)]
    cases += [([], [], 2), ([], [], 5), ([], [ns], 0), ([found], [ns], 0)]
    packets = []
    for answer, authority, rcode in cases:
        response = dns.message.make_response(query)
        response.answer, response.authority = answer, authority
        response.set_rcode(rcode)
        packets.append(response.to_wire())
    response.flags |= dns.flags.TC
    return [*packets, response.to_wire()]


def _forged(source: Source, kind: RdataType) -> bytes:
    """A packet put together by hand: counts, names, types and lengths that need not agree."""
    flags = 0x8180 | (source.below(16) if source.chance(0.2) else 0)
    records = [_record(source, kind) for _ in range(source.size(20))]
    counts = [len(records), 0, 0]
    if source.chance(0.3):
        counts = [source.below(len(records) + 1) for _ in range(3)]
    if source.chance(0.02):
        counts[source.below(3)] = source.below(65536)
    if source.chance(0.005):
        records *= source.below(200)
    head = struct.pack("!HHHHH", flags, 1, *counts)
    asked = b"\x04shop\x04test\0" + struct.pack("!HH", kind, 1)
    return head + asked + b"".join(records)


def _record(source: Source, kind: RdataType) -> bytes:
    name = b"\xc0\x0c" if source.chance(0.6) else _name(source)
    number = int(kind) if source.chance(0.5) else source.one(_TYPES)
    if number == RdataType.MX:
        data = struct.pack("!H", source.below(65536)) + _name(source)
    elif number in (RdataType.CNAME, RdataType.NS):
        data = _name(source)
    elif number == RdataType.SOA:
        data = _name(source) + _name(source) + source.randbytes(20)
    elif number in (RdataType.A, RdataType.AAAA):
        data = source.randbytes(4 if number == RdataType.A else 16)
    else:
        data = source.octets(40)
    length = len(data) if source.chance(0.95) else source.below(300)
    in_class = 1 if source.chance(0.95) else source.below(65536)
    ttl = source.one((0, 60, 0x7FFFFFFF, 0xFFFFFFFF))
    return name + struct.pack("!HHIH", number, in_class, ttl, length) + data


def _name(source: Source) -> bytes:
    return b"".join(source.one(_PIECES) for _ in range(1 + source.below(3)))


def _check_response(response: Response) -> None:
    assert len(response.records) <= RECORDS_READ
    assert not (response.truncated and response.records)
    assert response.negative_ttl_s is None or 0 <= response.negative_ttl_s < 2**32
    for record in response.records:
        assert 0 <= record.ttl_s < 2**31
        assert 0 <= record.preference < 2**16
        assert _NAME.fullmatch(record.name) and len(record.name) < 1100
        assert record.type in _KINDS or record.type == RdataType.CNAME
        if record.type == RdataType.TLSA:
            assert _TLSA.fullmatch(record.data)
        elif record.type == RdataType.TXT:
            assert len(record.data) < 65536
        elif record.type not in (RdataType.A, RdataType.AAAA):
            assert _NAME.fullmatch(record.data) and len(record.data) < 1100
