"""The zone: what DNS says for every name, as a function of the name, with overrides.

Groups reproduce how real receivers publish their hosts, under their real names and under `.test`:
many domains on one set of hosts (`*.gsuite.test`, `*.hosted.test`), many sites of one provider
(`*.m365.test`), several hosts of equal preference (`yahoo.test`). Keywords win over groups.
"""

import re
from collections.abc import Callable, Sequence
from enum import Enum

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import msgspec

from relay.sim.keywords import domain_keywords
from relay.sim.policy_host import MODES as POLICY_MODES

#: Seconds for which an answer may be kept; short, so that overrides show soon.
TTL_S = 60

NOERROR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 2, 3, 4
A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, TLSA = 1, 2, 5, 6, 12, 15, 16, 28, 52
#: Domain keywords of zones that are signed.
_SIGNED = {"dane", "danewrong", "danefail"}
_ALIAS_TARGET = "mx-target"


class Record(msgspec.Struct, frozen=True):
    """One resource record: owner, type, RDATA as on the wire (names uncompressed)."""

    owner: str
    type: int
    rdata: bytes


class Manner(Enum):
    """How an answer is given; `dns` carries it out."""

    WHOLE = "as it is"
    TRUNCATED = "whole by TCP only"
    NO_TCP = "truncated by UDP, and a TCP connection is closed without an answer"
    SILENT = "not at all"
    REFERRAL = "as of a lame server: no records, no authority, other servers are named"
    GARBAGE = "the question is repeated, what follows cannot be read"
    WRONG_ID = "under another id than that of the question"


class Answer(msgspec.Struct, frozen=True):
    """What to answer: code, records, after what delay, and in which manner.

    `authentic`: DNSSEC vouches for it, which who asks is told (AD).
    """

    code: int = NOERROR
    records: tuple[Record, ...] = ()
    delay_s: float = 0.0
    manner: Manner = Manner.WHOLE
    authentic: bool = False


class Override(msgspec.Struct, frozen=True):
    """What was set for a name and type: presentation-format values, or a response code."""

    values: tuple[str, ...] = ()
    code: int = NOERROR


def wire_name(name: str) -> bytes:
    """A domain name as length-prefixed labels; ValueError for one that DNS cannot hold."""
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".") if label]
    if any(len(label) > 63 for label in labels):
        raise ValueError(f"{name!r} has a label over 63 octets")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _mx(owner: str, preference: int, host: str) -> Record:
    return Record(owner, MX, preference.to_bytes(2, "big") + wire_name(host))


def _dashed(domain: str) -> str:
    return domain.replace(".", "-")


_Hosts = tuple[tuple[int, str], ...]


def _gmail(_domain: str, top: str) -> _Hosts:
    base = f"gmail-smtp-in.l.google.{top}"
    return ((5, base), *((10 * n, f"alt{n}.{base}") for n in range(1, 5)))


