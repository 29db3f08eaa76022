"""DNS messages as octets (RFC 1035 §4): one question in, one answer out, EDNS(0) sizes honoured.

Written for speed, because the simulated internet shares a machine with what it measures; the tests
read every answer with dnspython. It deliberately knows no other opcode than QUERY.
"""

import struct

import msgspec

from relay.sim.zone import (
    NOERROR,
    NOTIMP,
    NS,
    NXDOMAIN,
    SOA,
    TTL_S,
    Answer,
    Manner,
    Record,
    wire_name,
)

_HEADER = struct.Struct("!6H")
_FIXED = struct.Struct("!HHIH")
_OPT = 41
_AUTHORITATIVE = 0x0400
_AUTHENTIC = 0x0020
_QUERY_OPCODE_MASK = 0x7800
#: RFC 6891: what we say we take, and the least that a requester without EDNS takes.
EDNS_OCTETS = 1232
CLASSIC_OCTETS = 512


class Question(msgspec.Struct, frozen=True):
    """A question as it came: `section` are its octets, `octets` the largest UDP answer."""

    id: int
    flags: int
    name: str
    kind: int
    section: bytes
    octets: int
    edns: bool


def parse_question(message: bytes) -> Question | None:
    """The question of a message; None for what does not deserve an answer."""
    if len(message) < 12:
        return None
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(message)
    if flags & 0x8000 or questions != 1:
        return None
    labels: list[str] = []
    at = 12
    try:
        while length := message[at]:
            if length > 63:
                return None
            labels.append(message[at + 1 : at + 1 + length].decode("ascii"))
            at += 1 + length
        kind = int.from_bytes(message[at + 1 : at + 3], "big")
    except (IndexError, UnicodeDecodeError):
        return None
    end = at + 5
    octets, edns = CLASSIC_OCTETS, False
    if additional and not answers and not authorities and message[end : end + 3] == b"\0\0\x29":
        octets = max(CLASSIC_OCTETS, int.from_bytes(message[end + 3 : end + 5], "big"))
        edns = True
    return Question(number, flags, ".".join(labels), kind, message[12:end], octets, edns)


def _owner(record: Record, question: Question) -> bytes:
    if record.owner == question.name.lower().rstrip("."):
        return b"\xc0\x0c"  # a pointer to the name in the question
    return wire_name(record.owner)


def _record(owner: bytes, kind: int, rdata: bytes) -> bytes:
    return owner + _FIXED.pack(kind, 1, TTL_S, len(rdata)) + rdata


def _start_of_authority(question: Question) -> bytes:
    """The SOA that lets a resolver keep "no such data" (RFC 2308)."""
    zone = question.name.rpartition(".")[2] or "test"
    numbers = struct.pack("!5I", 1, 3600, 600, 86400, TTL_S)
    return _record(
        wire_name(zone), SOA, wire_name(f"ns.{zone}") + wire_name(f"root.{zone}") + numbers
    )


def _referral(question: Question) -> bytes:
    """The name server of the zone above, as one says that has no answer of its own."""
    zone = question.name.rpartition(".")[2] or "test"
    return _record(wire_name(zone), NS, wire_name(f"ns.elsewhere.{zone}"))


def build_answer(question: Question, answer: Answer, *, over_udp: bool) -> bytes:
    """The response; over UDP one that is too large has no records and the TC bit."""
    flags = 0x8000 | _AUTHORITATIVE | 0x0080 | (question.flags & 0x0100)
    if answer.authentic:
        flags |= question.flags & _AUTHENTIC
    if question.flags & _QUERY_OPCODE_MASK:
        answer = Answer(NOTIMP)
    code, records = answer.code, answer.records
    option = b"\0" + _FIXED.pack(_OPT, EDNS_OCTETS, 0, 0) if question.edns else b""
    body = [_record(_owner(record, question), record.type, record.rdata) for record in records]
    authority = b""
    if answer.manner is Manner.REFERRAL:
        authority = _referral(question)
        flags &= ~_AUTHORITATIVE
    elif code in (NOERROR, NXDOMAIN) and not any(r.type == question.kind for r in records):
        authority = _start_of_authority(question)
    size = 12 + len(question.section) + sum(map(len, body)) + len(authority) + len(option)
    if answer.manner is Manner.GARBAGE:
        body, authority = [b"\xff" * 7], b""
    is_cut = answer.manner in (Manner.TRUNCATED, Manner.NO_TCP)
    if over_udp and (is_cut or size > question.octets):
        body, authority, flags = [], b"", flags | 0x0200
    number = question.id ^ 0x5555 if answer.manner is Manner.WRONG_ID else question.id
    header = _HEADER.pack(
        number, flags | code, 1, len(body), 1 if authority else 0, 1 if option else 0
    )
    return b"".join((header, question.section, *body, authority, option))
