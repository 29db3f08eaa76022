"""TLS reports: what is counted of a domain's day, and the report made of it (RFC 8460).

A day is one of UTC, `2026-11-21`. A result of a session is kept in text form, `field_of`, because
that is what the store counts by.
"""

import datetime
import re
from collections.abc import Iterable, Mapping

import msgspec

from relay.model.address import parse_address
from relay.model.errors import SubmissionRefused

#: Addresses of one domain that get its reports.
ADDRESSES_KEPT = 5
#: The text form of a session that went well.
SUCCESS = "+"

_RECORD = re.compile(r"v=TLSRPTv1[ \t]*;")
#: What the words of a failure come to (RFC 8460 §4.3), the first that fits.
_RESULTS = (
    ("hostname mismatch", "certificate-host-mismatch"),
    ("is not for", "certificate-host-mismatch"),
    ("ip address mismatch", "certificate-host-mismatch"),
    ("has expired", "certificate-expired"),
    ("out of date", "certificate-expired"),
    ("certificate not accepted: no tlsa", "validation-failure"),
    ("self-signed", "certificate-not-trusted"),
    ("self signed", "certificate-not-trusted"),
    ("local issuer", "certificate-not-trusted"),
    ("unable to verify the first certificate", "certificate-not-trusted"),
)
NO_STARTTLS = "starttls-not-supported"
NOT_ADMITTED = "validation-failure"


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """How a session failed: the result type, with whom, from where, and in which words."""

    result: str
    host: str = ""
    ip: str = ""
    source: str = ""
    reason: str = ""


class Policy(msgspec.Struct, frozen=True, array_like=True):
    """Which policy was applied: sts, tlsa or no-policy-found; its lines; the MX it admits."""

    type: str = "no-policy-found"
    lines: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


_failures = msgspec.json.Decoder(Failure)


def field_of(failure: Failure) -> str:
    """The text form of a failed session."""
    return msgspec.json.encode(failure).decode()


def result_of(words: str) -> str:
    """The result type for what a failure of TLS was told as."""
    lower = words.lower()
    return next((result for text, result in _RESULTS if text in lower), "validation-failure")


def read_rua(texts: Iterable[str]) -> tuple[str, ...]:
    """The mail addresses that want reports, of the TXT records at `_smtp._tls` (§3).

    Empty where there is not exactly one record; `https:` is not among what we serve.
    """
    records = [text for text in texts if _RECORD.match(text)]
    if len(records) != 1:
        return ()
    for field in records[0].split(";")[1:]:
        key, _, value = field.strip(" \t").partition("=")
        if key.strip() == "rua":
            uris = [uri.strip() for uri in value.split(",")]
            found = (_address(uri[7:]) for uri in uris if uri.lower().startswith("mailto:"))
            return tuple(address for address in found if address)[:ADDRESSES_KEPT]
    return ()


def _address(text: str) -> str:
    try:
        return str(parse_address(text.partition("?")[0]))
    except SubmissionRefused:
        return ""


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
    counts: Mapping[str, int],
    policy: Policy,
    *,
    organization: str,
    contact: str,
    report_id: str,
) -> DomainReport:
    """The report of what was counted by text form."""
    failures = {field: count for field, count in counts.items() if field != SUCCESS}
    details = tuple(
        FailureDetails(
            result_type=failure.result,
            failed_session_count=count,
            sending_mta_ip=failure.source,
            receiving_mx_hostname=failure.host,
            receiving_ip=failure.ip,
            failure_reason_code=failure.reason,
        )
        for failure, count in ((_failures.decode(field), n) for field, n in failures.items())
    )
    return DomainReport(
        organization_name=organization,
        date_range=DateRange(start_datetime=f"{day}T00:00:00Z", end_datetime=f"{day}T23:59:59Z"),
        contact_info=contact,
        report_id=report_id,
        policies=(
            PolicyReport(
                policy=PolicyDetails(
                    policy_type=policy.type,
                    policy_string=policy.lines,
                    policy_domain=domain,
                    mx_host=policy.hosts,
                ),
                summary=Summary(
                    total_successful_session_count=counts.get(SUCCESS, 0),
                    total_failure_session_count=sum(failures.values()),
                ),
                failure_details=details,
            ),
        ),
    )


def day_of(epoch_s: float) -> str:
    """The day of a time."""
    return datetime.datetime.fromtimestamp(epoch_s, datetime.UTC).date().isoformat()
