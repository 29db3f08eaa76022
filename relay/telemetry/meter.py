"""What a process counts and times, until it is added to the figures of all processes.

Counting is a dict entry; nothing leaves the process before `drain`, which gives increments. What
the families are called, and their labels, stands here once, for who counts and for who shows it.
A label's values are few: providers, phases, codes; never a domain, an address or a campaign.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

#: Label value of mail whose site belongs to no provider that shaping names.
OTHER: Final = "other"
#: More would be a label that is not bounded: what goes beyond is not counted.
SERIES_MAX: Final = 5000

_DIALOGUE = (
    0.002,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
_LOOK_UP = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
_SCRIPT = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
_DELAY = (0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class Family(msgspec.Struct, frozen=True):
    """A metric: its name in Prometheus, its help, its labels, and bounds in seconds if it times."""

    metric: str
    text: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()


FAMILIES: Final[Mapping[str, Family]] = {
    "attempt": Family(
        "relay_attempt_duration_seconds",
        "What phases of SMTP sessions and transactions took.",
        ("phase",),
        _DIALOGUE,
    ),
    "delay": Family(
        "relay_delivery_delay_seconds", "From acceptance to delivery.", ("provider",), _DELAY
    ),
    "look_up": Family(
        "relay_dns_lookup_duration_seconds",
        "What DNS look-ups took that no cache answered.",
        ("type", "result"),
        _LOOK_UP,
    ),
    "script": Family(
        "relay_store_operation_duration_seconds",
        "What calls to the store took, waiting included.",
        ("script",),
        _SCRIPT,
    ),
    "reply": Family(
        "relay_replies",
        "Replies of receiving servers that decided about a recipient or a session.",
        ("code", "enhanced", "provider"),
    ),
    "session": Family("relay_sessions", "SMTP sessions opened.", ("provider",)),
    "session_failed": Family(
        "relay_session_failures", "SMTP sessions that did not come about.", ("phase", "provider")
    ),
    "tls": Family(
        "relay_tls_sessions",
        "SMTP sessions by what was demanded of TLS and whether the certificate was verified.",
        ("mode", "verified"),
    ),
    "throttled": Family(
        "relay_throttled", "How often a limit kept a session from mail.", ("limit", "provider")
    ),
    "incoming": Family(
        "relay_incoming_reports",
        "Reports that came to the bounce intake.",
        ("kind", "outcome"),
    ),
    "dkim": Family(
        "relay_dkim_messages", "Messages claimed, where there are keys, by who signed.", ("signed",)
    ),
    "conversion": Family(
        "relay_content_conversions",
        "Messages with 8-bit content for hosts without 8BITMIME, by whether they were made 7-bit.",
        ("converted",),
    ),
    "lint": Family("relay_lint_findings", "Faults found in submitted messages.", ("id",)),
}


class Meter:
    """`count(family, *labels)`, `observe(family, seconds, *labels)`, `change(gauge, by)`.

    Belongs to one thread. Labels may be of any type; they become text when they are drained.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[object, ...], int] = {}
        #: Observations by bucket, the last above all bounds; then their sum in microseconds.
        self._times: dict[tuple[object, ...], list[int]] = {}
        #: How many of something there are now, by name and label.
        self.gauges: dict[tuple[str, str], int] = {}

    def count(self, family: str, *labels: object) -> None:
        """One more."""
        key = (family, *labels)
        known = self._counts.get(key)
        if known is not None:
            self._counts[key] = known + 1
        elif len(self._counts) < SERIES_MAX:
            self._counts[key] = 1

    def observe(self, family: str, seconds: float, *labels: object) -> None:
        """One more that took so long."""
        key, bounds = (family, *labels), FAMILIES[family].bounds
        row = self._times.get(key)
        if row is None:
            if len(self._times) >= SERIES_MAX:
                return
            row = self._times[key] = [0] * (len(bounds) + 2)
        row[bisect_left(bounds, seconds)] += 1
        row[-1] += int(seconds * 1_000_000)

    def change(self, gauge: str, label: str, by: int) -> None:
        """So many more, or less, of something there are now."""
        key = (gauge, label)
        self.gauges[key] = self.gauges.get(key, 0) + by
        if self.gauges[key] == 0:
            del self.gauges[key]

    def drain(self) -> dict[str, int]:
        """The increments since the last call: `family|label|…`, then `|bucket` or `|sum`."""
        counts, self._counts = self._counts, {}
        times, self._times = self._times, {}
        drained = {_field(key): by for key, by in counts.items()}
        for key, row in times.items():
            drained |= {_field((*key, name)): by for name, by in _buckets(row) if by}
        return drained


def _buckets(row: list[int]) -> Iterator[tuple[str, int]]:
    yield "sum", row[-1]
    for index, number in enumerate(row[:-1]):
        yield str(index), number


def _field(key: tuple[object, ...]) -> str:
    return "|".join(str(part).replace("|", "_") for part in key)


class Histogram(msgspec.Struct, frozen=True):
    """Observations by bucket (the last above all bounds) and their sum in seconds."""

    buckets: tuple[int, ...]
    sum_s: float


Labels = tuple[str, ...]


def read_fields(
    fields: Mapping[str, int],
) -> tuple[dict[str, dict[Labels, int]], dict[str, dict[Labels, Histogram]]]:
    """Counters and histograms by family and labels, of what `drain` gave and somebody summed up.

    What no family of this version explains is left out.
    """
    counts: dict[str, dict[Labels, int]] = {}
    rows: dict[str, dict[Labels, list[int]]] = {}
    for field, number in fields.items():
        name, *parts = field.split("|")
        family = FAMILIES.get(name)
        if family is None or len(parts) != len(family.labels) + bool(family.bounds):
            continue
        if not family.bounds:
            counts.setdefault(name, {})[tuple(parts)] = number
            continue
        width = len(family.bounds) + 2
        row = rows.setdefault(name, {}).setdefault(tuple(parts[:-1]), [0] * width)
        position = width - 1 if parts[-1] == "sum" else int(parts[-1])
        if position < width:
            row[position] = number
    histograms = {
        name: {
            labels: Histogram(tuple(row[:-1]), row[-1] / 1_000_000) for labels, row in found.items()
        }
        for name, found in rows.items()
    }
    return counts, histograms
