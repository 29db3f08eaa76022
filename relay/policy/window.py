"""The feedback window: how many connections a destination may have, as a pure reference.

The algorithm of Postfix's scheduler (SCHEDULER_README, qmgr_queue.c) with 1/N feedback both ways
and a cohort limit of 10: a window shrinks by one after about a window's worth of failures and
grows by one after a window's worth of successes; ten windows' worth of failures in a row, without
a success, stop the destination. The store does the same in Lua; this is what it is tested against.

Rules of this file
- Failure means that the site does not talk (connect, greeting, EHLO, TLS, AUTH, lost, timed out);
  any reply to MAIL, RCPT, DATA or the dot is a success, also a 4yz or 5yz.
- Shrinking acts at the start of a failure cycle, growing at its middle (hysteresis 1).
"""

import msgspec

INITIAL = 5
LIMIT = 20
COHORT_LIMIT = 10.0


class Window(msgspec.Struct, frozen=True):
    """The state of one feedback key; `size` 0 means stopped (dead)."""

    size: int = INITIAL
    success: float = 0.0
    failure: float = 0.0
    failed_cohorts: float = 0.0

    @property
    def is_dead(self) -> bool:
        return self.size == 0


def succeeded(window: Window, *, busy: int, limit: int = LIMIT, initial: int = INITIAL) -> Window:
    """After an attempt in which the site talked; `busy`: connections open now, with this one."""
    if window.is_dead:
        return Window(size=min(max(busy, 0) or initial, limit))
    size, success, failure = window.size, window.success, window.failure
    if size < limit and size < busy + initial:  # not ahead of the real load
        feedback = 1 / size
        success += feedback
        while success + feedback / 2 >= 1:
            size, success, failure = size + 1, max(success - 1, 0.0), 0.0
        size = min(size, limit)
    return Window(min(size, limit), success, failure, 0.0)


def failed(window: Window, *, cohort_limit: float = COHORT_LIMIT) -> Window:
    """After an attempt in which the site did not talk."""
    if window.is_dead:
        return window
    size, success, failure = window.size, window.success, window.failure
    cohorts = window.failed_cohorts + 1 / size
    if cohort_limit > 0 and cohorts >= cohort_limit:
        return Window(size=0)
    feedback = 1 / size
    failure -= feedback
    while failure - feedback / 2 < 0:
        size, failure, success = size - 1, failure + 1, 0.0
    return Window(max(size, 1), success, failure, cohorts)


def revived(*, initial: int = INITIAL) -> Window:
    """After the pause of a stopped destination: as new."""
    return Window(size=initial)
