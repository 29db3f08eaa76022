"""DNS packets (RFC 1035 §4), only what an MX look-up needs: one question out, one answer in.

Pure functions. dnspython's general reader costs 150 us a packet, this one 5 us, and a cold
destination needs three packets; the tests hold this reader against dnspython's on every packet
they can think of.

Rules of this file: the packet is hostile. Pointers only lead backwards, no name exceeds 255
octets, no more records are read than any honest zone has, and whatever does not fit raises
MalformedPacket. A name that could not be a host name is kept in escaped form, so that it never
compares equal to an honest one.
"""

import re
import struct
from enum import IntEnum
from socket import AF_INET, AF_INET6, inet_ntop

import msgspec

#: Records of one answer that are read; an MX set of over 100 is cut further by the resolver.
RECORDS_READ = 1000
#: EDNS buffer size (RFC 9715: avoids fragments).
UDP_PAYLOAD_OCTETS = 1232

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_HOST_NAME = re.compile(rb"[a-z0-9_\-.]*")
_IN = 1


class RecordType(IntEnum):
    """The record types that are asked for."""

    A = 1
    MX = 15
    AAAA = 28


class Rcode(IntEnum):
    """The response codes that are told apart (RFC 1035 §4.1.1); others are plain numbers."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


CNAME = 5
_SOA, _NS, _OPT = 6, 2, 41


class MalformedPacket(ValueError):
    """Raised when a packet is not a DNS message that we can read."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of the answer: `data` is a host name (MX, CNAME) or an address in text form."""

    name: str
    type: int
    ttl_s: int
    data: str
    preference: int = 0


class Response(msgspec.Struct, frozen=True):
    """What a nameserver answered; `negative_ttl_s` is that of the SOA (RFC 2308 §5) or None."""

    rcode: int
    truncated: bool
    records: tuple[Record, ...]
    negative_ttl_s: int | None = None
    is_referral: bool = False


def encode_name(name: str) -> bytes:
    """The wire form of a name of A-labels; ValueError where it has none (RFC 1035 §3.1)."""
    if not name:
        return b"\0"
    wire = bytearray()
    for label in name.encode("ascii").split(b"."):
        if not 0 < len(label) <= 63:
            raise ValueError(f"{name!r} is not a domain name")
        wire.append(len(label))
        wire += label
    wire.append(0)
    if len(wire) > 255:
        raise ValueError(f"{name[:80]!r} is longer than a domain name may be")
    return bytes(wire)


def encode_question(name: str, record_type: int) -> bytes:
    """The question section for a name: what the answer must repeat."""
    return encode_name(name) + struct.pack("!HH", record_type, _IN)


def encode_query(query_id: int, question: bytes, *, edns: bool) -> bytes:
    """A recursive query with one question, with or without EDNS (RFC 6891)."""
    header = _HEADER.pack(query_id, 0x0100, 1, 0, 0, 1 if edns else 0)
    if not edns:
        return header + question
    return header + question + b"\0" + _RECORD.pack(_OPT, UDP_PAYLOAD_OCTETS, 0, 0)


def answers_question(packet: bytes, question: bytes) -> bool:
    """Whether a packet (whose id is already known to fit) answers the question (RFC 5452 §9.1).

    A nameserver that does not know EDNS may answer FORMERR or NOTIMP with its header alone.
    """
    if len(packet) < 12:
        return False
    _, flags, questions, _, _, _ = _HEADER.unpack_from(packet)
    if not flags & 0x8000 or flags & 0x7800:
        return False
    if questions == 0:
        return flags & 0xF in (Rcode.FORMERR, Rcode.NOTIMP)
    return questions == 1 and packet[12 : 12 + len(question)].lower() == question.lower()


def decode_response(packet: bytes) -> Response:
    """Read a response; MalformedPacket where it is cut short or breaks the format."""
    try:
        return _decode(packet)
    except (struct.error, IndexError) as error:
        raise MalformedPacket("the packet ends inside a record") from error


