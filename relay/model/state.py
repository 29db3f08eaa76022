"""The states of a recipient: exactly one at any time, exactly one final one at the end."""

from enum import StrEnum


class State(StrEnum):
    """Where a recipient is; the value is what users read."""

    STAGED = "staged"
    READY = "ready"
    DEFERRED = "deferred"
    HELD = "held"
    CLAIMED = "claimed"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"


FINAL_STATES = frozenset(
    {State.DELIVERED, State.FAILED, State.EXPIRED, State.CANCELLED, State.SUPPRESSED}
)
LIVE_STATES = frozenset(State) - FINAL_STATES
