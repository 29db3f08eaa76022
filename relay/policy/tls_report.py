"""TLS reports: what is counted of a domain's day, and the report made of it (RFC 8460).

A day is one of UTC, `2026-11-21`. A result of a session is kept in text form, `field_of`, because
that is what the store counts by.
"""

import datetime
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from relay.model.address import normalize_domain, parse_address
from relay.model.errors import SubmissionRefused

#: Addresses and URLs of one domain that get its reports.
ENDPOINTS_KEPT = 5
#: Lines of a policy that a report repeats, and octets of one: a stranger wrote them.
POLICY_LINES, LINE_OCTETS = 64, 1024
#: Reports of a day are made so long after its end at the earliest, and over so long.
FIRST_REPORT_S, REPORTS_OVER_S = 300.0, 4 * 3600.0
#: The text form of a session that went well.
SUCCESS = "+"

_RECORD = re.compile(r"v=TLSRPTv1[ \t]*;")
_URL = re.compile(r"https://[!-~]{1,500}", re.IGNORECASE)
#: Result types (RFC 8460 §4.3) that no words of a failed handshake tell.
NO_STARTTLS = "starttls-not-supported"
VALIDATION_FAILURE = "validation-failure"
TLSA_INVALID, DNSSEC_INVALID = "tlsa-invalid", "dnssec-invalid"
DANE_REQUIRED = "dane-required"
STS_UNFETCHED = "sts-policy-fetch-error"
STS_INVALID = "sts-policy-invalid"
STS_UNTRUSTED = "sts-webpki-invalid"

#: What the words of a failure come to (RFC 8460 §4.3), the first that fits.
_RESULTS = (
    ("hostname mismatch", "certificate-host-mismatch"),
    ("is not for", "certificate-host-mismatch"),
    ("ip address mismatch", "certificate-host-mismatch"),
    ("has expired", "certificate-expired"),
    ("out of date", "certificate-expired"),
    ("certificate not accepted: no tlsa", VALIDATION_FAILURE),
    ("self-signed", "certificate-not-trusted"),
    ("self signed", "certificate-not-trusted"),
    ("local issuer", "certificate-not-trusted"),
    ("unable to verify the first certificate", "certificate-not-trusted"),
)


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """How a session failed: the result type, with whom, from where, and in which words."""

    result: str
    host: str = ""
    ip: str = ""
    source: str = ""
    reason: str = ""


class Policy(msgspec.Struct, frozen=True, array_like=True):
    """Which policy was applied: sts, tlsa or no-policy-found; its lines; the MX it admits.

    `domain`: where it is published, if that is not the recipient domain: of TLSA records the name
    that they are found under (RFC 8460 §1.1).
    """

    type: str = "no-policy-found"
    lines: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    domain: str = ""

    def cut(self) -> "Policy":
        """With as much of it as a report repeats."""
        lines = tuple(line for line in self.lines if len(line) <= LINE_OCTETS)
        return Policy(self.type, lines[:POLICY_LINES], self.hosts[:POLICY_LINES], self.domain)


class Tally(msgspec.Struct, frozen=True):
    """How the sessions that were held to one policy went: how many by text form."""

    policy: Policy
    counts: Mapping[str, int]


class Rua(msgspec.Struct, frozen=True):
    """Who wants a domain's reports: by mail, and by HTTPS."""

    addresses: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.addresses or self.urls)


_failures = msgspec.json.Decoder(Failure)


def field_of(failure: Failure) -> str:
    """The text form of a failed session."""
    return msgspec.json.encode(failure).decode()


def result_of(words: str) -> str:
    """The result type for what a failure of TLS was told as."""
    lower = words.lower()
    return next((result for text, result in _RESULTS if text in lower), VALIDATION_FAILURE)


def read_rua(texts: Iterable[str]) -> Rua:
    """Who wants reports, by the TXT records at `_smtp._tls` (§3).

    Nobody where there is not exactly one record; what we cannot serve is passed over.
    """
    records = [text for text in texts if _RECORD.match(text)]
    if len(records) != 1:
        return Rua()
    for field in records[0].split(";")[1:]:
        key, _, value = field.strip(" \t").partition("=")
        if key.strip() == "rua":
            uris = dict.fromkeys(uri.strip() for uri in value.split(","))
            served = [uri for uri in map(_served, uris) if uri][:ENDPOINTS_KEPT]
            is_url = [uri.startswith("https://") for uri in served]
            return Rua(
                tuple(uri for uri, url in zip(served, is_url, strict=True) if not url),
                tuple(uri for uri, url in zip(served, is_url, strict=True) if url),
            )
    return Rua()