def _decode(packet: bytes) -> Response:
    _, flags, questions, answers, authorities, _ = _HEADER.unpack_from(packet)
    position = 12
    for _ in range(questions):
        _, position = _read_name(packet, position)
        position += 4
    truncated = bool(flags & 0x0200)
    if truncated:
        return Response(flags & 0xF, truncated=True, records=())
    records = []
    for _ in range(min(answers, RECORDS_READ)):
        record, position = _read_record(packet, position)
        if record is not None:
            records.append(record)
    negative_ttl_s, has_ns = None, False
    if answers <= RECORDS_READ:
        negative_ttl_s, has_ns = _read_authority(packet, position, min(authorities, RECORDS_READ))
    return Response(
        rcode=flags & 0xF,
        truncated=False,
        records=tuple(records),
        negative_ttl_s=negative_ttl_s,
        is_referral=has_ns and negative_ttl_s is None and not records,
    )


def _read_record(packet: bytes, position: int) -> tuple[Record | None, int]:
    name, position = _read_name(packet, position)
    record_type, record_class, ttl_s, length = _RECORD.unpack_from(packet, position)
    position += 10
    end = position + length
    if end > len(packet):
        raise MalformedPacket("a record is longer than the packet")
    ttl_s = 0 if ttl_s >= 0x80000000 else ttl_s  # RFC 2181 §8
    if record_class != _IN:
        return None, end
    preference = 0
    if record_type == RecordType.A:
        _expect(length == 4)
        data = inet_ntop(AF_INET, packet[position:end])
    elif record_type == RecordType.AAAA:
        _expect(length == 16)
        data = inet_ntop(AF_INET6, packet[position:end])
    elif record_type == RecordType.MX:
        (preference,) = struct.unpack_from("!H", packet, position)
        data, after = _read_name(packet, position + 2)
        _expect(after == end)
    elif record_type == CNAME:
        data, after = _read_name(packet, position)
        _expect(after == end)
    else:
        return None, end
    return Record(name, record_type, ttl_s, data, preference), end


def _read_authority(packet: bytes, position: int, count: int) -> tuple[int | None, bool]:
    """The negative TTL of the SOA (None without SOA) and whether there are NS records."""
    negative_ttl_s, has_ns = None, False
    for _ in range(count):
        _, position = _read_name(packet, position)
        record_type, _, ttl_s, length = _RECORD.unpack_from(packet, position)
        position += 10 + length
        if position > len(packet):
            raise MalformedPacket("a record is longer than the packet")
        if record_type == _SOA:
            _expect(length >= 22)
            (minimum_s,) = struct.unpack_from("!I", packet, position - 4)
            negative_ttl_s = min(ttl_s, minimum_s)
        elif record_type == _NS:
            has_ns = True
    return negative_ttl_s, has_ns


def _read_name(packet: bytes, position: int) -> tuple[str, int]:
    """The name at a position, lower-case without the last dot, and the position after it."""
    labels: list[bytes] = []
    after = 0
    lowest = position
    octets = 1
    while length := packet[position]:
        if length < 64:
            position += 1
            label = packet[position : position + length]
            if len(label) != length:
                raise MalformedPacket("the packet ends inside a name")
            labels.append(label)
            position += length
            octets += 1 + length
            if octets > 255:
                raise MalformedPacket("a name has over 255 octets")
        elif length >= 192:
            target = (length & 63) << 8 | packet[position + 1]
            after = after or position + 2
            if target >= lowest:
                raise MalformedPacket("a compression pointer does not lead backwards")
            position = lowest = target
        else:
            raise MalformedPacket("a label has an unknown type")
    return _text_of(labels), after or position + 1


def _text_of(labels: list[bytes]) -> str:
    name = b".".join(labels).lower()
    if _HOST_NAME.fullmatch(name) and name.count(b".") == max(len(labels) - 1, 0):
        return name.decode("ascii")
    return ".".join(map(_escape, labels))


def _escape(label: bytes) -> str:
    """A label that is none of a host name, as RFC 1035 §5.1 writes it."""
    return "".join(
        chr(octet) if _HOST_NAME.fullmatch(bytes((octet,))) and octet != 0x2E else f"\\{octet:03d}"
        for octet in label.lower()
    )


def _expect(holds: bool) -> None:
    if not holds:
        raise MalformedPacket("a record's length does not fit its type")