def _gsuite(_domain: str, top: str) -> _Hosts:
    base = f"aspmx.l.google.{top}"
    return ((1, base), *(((n + 1) // 2 * 5, f"alt{n}.{base}") for n in range(1, 5)))


def _outlook(domain: str, top: str) -> _Hosts:
    return ((2, f"{_dashed(domain)}.olc.protection.outlook.{top}"),)


def _m365(domain: str, top: str) -> _Hosts:
    return ((0, f"{_dashed(domain)}.mail.protection.outlook.{top}"),)


def _yahoo(_domain: str, top: str) -> _Hosts:
    top = "net" if top == "com" else top
    return tuple((1, f"mta{n}.am0.yahoodns.{top}") for n in (5, 6, 7))


def _icloud(_domain: str, top: str) -> _Hosts:
    return tuple((10, f"mx0{n}.mail.icloud.{top}") for n in (1, 2))


def _hosted(_domain: str, top: str) -> _Hosts:
    return ((10, f"mx1.hosting.{top}"), (20, f"mx2.hosting.{top}"))


#: Domain keyword -> how DNS answers for it.
_MANNERS = {
    "dnstimeout": Manner.SILENT,
    "truncate": Manner.TRUNCATED,
    "notcp": Manner.NO_TCP,
    "lamedns": Manner.REFERRAL,
    "garbagedns": Manner.GARBAGE,
    "wrongid": Manner.WRONG_ID,
}

#: Pattern of the domains of a group -> their MX hosts (domain, top-level domain).
GROUPS: tuple[tuple[re.Pattern[str], Callable[[str, str], _Hosts]], ...] = (
    (re.compile(r"(?:gmail|googlemail)\.(com|test)"), _gmail),
    (re.compile(r".+\.gsuite\.(test)"), _gsuite),
    (re.compile(r"(?:outlook|hotmail|live|msn)\.(com|test)"), _outlook),
    (re.compile(r".+\.m365\.(test)"), _m365),
    (re.compile(r"(?:yahoo|ymail|aol)\.(com|test)"), _yahoo),
    (re.compile(r"(?:icloud|me|mac)\.(com|test)"), _icloud),
    (re.compile(r".+\.hosted\.(test)"), _hosted),
)


def mx_hosts(domain: str) -> _Hosts:
    """The MX hosts of a domain with their preferences; the domain itself where MX is implicit."""
    words = domain_keywords(domain)
    if not words:
        for pattern, hosts in GROUPS:
            if match := pattern.fullmatch(domain):
                return hosts(domain, match[1])
    if "nullmx" in words:
        return ((0, "."),)
    if "nomx" in words:
        return ((0, domain),)
    if "mxip" in words:
        return ((10, "127.0.0.1"),)
    count = 1 if "onemx" in words else int(words.get("manymx") or 2)
    return tuple((10 * n, f"mx{n}.{domain}") for n in range(1, count + 1))


class Zone:
    """Answers for all names; `address_of` is given by the pool that binds the addresses."""

    def __init__(self) -> None:
        self.address_of: Callable[[str], str | None] = lambda _host: None
        self.name_at: Callable[[str], str | None] = lambda _address: None
        #: Where `mta-sts.<domain>` is, of domains with a policy; empty: nowhere.
        self.policy_address = ""
        #: SHA-256 of the key that all hosts have.
        self.key_digest = bytes(32)
        self._overrides: dict[tuple[str, int], Override] = {}
        self._has_wildcards = False
        self._asked: dict[tuple[str, int], int] = {}

    def clear(self) -> None:
        """Forget overrides and counted questions."""
        self._overrides.clear()
        self._has_wildcards = False
        self._asked.clear()

    def override(self, name: str, kind: str, values: Sequence[str], code: str = "NOERROR") -> None:
        """Answer with these values (zone-file format) or this code; ValueError if malformed.

        `*.shop.test` stands for every name below shop.test for which nothing of this type was set;
        of several the nearest counts.
        """
        codes = {"NOERROR": NOERROR, "SERVFAIL": SERVFAIL, "NXDOMAIN": NXDOMAIN}
        if code.upper() not in codes:
            raise ValueError(f"unknown response code {code!r}; one of {', '.join(codes)}")
        owner = name.lower().rstrip(".")
        try:
            number = int(dns.rdatatype.from_text(kind))
            for value in values:
                _rdata(number, value)
        except (dns.exception.DNSException, ValueError) as error:
            raise ValueError(f"{kind} {list(values)} for {name}: {error}") from None
        self._overrides[owner, number] = Override(tuple(values), codes[code.upper()])
        self._has_wildcards = self._has_wildcards or owner.startswith("*.")

    def hosts_of(self, pattern: str) -> frozenset[str]:
        """The MX hosts of a domain or of what a pattern's `*` may stand for."""
        name = pattern.replace("*", "x").rstrip(".")
        override = self._override_for(name, MX)
        if override is not None:
            return frozenset(value.split()[-1].rstrip(".").lower() for value in override.values)
        return frozenset(host for _, host in mx_hosts(name))

    def lookup(self, name: str, kind: int) -> Answer:
        """What to answer to one question; the name may be in any case."""
        name = name.lower().rstrip(".")
        words = domain_keywords(name)
        answer = self._lookup(name, kind, words)
        if _SIGNED.isdisjoint(words):
            return answer
        return msgspec.structs.replace(answer, authentic=True)

    def _lookup(self, name: str, kind: int, words: dict[str, float | None]) -> Answer:
        if override := self._override_for(name, kind):
            records = tuple(Record(name, kind, _rdata(kind, text)) for text in override.values)
            return Answer(override.code, records)
        if (alias := self._override_for(name, CNAME)) is not None:
            target = alias.values[0].rstrip(".")
            chain = Record(name, CNAME, wire_name(target))
            return Answer(NOERROR, (chain, *self.lookup(target, kind).records))
        if not words:
            return Answer(*self._ordinary(name, kind))
        return self._scripted(name, kind, words)

    def _override_for(self, name: str, kind: int) -> Override | None:
        """What was set for the name, or for the nearest `*` above it."""
        found = self._overrides.get((name, kind))
        if found is None and self._has_wildcards:
            while found is None and (name := name.partition(".")[2]):
                found = self._overrides.get((f"*.{name}", kind))
        return found

    def _scripted(self, name: str, kind: int, words: dict[str, float | None]) -> Answer:
        delay_s = words.get("slowdns") or 0.0
        manner = self._manner(name, kind, words)
        if manner in (Manner.SILENT, Manner.REFERRAL):
            return Answer(delay_s=delay_s, manner=manner)
        if "servfail" in words and self._is_early(name, kind, words["servfail"]):
            return Answer(SERVFAIL, delay_s=delay_s)
        if "nxdomain" in words or ("flapdns" in words and self._ask(name, kind) % 2 == 0):
            return Answer(NXDOMAIN, delay_s=delay_s)
        is_host = name.startswith("mx") and name.partition(".")[0][2:].isdigit()
        is_alias = not is_host and not name.startswith(_ALIAS_TARGET)
        if "cnameloop" in words and is_alias:
            other = name[6:] if name.startswith("other.") else f"other.{name}"
            return Answer(NOERROR, (Record(name, CNAME, wire_name(other)),), delay_s, manner)
        if "cname" in words and is_alias:
            target = f"{_ALIAS_TARGET}.{name}"
            code, records = self._ordinary(target, kind)
            chain = Record(name, CNAME, wire_name(target))
            return Answer(code, (chain, *records), delay_s, manner)
        if "noaddress" in words and is_host:
            return Answer(NXDOMAIN, delay_s=delay_s)
        code, records = self._ordinary(name, kind)
        return Answer(code, records, delay_s, manner)

    def _manner(self, name: str, kind: int, words: dict[str, float | None]) -> Manner:
        word = next((word for word in _MANNERS if word in words), "")
        if word and self._is_early(name, kind, words[word]):
            return _MANNERS[word]
        return Manner.WHOLE

    def _is_early(self, name: str, kind: int, first: float | None) -> bool:
        """Whether this question is among the first n of its type; without n all are."""
        return first is None or self._ask(name, kind) <= first

    def _ask(self, name: str, kind: int) -> int:
        """Count a question; how often it was asked."""
        asked = self._asked[name, kind] = self._asked.get((name, kind), 0) + 1
        return asked

    def _ordinary(self, name: str, kind: int) -> tuple[int, tuple[Record, ...]]:
        if kind == PTR:
            return self._reverse(name)
        if name.startswith("_mta-sts.") and self._has_policy(name):
            text = b"v=STSv1; id=20260101000000;"
            return NOERROR, (Record(name, TXT, bytes([len(text)]) + text),) if kind == TXT else ()
        if kind == TLSA and "._tcp." in name and (found := self._tlsa(name)) is not None:
            return found
        if name.startswith("_"):  # policies (MTA-STS, DMARC, TLSRPT) and TLSA: nobody has any
            return NXDOMAIN, ()
        if kind == MX:
            return NOERROR, self._mx(name)
        if kind == A:
            return NOERROR, self._a(name)
        if kind == AAAA and domain_keywords(name).keys() & {"deadv6", "ipv6only"}:
            self.address_of(name)
            return NOERROR, (Record(name, AAAA, bytes(15) + b"\x01"),)
        if kind == TXT:
            text = b"v=spf1 ip4:127.0.0.0/8 ip6:::1 -all"
            return NOERROR, (Record(name, TXT, bytes([len(text)]) + text),)
        return NOERROR, ()

    def _mx(self, name: str) -> tuple[Record, ...]:
        if "nomx" in domain_keywords(name):
            return ()
        return tuple(_mx(name, preference, host) for preference, host in mx_hosts(name))

    def _a(self, name: str) -> tuple[Record, ...]:
        words = domain_keywords(name)
        if "ipv6only" in words:
            return ()
        if "mxprivate" in words:
            return (Record(name, A, bytes((10, 0, 0, 1))),)
        is_policy_host = name.startswith("mta-sts.") and self._has_policy(name)
        address = self.policy_address if is_policy_host else self.address_of(name)
        if address is None:
            return ()
        return (Record(name, A, bytes(map(int, address.split(".")))),)

    def _tlsa(self, name: str) -> tuple[int, tuple[Record, ...]] | None:
        """DANE-EE(3) SPKI(1) SHA-256(1), as RFC 7672 §3.1 recommends; None: the name has none."""
        words = domain_keywords(name)
        if "danefail" in words:
            return SERVFAIL, ()
        if _SIGNED.isdisjoint(words):
            return None
        digest = bytes(32) if "danewrong" in words else self.key_digest
        return NOERROR, (Record(name, TLSA, bytes((3, 1, 1)) + digest),)

    def _has_policy(self, name: str) -> bool:
        return bool(self.policy_address) and not POLICY_MODES.keys().isdisjoint(
            domain_keywords(name)
        )

    def _reverse(self, name: str) -> tuple[int, tuple[Record, ...]]:
        parts = name.removesuffix(".in-addr.arpa").split(".")
        host = self.name_at(".".join(reversed(parts)))
        if host is None:
            return NXDOMAIN, ()
        return NOERROR, (Record(name, PTR, wire_name(host)),)


def _rdata(kind: int, text: str) -> bytes:
    """RDATA of a value in zone-file format; relative names are taken as absolute."""
    rdata = dns.rdata.from_text(
        dns.rdataclass.IN,
        dns.rdatatype.RdataType(kind),
        text,
        origin=dns.name.root,
        relativize=False,
    )
    return rdata.to_wire() or b""
