"""Where destinations' mail goes: looked up, recorded for all workers, and looked up anew where the
record was made under another configuration.

A route is believed for as long as DNS says (a refusal a few minutes), but never against the present
configuration: mail must not go to the smarthost of yesterday, nor fail for what is allowed today.
"""

import asyncio
from random import Random

import structlog

from relay.delivery.directory import Directory
from relay.delivery.routing import (
    DANE_REQUIRED,
    NOT_ADMITTED,
    RETRY_S,
    Routed,
    Unroutable,
    decode_site,
    encode_site,
    pool_of,
    resolve_destination,
)
from relay.delivery.tls_results import TlsResults
from relay.model.lane import Lane
from relay.model.verdict import Scope, Severity, Verdict
from relay.store.work import Work

#: Destinations looked up at the same time.
SIDE_BY_SIDE = 50
#: A refusal of DNS is believed for so long, and not a moment longer: it fails mail for good.
REFUSAL_FRESH_S = 300.0
#: Of a domain that had a route within the day, a denial is believed when it comes once more after
#: so many in a row: they are 15, 60, 135 and 240 s apart, beyond any negative TTL of ours.
REFUSALS_DOUBTED = 4
_DOUBTED = frozenset({"no_such_domain", "no_usable_host"})
#: So many destinations of a lane find their new one before it rests.
_MOVED_AT_ONCE = 2000

_log = structlog.get_logger("relay.routing")


class Routes:
    """The routes of one process, in its configuration."""

    def __init__(
        self,
        directory: Directory,
        work: Work,
        random: Random,
        results: TlsResults | None = None,
    ) -> None:
        """`results` is told of domains whose published policy leaves them no host."""
        self._directory = directory
        self._work = work
        self._random = random
        self._results = results

    async def find(self, destination: str) -> None:
        """Look a destination up and record its lane, or why there is none yet."""
        directory, work = self._directory, self._work
        found = await resolve_destination(
            destination,
            resolver=directory.resolver,
            routes=directory.routes,
            shaping=directory.shaping,
            settings=directory.settings,
            random=self._random,
            sts=directory.sts,
        )
        record = encode_site(found, directory.digest)
        if not isinstance(found, Unroutable):
            await work.routed(destination, str(found.lane), record, fresh_s=found.ttl_s)
        elif found.verdict.severity is Severity.PERMANENT and not await self._is_doubted(
            destination, found.verdict
        ):
            # A site of its own that is nowhere: its mail gets the verdict, no packet leaves.
            lane = Lane(f"!{destination}", pool_of(directory.settings), "none")
            fresh_s = REFUSAL_FRESH_S
            await work.routed(destination, str(lane), record, fresh_s=fresh_s, stale_s=fresh_s)
        else:
            verdict = found.verdict
            if self._results is not None:
                self._tell(self._results, destination, verdict)
            _log.info("route.unknown", destination=destination, reason=verdict.reason)
            await work.unroutable(destination, verdict.reason, verdict.text)

    @staticmethod
    def _tell(results: TlsResults, destination: str, verdict: Verdict) -> None:
        if verdict.reason == NOT_ADMITTED:
            results.not_admitted(destination, verdict.text)
        elif verdict.reason == DANE_REQUIRED:
            results.not_authentic(destination, verdict.text)

    async def _is_doubted(self, destination: str, refusal: Verdict) -> bool:
        """Whether DNS denies all of a sudden what was there today: zones are broken by mistake."""
        if refusal.reason not in _DOUBTED:
            return False
        failures = await self._work.failures_in_a_row(destination)
        return failures is not None and failures < REFUSALS_DOUBTED

    async def site_of(self, lane: str) -> Routed | Unroutable | None:
        """The record of a lane; None where its mail has just found another one."""
        record = await self._record(lane)
        if record is not None:
            return record
        left = await self._move(lane)
        record = await self._record(lane)
        if record is None and left:
            text = "The route was made under another configuration and cannot be renewed now."
            verdict = Verdict(Severity.TRANSIENT, Scope.LOCAL, "route_changed", text)
            return Unroutable(verdict, retry_after_s=RETRY_S)
        return record

    async def _record(self, lane: str) -> Routed | Unroutable | None:
        raw = await self._work.site_of(lane)
        return None if raw is None else decode_site(raw, self._directory.digest)

    async def _move(self, lane: str) -> bool:
        """Look a lane's destinations up anew; whether some stay, for now."""
        _log.info("route.renewed", lane=lane)
        moved, before = 0, list[str]()
        while names := await self._work.destinations_of(lane, SIDE_BY_SIDE):
            if names == before or moved >= _MOVED_AT_ONCE:
                return True
            await asyncio.gather(*map(self.find, names))
            if await self._record(lane) is not None:
                return True
            moved, before = moved + len(names), names
        return False
