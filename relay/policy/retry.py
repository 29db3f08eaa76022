"""When a deferred recipient is tried again: a list of delays, receivers' hints, jitter.

Precedents: Postfix 5 to 67 min by age, Exim 15 min growing ×1.5, mox 7.5 min doubling. RFC 5321
§4.5.4.1: retries must wait, about 30 min in general; expiry is by age and decided elsewhere.
"""

import random as randomness

import msgspec

from relay.model.errors import ConfigError
from relay.model.units import format_duration, parse_duration_s
from relay.model.verdict import Scope, Verdict

#: A receiver's hint shorter than this is rounded up, longer than that cut.
HINT_FLOOR_S = 30.0
HINT_CEILING_S = 6 * 3600.0
#: From this step on a hint may only lengthen the schedule's delay: who has said "in 60 seconds"
#: three times is not to be asked every minute for two days.
HINTS_TRUSTED = 3

_EXAMPLE = "write for example '5m 15m 30m 1h 2h 4h*'"
_WAITS_ALONE = frozenset({Scope.RECIPIENT, Scope.MESSAGE, Scope.TRANSACTION})


class Schedule(msgspec.Struct, frozen=True):
    """Delays from attempt to attempt; the last one goes on for ever, or the list ends."""

    delays_s: tuple[float, ...]
    repeats: bool

    @classmethod
    def parse(cls, text: str, *, key: str = "retry schedule") -> "Schedule":
        """`5m 15m 1h*`: delays, the last with `*` if it repeats; ConfigError names `key`."""
        words = text.replace(",", " ").split()
        if not words:
            raise ConfigError(f"{key}: the list of delays is empty; {_EXAMPLE}")
        delays = []
        for number, word in enumerate(words, 1):
            if "*" in word.removesuffix("*"):
                raise ConfigError(f"{key}: '{word}' is not a delay; {_EXAMPLE}")
            if word.endswith("*") and number < len(words):
                raise ConfigError(
                    f"{key}: only the last delay may repeat, but '{word}' is followed by "
                    f"'{words[number]}'; {_EXAMPLE}"
                )
            delays.append(_delay(word.removesuffix("*"), key))
        return cls(tuple(delays), words[-1].endswith("*"))

    def delay_s(self, step: int) -> float | None:
        """The delay after the attempt at `step` (from 0), or None where the list has ended."""
        if step < len(self.delays_s):
            return self.delays_s[max(step, 0)]
        return self.delays_s[-1] if self.repeats else None

    def __str__(self) -> str:
        return " ".join(map(format_duration, self.delays_s)) + ("*" if self.repeats else "")


def _delay(word: str, key: str) -> float:
    try:
        delay_s = parse_duration_s(word)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}; {_EXAMPLE}") from None
    if delay_s <= 0:
        raise ConfigError(f"{key}: '{word}' would retry without a pause; {_EXAMPLE}")
    return delay_s


def is_probe(verdict: Verdict) -> bool:
    """Whether only RCPT or the final dot spoke 4yz: greylisting is likely, a quick retry pays."""
    reply = verdict.reply
    return (
        reply is not None
        and reply.is_transient
        and reply.code != 421
        and reply.command in ("RCPT", "end-of-data")
        and verdict.scope in _WAITS_ALONE
    )


def delay(
    step: int,
    verdict: Verdict,
    *,
    schedule: Schedule,
    first_after_rcpt_s: float,
    jitter: float,
    random: randomness.Random,
) -> float | None:
    """Seconds until the next attempt of a recipient deferred at `step`, or None: no more attempts.

    After a likely greylisting `first_after_rcpt_s` stands before the list (0: never). A hint of
    the receiver replaces the list's delay for the first steps, then it can only lengthen it; we
    never come before the time that it names. `jitter` is a share: 0.1 is ±10 %.
    """
    probes = first_after_rcpt_s > 0 and is_probe(verdict)
    planned_s = schedule.delay_s(step - 1 if probes and step > 0 else step)
    if planned_s is None:
        return None
    if probes and step == 0:
        planned_s = min(first_after_rcpt_s, planned_s)
    if verdict.retry_after_s is not None:
        hint_s = min(max(verdict.retry_after_s, HINT_FLOOR_S), HINT_CEILING_S)
        if step < HINTS_TRUSTED or hint_s > planned_s:
            return hint_s * (1 + random.uniform(0, jitter))
    return planned_s * (1 + random.uniform(-jitter, jitter))