def _served(uri: str) -> str:
    """An address, or a URL of https; empty: neither."""
    if uri.lower().startswith("mailto:"):
        return _address(uri[7:])
    return _url(uri) if _URL.fullmatch(uri) else ""


def _address(text: str) -> str:
    try:
        return str(parse_address(text.partition("?")[0]))
    except SubmissionRefused:
        return ""


def _url(text: str) -> str:
    """The URL of a host by name, without user or fragment; empty: it has another form."""
    try:
        parts = urlsplit(text)
        host, port = normalize_domain(parts.hostname or ""), parts.port
    except ValueError:
        return ""
    if "@" in parts.netloc or parts.fragment or port == 0:
        return ""
    where = host if port in (None, 443) else f"{host}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"https://{where}{parts.path or '/'}{query}"


def delay_of(domain: str) -> float:
    """Seconds after midnight at which the domain's report of the day before is made.

    Never at once, so that every worker has written its last counts; spread over four hours, so that
    nobody who receives for many domains gets all reports in the same minute (§4.1).
    """
    spread = int.from_bytes(hashlib.sha256(domain.encode()).digest()[:4], "big") / 2**32
    return FIRST_REPORT_S + spread * REPORTS_OVER_S


class _Kebab(msgspec.Struct, frozen=True, rename="kebab", kw_only=True):
    """An object of the report's JSON (§4.4)."""


class DateRange(_Kebab, frozen=True):
    """From when to when, RFC 3339."""

    start_datetime: str
    end_datetime: str


class PolicyDetails(_Kebab, frozen=True):
    """The policy that sessions were held to."""

    policy_type: str
    policy_string: tuple[str, ...]
    policy_domain: str
    mx_host: tuple[str, ...]


class Summary(_Kebab, frozen=True):
    """How many sessions went well, and how many did not."""

    total_successful_session_count: int
    total_failure_session_count: int


class FailureDetails(_Kebab, frozen=True, omit_defaults=True):
    """Sessions that failed alike; what is not known is left out."""

    result_type: str
    failed_session_count: int
    sending_mta_ip: str = ""
    receiving_mx_hostname: str = ""
    receiving_ip: str = ""
    failure_reason_code: str = ""


class PolicyReport(_Kebab, frozen=True):
    """One policy with what came of it."""

    policy: PolicyDetails
    summary: Summary
    failure_details: tuple[FailureDetails, ...]


class DomainReport(_Kebab, frozen=True):
    """What a domain is told of a day (RFC 8460 §4.4)."""

    organization_name: str
    date_range: DateRange
    contact_info: str
    report_id: str
    policies: tuple[PolicyReport, ...]


def make_report(
    domain: str,
    day: str,
    tallies: Sequence[Tally],
    *,
    organization: str,
    contact: str,
) -> DomainReport:
    """The report of what was counted of a day, by policy.

    Its id follows from domain and day: a report that is sent again is known again.
    """
    return DomainReport(
        organization_name=organization,
        date_range=DateRange(start_datetime=f"{day}T00:00:00Z", end_datetime=f"{day}T23:59:59Z"),
        contact_info=contact,
        report_id=f"{day}.{domain}",
        policies=tuple(_report_of(domain, tally) for tally in tallies),
    )


def _report_of(domain: str, tally: Tally) -> PolicyReport:
    policy = tally.policy
    failures = {field: count for field, count in tally.counts.items() if field != SUCCESS}
    return PolicyReport(
        policy=PolicyDetails(
            policy_type=policy.type,
            policy_string=policy.lines,
            policy_domain=policy.domain or domain,
            mx_host=policy.hosts,
        ),
        summary=Summary(
            total_successful_session_count=tally.counts.get(SUCCESS, 0),
            total_failure_session_count=sum(failures.values()),
        ),
        failure_details=tuple(_details(field, count) for field, count in failures.items()),
    )


def _details(field: str, count: int) -> FailureDetails:
    failure = _failures.decode(field)
    return FailureDetails(
        result_type=failure.result,
        failed_session_count=count,
        sending_mta_ip=failure.source,
        receiving_mx_hostname=failure.host,
        receiving_ip=failure.ip,
        failure_reason_code=failure.reason,
    )


def day_of(epoch_s: float) -> str:
    """The day of a time."""
    return datetime.datetime.fromtimestamp(epoch_s, datetime.UTC).date().isoformat()
