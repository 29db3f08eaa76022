"""What incoming reports say of recipients, told as events; see `lua/tell.lua`."""

from typing import Any

import msgspec

from relay.model.suppression import Consequence
from relay.store.queue import Store
from relay.store.suppressions import DEFAULT_TENANT, pack_consequence


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
    consequence: Consequence | None = None,
    is_vouched: bool = False,
) -> Told:
    """Tell it once in `keep_s`; number 0: the recipient with this address. StoreUnavailable.

    `consequence`: what it means for the suppression list; where the message is forgotten only if
    the address `is_vouched` for.
    """
    request: dict[str, Any] = {
        "id": queue_id,
        "only": number,
        "event": event,
        "address": address,
        "keep_ms": int(keep_s * 1000),
        "data": data,
    }
    if consequence is not None:
        request |= {"suppress": pack_consequence(consequence), "vouched": is_vouched}
        request["tenant"] = DEFAULT_TENANT
    word, found = await store.scripts.call("tell", request)
    return Told(word.decode(), found)
