"""Quantities as people write them: durations (`5m`), sizes (`25 MiB`), rates (`100/min`).

Every parser answers a plain number in seconds, octets or per second; ValueError says what is
wrong with the text and shows a correct one.
"""

import math
import re
from datetime import UTC, datetime

_SECONDS = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "w": 604800.0,
    "week": 604800.0,
}
_SECONDS |= {f"{unit}s": factor for unit, factor in _SECONDS.items() if len(unit) >= 3}
_OCTETS = {
    "": 1,
    "b": 1,
    "k": 1024,
    "kib": 1024,
    "m": 1024**2,
    "mib": 1024**2,
    "g": 1024**3,
    "gib": 1024**3,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
}
_NUMBER = r"\d[\d_]*(?:\.\d+)?"
_DURATION_PART = re.compile(rf"({_NUMBER})\s*([a-z]+)", re.ASCII)
_DURATION = re.compile(rf"(?:{_NUMBER}\s*[a-z]+\s*)+", re.ASCII)
_SIZE = re.compile(rf"({_NUMBER})\s*([a-z]*)", re.ASCII)
_RATE = re.compile(rf"({_NUMBER})\s*/\s*(.+)", re.ASCII)


def _factor(units: dict[str, float], unit: str, shown: str, example: str) -> float:
    if unit not in units:
        raise ValueError(f"{shown!r} has the unknown unit {unit!r}; write for example {example!r}")
    return units[unit]


def parse_duration_s(text: str) -> float:
    """Seconds of `90`, `90s`, `5m`, `1h 30m`, `250ms`; a bare number counts seconds."""
    cleaned = text.strip().lower()
    if re.fullmatch(_NUMBER, cleaned, re.ASCII):
        return _finite(float(cleaned), text)
    if _DURATION.fullmatch(cleaned) is None:
        raise ValueError(f"{text!r} is not a duration; write for example '5m' or '1h 30m'")
    parts = _DURATION_PART.findall(cleaned)
    return _finite(sum(float(n) * _factor(_SECONDS, unit, text, "5m") for n, unit in parts), text)


def parse_size_octets(text: str) -> int:
    """Octets of `1048576`, `512 KiB`, `25M`, `10 MB`; K, M, G without `B` are powers of 1024."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write for example '25 MiB'")
    factor = _OCTETS.get(match[2])
    if factor is None:
        raise ValueError(f"{text!r} has the unknown unit {match[2]!r}; write for example '25 MiB'")
    return int(_finite(float(match[1]) * factor, text))


def parse_rate_per_s(text: str) -> float:
    """Events per second of `100/min`, `5/s`, `1000/h`, `1/30s`."""
    match = _RATE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a rate; write for example '100/min'")
    unit = match[2].strip()
    try:
        period_s = _SECONDS[unit] if unit in _SECONDS else parse_duration_s(unit)
    except ValueError:
        raise ValueError(f"{text!r} is not a rate; write for example '100/min'") from None
    if period_s <= 0:
        raise ValueError(f"{text!r} counts over no time; write for example '100/min'")
    return _finite(float(match[1]) / period_s, text)


def _finite(number: float, text: str) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]!r} is too large a number")
    return number


def format_duration(seconds: float) -> str:
    """The shortest exact form of whole seconds: 90 → `1m30s`, 300 → `5m`, 0.5 → `0.5s`."""
    if seconds != int(seconds) or seconds < 60:
        return f"{seconds:g}s"
    rest = int(seconds)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def rfc3339(epoch_s: float) -> str:
    """An epoch time as the log shows it: RFC 3339, UTC, milliseconds."""
    text = datetime.fromtimestamp(round(epoch_s, 3), UTC).isoformat(timespec="milliseconds")
    return f"{text[:-6]}Z"
