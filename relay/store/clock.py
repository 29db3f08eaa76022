"""The store's clock as a process knows it: what Redis said last, carried on by a steady clock.

The wall clock of the machine is not asked: it may be wrong, and it may be set at any moment. So may
that of Redis' machine: who ticks notices, and the store's clock goes on as if nothing had been.
"""

import time

#: A clock that nobody sets and that goes on while the machine sleeps, where there is one (Linux).
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: What was expected longer ago than this says nothing: we may have stood still ourselves.
LATELY_S = 5.0
#: The store's clock runs so much faster or slower until it shows what Redis' clock shows again.
SLEW = 0.1


def steady_s() -> float:
    """Seconds since some moment; of this machine only."""
    return time.clock_gettime(_STEADY)


class StoreClock:
    """`heard` what Redis said, `now` from then on."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None

    def now(self) -> float:
        """Epoch seconds by the store's clock; by our own as long as nothing was heard."""
        return time.time() if self._ahead_s is None else steady_s() + self._ahead_s

    def heard(self, store_s: float, *, asked_at: float) -> None:
        """The store's clock showed this at a moment between `asked_at` (steady) and now."""
        least, most = store_s - steady_s(), store_s - asked_at
        known = least if self._ahead_s is None else self._ahead_s
        self._ahead_s = min(max(known, least), most)


class StepWatch:
    """Tells that Redis' clock was set from the passing of time; in milliseconds of that clock."""

    def __init__(self) -> None:
        self._clock = StoreClock()
        self._heard_at = float("-inf")

    def expected_ms(self) -> int:
        """What it must show now; 0 where it was not seen of late."""
        return int(self._clock.now() * 1000) if steady_s() - self._heard_at < LATELY_S else 0

    def heard(self, shown_ms: int, *, asked_at: float) -> None:
        """It showed this at a moment between `asked_at` (steady) and now."""
        self._clock.heard(shown_ms / 1000, asked_at=asked_at)
        self._heard_at = steady_s()

    def step_ms(self, shown_ms: int, *, asked_at: float) -> int:
        """By how much it was set if it showed this; 0 where the answer may have been slow."""
        most = shown_ms - (self._clock.now() - (steady_s() - asked_at)) * 1000
        least = shown_ms - self._clock.now() * 1000
        return int(least if least > 0 else most if most < 0 else 0)

    def slew_ms(self) -> int:
        """How much of a step may be let in since it was seen last."""
        return int(min(steady_s() - self._heard_at, 1.0) * SLEW * 1000)
