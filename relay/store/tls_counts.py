"""How TLS sessions with each domain went, by day and policy, for the reports about it (RFC 8460).

Redis forgets by itself what nobody fetched, and a domain's day has a bounded number of fields, so
that whoever makes sessions fail in many ways, or changes its policy all day, does not fill the
memory. Who makes a day's report of a domain claims it first: of several workers one does.
"""

import hashlib
from collections.abc import Mapping

from relay.store.queue import Store

#: Fields of a domain's day; failures beyond are counted by their type alone.
FIELDS_KEPT = 200
#: A day is kept for so long after its last count.
KEPT_S = 4 * 86400
#: A worker that was killed while it made a report has it made by another after so long.
MAKING_S = 300
_POLICY = "="
_DIGEST_DIGITS = 8
_MADE = b"made"


class TlsCounts:
    """Counts by (day, domain), policy and text form."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, day: str, domain: str, policy: bytes, counts: Mapping[str, int]) -> None:
        """Add to what was counted of sessions held to a policy; StoreError."""
        call, key = self._store.wire.call, self._key(day, domain)
        name = hashlib.sha256(policy).hexdigest()[:_DIGEST_DIGITS]
        is_full = int(await call("HLEN", key)) + len(counts) >= FIELDS_KEPT
        if is_full and not await call("HEXISTS", key, _POLICY + name):
            return
        await call("HSET", key, _POLICY + name, policy)
        for field, count in counts.items():
            kept = _short(field) if is_full else field
            await call("HINCRBY", key, name + kept, count)
        await call("EXPIRE", key, KEPT_S)
        await call("SADD", self._day(day), domain)
        await call("EXPIRE", self._day(day), KEPT_S)

    async def read(self, day: str, domain: str) -> list[tuple[bytes, dict[str, int]]]:
        """Each policy with what was counted under it; nothing where nothing was."""
        raw = await self._store.wire.call("HGETALL", self._key(day, domain))
        policies: dict[str, bytes] = {}
        counts: dict[str, dict[str, int]] = {}
        for octets, value in zip(raw[::2], raw[1::2], strict=True):
            name = octets.decode()
            if name.startswith(_POLICY):
                policies[name[1:]] = value
            else:
                digest, field = name[:_DIGEST_DIGITS], name[_DIGEST_DIGITS:]
                counts.setdefault(digest, {})[field] = int(value)
        return [(policies.get(digest, b""), counts[digest]) for digest in sorted(counts)]

    async def some(self, day: str, limit: int) -> list[str]:
        """Some domains of a day whose report was not made."""
        raw = await self._store.wire.call("SRANDMEMBER", self._day(day), limit)
        return [name.decode() for name in raw]

    async def claim(self, day: str, domain: str) -> bool:
        """Whether it is ours to make the report: nobody else has made it, or is making it."""
        call = self._store.wire.call
        return bool(await call("SET", self._made(day, domain), b"", "NX", "EX", MAKING_S))

    async def is_made(self, day: str, domain: str) -> bool:
        """Whether the report of the domain's day is made: what is counted now came too late."""
        made: bytes | None = await self._store.wire.call("GET", self._made(day, domain))
        return made == _MADE

    async def end(self, day: str, domain: str) -> None:
        """The report of the domain's day is made, for ever."""
        call = self._store.wire.call
        await call("SET", self._made(day, domain), _MADE, "EX", KEPT_S)
        await self.forget(day, domain)

    async def forget(self, day: str, domain: str) -> None:
        """What was counted is of no use any more."""
        await self._store.wire.call("SREM", self._day(day), domain)
        await self._store.wire.call("DEL", self._key(day, domain))

    def _day(self, day: str) -> str:
        return f"{self._store.p}tls-days:{day}"

    def _key(self, day: str, domain: str) -> str:
        return f"{self._store.p}tls-counts:{day}:{domain}"

    def _made(self, day: str, domain: str) -> str:
        return f"{self._store.p}tls-made:{day}:{domain}"


def _short(field: str) -> str:
    """The text form of a failure without its particulars; that of a success as it is."""
    return field.partition(",")[0] + ',"","","",""]' if field.startswith("[") else field
