"""One DNS question and its answer; dnspython builds the one and reads the other.

What this file adds to dnspython: the octets that all queries of a type share are composed once,
only what a look-up needs is read, and names come out in one text form.

Rules of this file: the packet is hostile. Whatever dnspython refuses is a MalformedPacket; no more
records are read than any honest zone has; no record makes Python look for a module. A name that
could not be a host name is kept in escaped form, so that it never compares equal to an honest one.
"""

import re
import struct
from collections.abc import Iterator
from functools import cache

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import msgspec
from dns.name import Name
from dns.rcode import Rcode
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.ANY.TLSA import TLSA
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rrset import RRset

#: Records of one answer that are read: a chain of 16 aliases and the 100 that the resolver keeps.
#: One of the longest names costs dnspython 3 ms, and an answer by TCP has room for thousands.
RECORDS_READ = 120
#: Records of the authority section that are read: an SOA stands alone, a zone has up to 13 NS.
AUTHORITIES_READ = 16
#: EDNS buffer size (RFC 9715: avoids fragments).
UDP_PAYLOAD_OCTETS = 1232

_HEADER = struct.Struct("!HHHHHH")
_HOST_NAME = re.compile(rb"[a-z0-9_\-.]*")

# dnspython looks for the module of a type when it first meets one: that is now, not in an answer.
dns.rdata.load_all_types()  # type: ignore[no-untyped-call]


class MalformedPacket(ValueError):
    """Raised when a packet is not a DNS message that dnspython can read."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of the answer: `data` is a host name (MX, CNAME), an address in text form, a text,
    its strings put together (TXT), or numbers and octets in hexadecimal (TLSA)."""

    name: str
    type: RdataType
    ttl_s: int
    data: str
    preference: int = 0


class Response(msgspec.Struct, frozen=True):
    """What a nameserver answered; `negative_ttl_s` is that of the SOA (RFC 2308 §5) or None.

    `authentic`: it says that DNSSEC vouches for the answer (AD): as true as we trust it.
    """

    rcode: Rcode
    truncated: bool
    records: tuple[Record, ...] = ()
    negative_ttl_s: int | None = None
    is_referral: bool = False
    authentic: bool = False


class Question:
    """What is asked: the records of a type under a name of A-labels; ValueError for no name."""

    def __init__(self, name: str, kind: RdataType) -> None:
        try:
            self.name = dns.name.from_text(name)
        except dns.exception.DNSException as error:
            raise ValueError(f"'{name[:80]}' is not a domain name: {error}") from None
        self.kind = kind


class Query:
    """A question under one id: `wire` goes to a nameserver, `read` takes what comes back."""

    def __init__(self, question: Question, query_id: int, *, edns: bool) -> None:
        before, after = _around_the_name(question.kind, edns=edns)
        self.wire = query_id.to_bytes(2, "big") + before + question.name.to_digestable() + after
        self._message = dns.message.make_query(question.name, question.kind, id=query_id)

    def read(self, packet: bytes) -> Response | None:
        """The answer; None where the packet is none to this query (RFC 5452 §9.1).

        MalformedPacket where it repeats the question and cannot be read otherwise.
        """
        wanted = _cut_short(packet)
        try:
            message = dns.message.from_wire(wanted, ignore_trailing=True)
        except Exception as error:  # mostly a DNSException; nothing promises that it always is
            if not self._is_repeated_by(wanted):
                return None
            raise MalformedPacket(" ".join(str(error).split())) from error
        return _response_of(message) if self._message.is_response(message) else None

    def _is_repeated_by(self, packet: bytes) -> bool:
        try:
            head = dns.message.from_wire(packet, question_only=True)
        except Exception:
            return False
        return self._message.is_response(head)


@cache
def _around_the_name(kind: RdataType, *, edns: bool) -> tuple[bytes, bytes]:
    """The octets of a query between id and name, and those after the name."""
    # AD in a query asks for it in the answer (RFC 6840 §5.7), without the signatures.
    query = dns.message.make_query(
        dns.name.root,
        kind,
        use_edns=0 if edns else False,
        payload=UDP_PAYLOAD_OCTETS,
        flags=dns.flags.RD | dns.flags.AD,
    )
    wire = query.to_wire()
    return wire[2:12], wire[13:]


def _cut_short(packet: bytes) -> bytes:
    """The packet with the counts of its header lowered to what is to be read of it.

    dnspython reads as many records as the header counts. Nobody needs the additional section,
    nor the records of a truncated answer, nor more than any honest zone has.
    """
    if len(packet) < _HEADER.size:
        return packet
    query_id, flags, questions, answers, authorities, _ = _HEADER.unpack_from(packet)
    if flags & dns.flags.TC:
        answers = authorities = 0
    elif answers > RECORDS_READ:
        answers, authorities = RECORDS_READ, 0
    counts = (min(questions, 2), answers, min(authorities, AUTHORITIES_READ), 0)
    return _HEADER.pack(query_id, flags, *counts) + packet[_HEADER.size :]


def _response_of(message: dns.message.Message) -> Response:
    records = tuple(
        record
        for rrset in message.answer
        if rrset.rdclass == RdataClass.IN
        for record in _records_of(rrset)
    )
    negative_ttl_s, has_ns = None, False
    for rrset in message.authority:
        for rdata in rrset:
            if isinstance(rdata, SOA):
                negative_ttl_s = min(rrset.ttl, rdata.minimum)
        has_ns = has_ns or rrset.rdtype == RdataType.NS
    return Response(
        rcode=message.rcode(),
        truncated=bool(message.flags & dns.flags.TC),
        records=records,
        negative_ttl_s=negative_ttl_s,
        is_referral=has_ns and negative_ttl_s is None and not records,
        authentic=bool(message.flags & dns.flags.AD),
    )


def _records_of(rrset: RRset) -> Iterator[Record]:
    name, kind, ttl_s = text_of(rrset.name), rrset.rdtype, int(rrset.ttl)
    for rdata in rrset:
        if isinstance(rdata, MX):
            yield Record(name, kind, ttl_s, text_of(rdata.exchange), rdata.preference)
        elif isinstance(rdata, A | AAAA):
            yield Record(name, kind, ttl_s, rdata.address)
        elif isinstance(rdata, CNAME):
            yield Record(name, kind, ttl_s, text_of(rdata.target))
        elif isinstance(rdata, TXT):
            text = b"".join(rdata.strings).decode("utf-8", "replace")
            yield Record(name, kind, ttl_s, text)
        elif isinstance(rdata, TLSA):
            octets = bytes(rdata.cert).hex()
            text = f"{rdata.usage} {rdata.selector} {rdata.mtype} {octets}"
            yield Record(name, kind, ttl_s, text)


def text_of(name: Name) -> str:
    """The name in lower case without the last dot; a label of no host name as RFC 1035 §5.1."""
    labels = name.labels[:-1]
    text = b".".join(labels).lower()
    if _HOST_NAME.fullmatch(text) and text.count(b".") == max(len(labels) - 1, 0):
        return text.decode("ascii")
    return ".".join(map(_escaped, labels))


def _escaped(label: bytes) -> str:
    # dnspython's own form leaves the dot in it: r"x\.example.com" would end in ".example.com".
    return "".join(
        chr(octet) if _HOST_NAME.fullmatch(bytes((octet,))) and octet != 0x2E else f"\\{octet:03d}"
        for octet in label.lower()
    )
