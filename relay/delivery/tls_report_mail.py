"""A TLS report as a message: multipart/report with the JSON, compressed (RFC 8460 §5.3)."""

import base64
import gzip
from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec

from relay.model.address import Address
from relay.model.ids import new_queue_id
from relay.policy.tls_report import DomainReport

_LINE_OCTETS = 57


def compose_tls_report(
    report: DomainReport, domain: str, to: Address, *, hostname: str, now: float
) -> tuple[str, bytes]:
    """Message-ID and content (CRLF) of the report of a domain for one address."""
    unique = new_queue_id(now)
    boundary = f"=_{unique}"
    message_id = f"<{unique}@{hostname}>"
    octets = gzip.compress(msgspec.json.encode(report), mtime=0)
    name = f"{hostname}!{domain}!{_second(report, 'start')}!{_second(report, 'end')}!{unique}"
    lines = [
        f"From: TLS reports of {hostname} <{report.contact_info}>",
        f"To: <{to}>",
        f"Subject: Report Domain: {domain} Submitter: {hostname}",
        f" Report-ID: <{report.report_id}@{hostname}>",
        f"Date: {format_datetime(datetime.fromtimestamp(int(now), UTC))}",
        f"Message-ID: {message_id}",
        f"TLS-Report-Domain: {domain}",
        f"TLS-Report-Submitter: {hostname}",
        # Also where the TLS that is reported of fails (RFC 8460 §5.3, RFC 8689 §3).
        "TLS-Required: No",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type="tlsrpt"; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        *_sentences(report, domain, hostname),
        "",
        f"--{boundary}",
        "Content-Type: application/tlsrpt+gzip",
        "Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment;\r\n filename="{name}.json.gz"',
        "",
        *_encoded(octets),
        f"--{boundary}--",
        "",
    ]
    return message_id, "\r\n".join(lines).encode()


def _sentences(report: DomainReport, domain: str, hostname: str) -> list[str]:
    summaries = [policy.summary for policy in report.policies]
    good = sum(one.total_successful_session_count for one in summaries)
    bad = sum(one.total_failure_session_count for one in summaries)
    return [
        f"This is a report of {hostname} on its TLS sessions with the mail servers of",
        f"{domain} from {report.date_range.start_datetime} to {report.date_range.end_datetime}:",
        f"{good} went well, {bad} failed. Details are attached (RFC 8460).",
    ]


def _encoded(octets: bytes) -> list[str]:
    pieces = range(0, len(octets), _LINE_OCTETS)
    return [base64.b64encode(octets[at : at + _LINE_OCTETS]).decode() for at in pieces]


def _second(report: DomainReport, which: str) -> int:
    text = getattr(report.date_range, f"{which}_datetime")
    return int(datetime.fromisoformat(text).timestamp())
