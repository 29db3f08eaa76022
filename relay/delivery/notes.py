"""Notes on what keeps a session from mail, for whoever asks why the mail does not move.

Nothing is written while all goes well: a session that opens at once, or finds mail, leaves none.
"""

import asyncio
import contextlib
from collections.abc import Iterator

from relay.store.claims import Claim
from relay.store.work import Work

#: An opening that has taken so long is noted, and again so often; notes live a little longer.
SLOW_OPENING_S, AGAIN_S, LIVES_S = 1.0, 5.0, 7.0


class Notes:
    """Writes notes beside the sessions, which never wait for them."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def opening(self, lane: str, host: str, address: str) -> Iterator[None]:
        """While a session is being opened."""
        reminder = _Reminder(self, lane, f"host::{host} [{address}]")
        reminder.set(SLOW_OPENING_S)
        try:
            yield
        finally:
            reminder.end()

    def waiting(self, lane: str, key: str, claim: Claim) -> None:
        """A rate keeps the session from mail for a while."""
        until = claim.wait_until
        self.write(lane, claim.reason, key, for_s=claim.wait_s + 1.0, until=until)

    def write(self, lane: str, reason: str, key: str, *, for_s: float, until: float = 0.0) -> None:
        """Write a note that is believed for a while."""
        note = self._work.note(lane, reason, key, for_s=for_s, until=until)
        task = asyncio.create_task(note, name="note")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Reminder:
    """Notes a slow opening again and again; a timer, for nearly all openings are quick."""

    def __init__(self, notes: Notes, lane: str, key: str) -> None:
        self._notes = notes
        self._lane = lane
        self._key = key
        self._timer: asyncio.TimerHandle | None = None
        self._has_noted = False

    def set(self, after_s: float) -> None:
        """Note it after a while, unless it ends before."""
        self._timer = asyncio.get_running_loop().call_later(after_s, self._note)

    def _note(self) -> None:
        self._has_noted = True
        self._notes.write(self._lane, "session_opening", self._key, for_s=LIVES_S)
        self.set(AGAIN_S)

    def end(self) -> None:
        """The session is open, or was given up."""
        if self._timer is not None:
            self._timer.cancel()
        if self._has_noted:
            self._notes.write(self._lane, "session_opening", self._key, for_s=0.001)
