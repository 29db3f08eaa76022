"""The suppression list as operators and doors see it; see `lua/_suppress.lua`.

What bounces and complaints put on it goes by the scripts that record them (`settle`, `tell`).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from relay.model.errors import StateConflict
from relay.model.suppression import Consequence, Origin, Suppression, SuppressionReason
from relay.store.codec import unpack
from relay.store.queue import Store

#: Rows of one call.
ROWS_PER_CALL = 500
#: Entries that one page of a filtered list looks at.
LOOKED_AT = 5000
#: The list of mail whose tenant nobody named: of all mail, as doors know no other yet.
DEFAULT_TENANT = "default"


class SuppressionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries; empty fields match all. `domain`: that of the address, or the entry itself."""

    reason: str = ""
    origin: str = ""
    domain: str = ""

    def fits(self, entry: Suppression) -> bool:
        """Whether the entry belongs."""
        return (
            self.reason in ("", entry.reason)
            and self.origin in ("", entry.origin)
            and self.domain in ("", entry.name.rpartition("@")[2])
        )


class Changed(msgspec.Struct, frozen=True):
    """How many entries are new, and how many took the place of another."""

    added: int = 0
    changed: int = 0


class Suppressions:
    """The list of one tenant; every method may raise StoreUnavailable."""

    def __init__(self, store: Store, *, tenant: str = DEFAULT_TENANT) -> None:
        self._scripts = store.scripts
        self._tenant = tenant

    async def add(
        self,
        entries: Sequence[Suppression],
        *,
        most: int,
        keep_s: float = 0.0,
        actor: str = "",
        is_import: bool = False,
    ) -> Changed:
        """Put entries on the list, or in the place of those with their names.

        `since` 0 is now; `until` None is `keep_s` from now, and for good where that is 0.
        StateConflict where the list has `most` entries none of which ends; those before it were
        taken. What comes by an import is no event.
        """
        rows = [_row(entry, keep_s) for entry in entries]
        done = Changed()
        for first in range(0, len(rows), ROWS_PER_CALL):
            some = rows[first : first + ROWS_PER_CALL]
            request = {"verb": "add", "rows": some, "most": most, "actor": actor}
            request["quiet"] = is_import
            word, new, changed = await self._change(request)
            done = Changed(done.added + new, done.changed + changed)
            if word == b"full":
                raise StateConflict(
                    f"the suppression list is full: it has {most} entries (suppression.entries) "
                    f"and none of them ends; {done.added + done.changed} of yours were taken"
                )
        return done

    async def remove(self, names: Sequence[str], *, actor: str = "") -> int:
        """Take names off the list; how many were there."""
        gone = 0
        for first in range(0, len(names), ROWS_PER_CALL):
            some = list(names[first : first + ROWS_PER_CALL])
            gone += (await self._change({"verb": "remove", "rows": some, "actor": actor}))[1]
        return gone

    async def _change(self, request: dict[str, Any]) -> tuple[bytes, int, int]:
        request |= {"tenant": self._tenant}
        word, first, second = await self._scripts.call("suppress", request)
        return word, first, second

    async def find(self, name: str) -> list[Suppression]:
        """What keeps a name from mail: its own entry, then that of its domain."""
        names = dict.fromkeys((name, "@" + name.rpartition("@")[2]))
        request = {"tenant": self._tenant, "names": list(names)}
        return list(_entries(await self._scripts.call("suppressions", request)))

    async def page(
        self, which: SuppressionFilter, *, limit: int = 100, cursor: str = ""
    ) -> tuple[list[Suppression], str]:
        """Entries that fit, newest first; the cursor of the next page or "".

        A page may have less than `limit`, even nothing, and be followed by another one.
        """
        found: list[Suppression] = []
        since, _, after = cursor.partition(":")
        place, looked = (int(since or 0), after), 0
        while True:
            more, place, entries = await self._read(place, min(limit - len(found), 500))
            found += filter(which.fits, entries)
            looked += 500
            if not more:
                return found, ""
            if len(found) == limit or looked >= LOOKED_AT:
                return found, f"{place[0]}:{place[1]}"

    async def _read(
        self, place: tuple[int, str], limit: int
    ) -> tuple[bool, tuple[int, str], list[Suppression]]:
        request = {"tenant": self._tenant, "since": place[0], "after": place[1], "limit": limit}
        more, last, since, *rest = await self._scripts.call("suppressions", request)
        return bool(more), (int(float(since)), last.decode()), list(_entries(rest))


def pack_consequence(consequence: Consequence) -> list[Any]:
    """As the scripts take it (`suppress_for`)."""
    kept_ms = int(consequence.keep_s * 1000)
    return [str(consequence.reason), str(consequence.origin), kept_ms, consequence.most]


def _row(entry: Suppression, keep_s: float) -> list[Any]:
    until_ms = int((entry.until or 0) * 1000)
    since_ms, kept_ms = int(entry.since * 1000), int(keep_s * 1000)
    said = [str(entry.reason), str(entry.origin)]
    return [entry.name, *said, since_ms, until_ms, kept_ms, entry.evidence, entry.note]


def _entries(flat: Sequence[bytes]) -> Iterable[Suppression]:
    for name, packed in zip(flat[::2], flat[1::2], strict=True):
        _, reason, origin, since_ms, until_ms, evidence, note = unpack(packed)
        yield Suppression(
            name=name.decode(),
            reason=SuppressionReason(reason),
            origin=Origin(origin),
            since=since_ms / 1000,
            until=until_ms / 1000 if until_ms else None,
            evidence=evidence,
            note=note,
        )
