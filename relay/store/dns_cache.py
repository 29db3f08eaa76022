"""DNS answers that all workers share."""

import contextlib

from relay.model.errors import StoreError
from relay.store.queue import Store


class RedisDnsCache:
    """The resolver's second level, shared by all workers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, key: str) -> bytes | None:
        """A cached answer."""
        try:
            raw: bytes | None = await self._store.wire.call("GET", f"{self._store.p}dns:{key}")
        except StoreError:
            return None
        return raw

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Remember an answer, as far as there is room: looking things up must not need any."""
        with contextlib.suppress(StoreError):
            await self._store.wire.call(
                "SET", f"{self._store.p}dns:{key}", value, "PX", max(int(ttl_s * 1000), 1)
            )
