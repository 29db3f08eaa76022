"""MTA-STS: what a domain says of the TLS of its MX hosts (RFC 8461), read strictly.

The texts are a stranger's: whatever does not follow the grammar is no policy, and says why.
"""

import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from relay.policy.mx import host_name

#: Octets of a policy that are read (RFC 8461 §3.2 asks for a limit, and names this one).
POLICY_OCTETS = 64 * 1024
#: Bounds of `max_age`: below an hour a policy protects nobody, above a year is not allowed (§3.2).
MIN_AGE_S, MAX_AGE_S = 3600, 31_557_600
#: MX patterns of a policy that are kept.
PATTERNS_KEPT = 200

_RECORD = re.compile(r"v=STSv1[ \t]*;")
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_AGE = re.compile(r"\d{1,10}")
_HOST = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)


class StsMode(StrEnum):
    """What a policy asks for."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class StsPolicy(msgspec.Struct, frozen=True, array_like=True):
    """A policy: MX patterns (`mx.example.org`, `*.example.org`), seconds for which it holds."""

    mode: StsMode
    patterns: tuple[str, ...]
    max_age_s: int

    def admits(self, host: str) -> bool:
        """Whether a pattern stands for the MX host; `*` for exactly one label (§4.1)."""
        name = host_name(host)
        parent = name.partition(".")[2]
        return name in self.patterns or (bool(parent) and f"*.{parent}" in self.patterns)


def read_record(texts: Iterable[str]) -> str:
    """The policy's id from the TXT records at `_mta-sts`; empty: the domain has none (§3.1)."""
    records = [text for text in texts if _RECORD.match(text)]
    if len(records) != 1:
        return ""
    for field in records[0].split(";")[1:]:
        key, _, value = field.strip(" \t").partition("=")
        if key.strip() == "id":
            return value.strip() if _ID.fullmatch(value.strip()) else ""
    return ""


def read_policy(text: str) -> StsPolicy:
    """The policy of a text (§3.2); ValueError says what is wrong with it."""
    fields: dict[str, str] = {}
    patterns: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        key, colon, value = line.partition(":")
        key, value = key.strip(" \t"), value.strip(" \t")
        if not colon:
            if key:
                raise ValueError(f"the line {line[:40]!r} has no colon")
        elif key == "mx":
            patterns.append(_pattern(value))
        else:
            fields.setdefault(key, value)  # of a field given twice the first counts
    if fields.get("version") != "STSv1":
        raise ValueError("its version is not STSv1")
    if fields.get("mode") not in list(StsMode):
        raise ValueError(f"its mode is {fields.get('mode', '')[:40]!r}, not one of the three")
    if not _AGE.fullmatch(fields.get("max_age", "")):
        raise ValueError("its max_age is no number of seconds")
    mode = StsMode(fields["mode"])
    if not patterns and mode is not StsMode.NONE:
        raise ValueError("it names no mx")
    if len(patterns) > PATTERNS_KEPT:
        raise ValueError(f"it names over {PATTERNS_KEPT} mx")
    age_s = min(max(int(fields["max_age"]), MIN_AGE_S), MAX_AGE_S)
    return StsPolicy(mode, tuple(patterns), age_s)


def _pattern(text: str) -> str:
    name = host_name(text)
    if len(name) > 253 or not _HOST.fullmatch(name.removeprefix("*.")):
        raise ValueError(f"its mx {text[:60]!r} is no host name")
    return name
