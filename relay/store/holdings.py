"""What this process holds by its own account, and giving back what it holds only by the store's.

A connection to Redis can break after a script was carried out and before its reply was read: slots
are taken and recipients claimed that no session knows of, or a release never arrived. Our lease
goes on, so they would never return by themselves.
"""

from collections.abc import Iterable

import structlog

from relay.store.queue import Store

_log = structlog.get_logger("relay.holdings")

_PAGE = 500


class Holdings:
    """Tokens of sessions and claimed recipients, each from its reply to its settle or release."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tokens: set[str] = set()
        self._attempts: dict[str, int] = {}
        # Seen once on the store's account only.
        self._suspects: set[str] = set()

    def took(self, token: str) -> None:
        """A session's slots hang on this token."""
        self._tokens.add(token)

    def released(self, token: str) -> None:
        """The session is over."""
        self._tokens.discard(token)

    def claimed(self, recipient_id: str, attempt: int) -> None:
        """A recipient is ours."""
        self._attempts[recipient_id] = attempt

    def has(self, recipient_id: str, attempt: int) -> bool:
        """Whether we are at this attempt, or a later one, already: the store forgot its claim."""
        return self._attempts.get(recipient_id, 0) >= attempt

    def settled(self, recipient_id: str, attempt: int) -> None:
        """Its attempt is recorded."""
        if self._attempts.get(recipient_id) == attempt:
            del self._attempts[recipient_id]

    def abandoned(self, recipient_id: str, attempt: int) -> None:
        """Its attempt ended without an outcome: the next look finds it, no second one is needed."""
        self.settled(recipient_id, attempt)
        self._suspects.add(recipient_id)

    async def reconcile(self, holder: str, uncertain: dict[str, str]) -> int:
        """Give back what two looks in a row found to be the store's opinion only; how many."""
        wire, prefix = self._store.wire, self._store.p
        rids = _texts(await wire.call("SMEMBERS", f"{prefix}ic:{holder}")) - self._attempts.keys()
        entries = _texts(await wire.call("SMEMBERS", f"{prefix}ih:{holder}"))
        unknown = rids | {entry for entry in entries if entry.split(" ", 2)[1] not in self._tokens}
        confirmed = self._suspects & unknown
        self._suspects = unknown - confirmed
        claims = sorted(confirmed & rids)
        slots = sorted(confirmed - rids)
        for start in range(0, max(len(claims), len(slots)), _PAGE):
            page = slice(start, start + _PAGE)
            request = {"holder": holder, "rids": claims[page], "entries": slots[page]}
            poisoned = await self._store.scripts.call("forgo", {**request, "uncertain": uncertain})
            alert_of_poison(poisoned)
        return len(confirmed)


def alert_of_poison(recipient_ids: Iterable[bytes]) -> None:
    """Say aloud which recipients are held because they ended one worker after the other."""
    for recipient_id in recipient_ids:
        _log.error(
            "recipient.poisoned",
            recipient_id=recipient_id.decode(),
            text="held: each of its last attempts ended without an outcome; `relay message show` "
            "tells more, `relay message release` tries it again",
        )


def _texts(raw: Iterable[bytes]) -> set[str]:
    return {one.decode() for one in raw}
