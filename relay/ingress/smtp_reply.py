"""Replies of the submission listener: their wire form, and the reply to each refusal.

Replies that reflect input never carry more than one printable ASCII line of at most 512 octets
(RFC 5321 §4.5.3.1.5), and all but greeting and EHLO have an enhanced status code (RFC 2034).
"""

import re

from relay.model.errors import (
    IdempotencyConflict,
    MessageTooLarge,
    ScriptMismatch,
    StoreFull,
    StoreUnavailable,
    SubmissionRefused,
)

_UNFIT = re.compile(r"[^ -~]")
_HAS_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3} ")
#: Enhanced codes for replies that aiosmtpd writes without one.
_ENHANCED = {
    "220": "2.0.0",
    "235": "2.7.0",
    "250": "2.0.0",
    "421": "4.3.0",
    "454": "4.7.0",
    "500": "5.5.2",
    "501": "5.5.4",
    "502": "5.5.1",
    "503": "5.5.1",
    "504": "5.5.4",
    "530": "5.7.0",
    "538": "5.7.11",
    "554": "5.5.0",
}


def wire_reply(text: str) -> bytes:
    """A one-line reply as octets: enhanced code added where it lacks, nothing unprintable."""
    code, rest = text[:3], text[4:]
    if code in _ENHANCED and _HAS_ENHANCED.match(rest) is None:
        rest = f"{_ENHANCED[code]} {rest}"
    return f"{code} {_UNFIT.sub('?', rest)[:505]}\r\n".encode("ascii")


def refusal_of(error: Exception) -> str | None:
    """The reply for an error of submitting; None: an error of ours that nobody foresaw."""
    if isinstance(error, MessageTooLarge):
        return f"552 5.3.4 {error.findings[0].message}"
    if isinstance(error, SubmissionRefused):
        finding = error.findings[0]
        if finding.code == "routing.loop":
            return f"554 5.4.6 {finding.message}"
        if finding.code == "recipient_suppressed":
            return f"550 5.7.1 {finding.message}"
        return f"550 5.6.0 {finding}"
    if isinstance(error, IdempotencyConflict):
        return f"550 5.5.4 {error}"
    if isinstance(error, StoreFull):
        return "452 4.3.1 The queue is full, try again later"
    if isinstance(error, StoreUnavailable | ScriptMismatch):
        return "451 4.3.0 The queue is unavailable, try again later"
    return None
