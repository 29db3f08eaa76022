"""Examination of received content: dots unstuffed, faults named, headers of interest read.

Strict on purpose: what a lenient receiver forgives, another may turn into SMTP smuggling.
"""

import hashlib
from collections.abc import Set

import msgspec

#: RFC 5321 §4.5.3.1.6: octets of a text line without its CRLF.
LINE_OCTETS = 998

_REFUSALS = {
    "bare_cr_or_lf": "554 5.6.0 Bare CR or LF in the message (RFC 5321 2.3.8)",
    "nul": "554 5.6.0 NUL in the message",
    "line_too_long": "554 5.6.0 Line longer than 998 octets (RFC 5321 4.5.3.1.6)",
}


class Examined(msgspec.Struct, frozen=True):
    """What was found in a content; a flag with an entry in `_REFUSALS` makes it unacceptable."""

    sha256: str
    message_id: str
    campaign: str
    flags: tuple[str, ...]

    @property
    def refusal(self) -> str:
        """The reply that refuses it, empty when there is nothing to refuse."""
        return next((_REFUSALS[flag] for flag in self.flags if flag in _REFUSALS), "")


def unstuff(content: bytes) -> bytes:
    """Take away the dots that the sender put before dots at line starts (RFC 5321 §4.5.2)."""
    if content.startswith(b"."):
        content = content[1:]
    return content.replace(b"\r\n.", b"\r\n")


def _has_long_line(content: bytes) -> bool:
    """Whether a line is over the limit, looking only at one line end in every 1000 octets."""
    start, limit = 0, LINE_OCTETS + 2
    while len(content) - start > limit:
        end = content.rfind(b"\n", start, start + limit)
        if end < 0:
            return True
        start = end + 1
    return False


def _header(block: bytes, lowered: bytes, name: bytes) -> str:
    """The first line of the first header field with this name, the second if that is empty."""
    at = 0 if lowered.startswith(name) else lowered.find(b"\n" + name) + 1
    if at == 0 and not lowered.startswith(name):
        return ""
    value, _, rest = block[at + len(name) :].partition(b"\n")
    if not value.strip():  # folded right after the name
        value = rest.partition(b"\n")[0]
    return value.strip().decode("utf-8", "replace")


def examine(
    content: bytes, session_flags: Set[str] = frozenset(), *, declared_8bit: bool
) -> Examined:
    """Hash, flags and headers of an unstuffed content; the flags of the session are added."""
    flags = set(session_flags)
    ends = content.count(b"\n")
    if ends != content.count(b"\r") or ends != content.count(b"\r\n"):
        flags.add("bare_cr_or_lf")
    if b"\0" in content:
        flags.add("nul")
    if _has_long_line(content):
        flags.add("line_too_long")
    if not declared_8bit and not content.isascii():
        flags.add("undeclared_8bit")
    end = content.find(b"\r\n\r\n")
    block = content[: end if end >= 0 else len(content)]
    lowered = block.lower()
    campaign = _header(block, lowered, b"x-relay-campaign:") or _header(
        block, lowered, b"x-campaign:"
    )
    if not campaign:  # Feedback-ID: campaign:customer:type:sender
        campaign = _header(block, lowered, b"feedback-id:").partition(":")[0]
    return Examined(
        hashlib.sha256(content).hexdigest(),
        _header(block, lowered, b"message-id:"),
        campaign,
        tuple(sorted(flags)),
    )
