"""What binds sessions, and what they are told of it: slots, rates, feedback windows, breakers."""

from typing import Any

import msgspec


class Rate(msgspec.Struct, frozen=True):
    """A rate limit under a key: events per second and how many may come at once (GCRA)."""

    key: str
    per_second: float
    burst: int = 1

    def packed(self) -> list[Any]:
        return [self.key, 1_000_000 / self.per_second, max(self.burst, 1)]


class Ceilings(msgspec.Struct, frozen=True):
    """All that binds a session: slots (key, ceiling), feedback windows, rates, breakers."""

    slots: tuple[tuple[str, int], ...]
    windows: dict[str, int] = {}
    rates: tuple[Rate, ...] = ()
    breakers: tuple[str, ...] = ()


class Taken(msgspec.Struct, frozen=True):
    """Answer to take: ok, idle (no work) or no, with the limit that binds."""

    word: str
    probing: bool = False
    key: str = ""
    limit: int = 0
    until: float = 0.0
    reason: str = ""


class Report(msgspec.Struct, frozen=True):
    """What a connection taught.

    windows: (key, successes or 0 for a failure, limit, initial); breakers: (key, good, reason,
    text). With a `lane`, no breaker opens while another session of it lives, of whatever worker;
    where the peer was `silent`, while another is known to work. `session` is the reporter's token.
    """

    windows: tuple[tuple[str, int, int, int], ...] = ()
    breakers: tuple[tuple[str, bool, str, str], ...] = ()
    lane: str = ""
    session: str = ""
    silent: bool = False
    base_s: float = 15.0
    cap_s: float = 900.0
    threshold: int = 1
