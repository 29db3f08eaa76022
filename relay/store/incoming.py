"""What incoming reports say of recipients, told as events; see `lua/tell.lua`."""

from typing import Any

import msgspec

from relay.store.queue import Store


class Told(msgspec.Struct, frozen=True):
    """How a report was taken: `new`, `again` (it was known) or `unknown` (no such recipient)."""

    word: str
    number: int


async def tell(
    store: Store,
    queue_id: str,
    number: int,
    *,
    event: str,
    address: str,
    keep_s: float,
    data: dict[str, Any],
) -> Told:
    """Tell it once in `keep_s`; number 0: the recipient with this address. StoreUnavailable."""
    request = {
        "id": queue_id,
        "only": number,
        "event": event,
        "address": address,
        "keep_ms": int(keep_s * 1000),
        "data": data,
    }
    word, found = await store.scripts.call("tell", request)
    return Told(word.decode(), found)
