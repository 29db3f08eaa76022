"""The wires that submissions go by: one while few are under way, more beside it when many are.

From one connection Redis reads 16 to 32 KiB, three messages of 10 KB, before it does what they say
and writes that to disk. What comes by several it reads together, and syncs with one call.
"""

import contextlib
from collections.abc import Iterator

from relay.store.scripts import Scripts
from relay.store.wire import Wire

#: Submissions under way by one wire before the next one is taken.
BUSY = 8
MOST_WIRES = 8


class _Way:
    """A wire, the scripts over it, and how many submissions are under way by it."""

    def __init__(self, wire: Wire, scripts: Scripts) -> None:
        self.wire = wire
        self.scripts = scripts
        self.under_way = 0


class Fan:
    """Wires to one store; a submission goes by one of them alone."""

    def __init__(self, wire: Wire, scripts: Scripts) -> None:
        self._ways = [_Way(wire, scripts)]

    @contextlib.contextmanager
    def way(self) -> Iterator[tuple[Wire, Scripts]]:
        """The wire for one submission: the first that is not busy, else the least busy one."""
        way = self._pick()
        way.under_way += 1
        try:
            yield way.wire, way.scripts
        finally:
            way.under_way -= 1

    def _pick(self) -> _Way:
        for way in self._ways:
            if way.under_way < BUSY:
                return way
        if len(self._ways) == MOST_WIRES:
            return min(self._ways, key=lambda way: way.under_way)
        first = self._ways[0]
        wire = first.wire.sibling()
        self._ways.append(_Way(wire, first.scripts.over(wire)))
        return self._ways[-1]

    async def close(self) -> None:
        """Close the wires that were opened here."""
        for way in self._ways[1:]:
            await way.wire.close()
        del self._ways[1:]
