"""How TLS sessions with each domain went, by day, for the reports about it (RFC 8460).

Redis forgets by itself what nobody fetched, and a domain's day has a bounded number of fields, so
that whoever makes sessions fail in many ways does not fill the memory.
"""

from collections.abc import Mapping

from relay.store.queue import Store

#: Fields of a domain's day; failures beyond are counted by their type alone.
FIELDS_KEPT = 200
#: A day is kept for so long after its last count.
KEPT_S = 4 * 86400
_POLICY = "policy"


class TlsCounts:
    """Counts by (day, domain) and text form; a policy beside them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, day: str, domain: str, counts: Mapping[str, int], policy: bytes) -> None:
        """Add to what was counted; StoreError."""
        call, key = self._store.wire.call, self._key(day, domain)
        is_full = int(await call("HLEN", key)) + len(counts) > FIELDS_KEPT
        for field, count in counts.items():
            kept = _short(field) if is_full else field
            await call("HINCRBY", key, kept, count)
        await call("HSET", key, _POLICY, policy)
        await call("EXPIRE", key, KEPT_S)
        await call("SADD", self._day(day), domain)
        await call("EXPIRE", self._day(day), KEPT_S)

    async def read(self, day: str, domain: str) -> tuple[dict[str, int], bytes]:
        """What was counted, and the policy; nothing where nothing was."""
        raw = await self._store.wire.call("HGETALL", self._key(day, domain))
        fields = {name.decode(): value for name, value in zip(raw[::2], raw[1::2], strict=True)}
        policy = fields.pop(_POLICY, b"")
        return {name: int(value) for name, value in fields.items()}, policy

    async def some(self, day: str, limit: int) -> list[str]:
        """Some domains of a day whose report was not fetched."""
        raw = await self._store.wire.call("SRANDMEMBER", self._day(day), limit)
        return [name.decode() for name in raw]

    async def forget(self, day: str, domain: str) -> None:
        """A domain's report of a day was made."""
        await self._store.wire.call("SREM", self._day(day), domain)
        await self._store.wire.call("DEL", self._key(day, domain))

    def _day(self, day: str) -> str:
        return f"{self._store.p}tls-days:{day}"

    def _key(self, day: str, domain: str) -> str:
        return f"{self._store.p}tls:{day}:{domain}"


def _short(field: str) -> str:
    """The text form of a failure without its particulars; that of a success as it is."""
    return field.partition(",")[0] + ',"","","",""]' if field.startswith("[") else field
