"""Newsletter runs: readers at many sites, a body for each, through the Python client."""

import time
from collections.abc import Callable

import uvloop

from bench.client import plain_site, readers, send_newsletter
from bench.receiver import wait_until
from bench.system import Relay
from relay.store.queue import Store
from relay.store.views import QueueMatch

LIMIT_S = 180.0


def rate(
    relay: Relay,
    received: Callable[[], int],
    messages: int,
    *,
    domain_of: Callable[[int], str] = plain_site,
    octets: int = 10_000,
) -> float:
    """Messages a second from the first submission to the last receipt."""
    before, began = received(), time.monotonic()
    uvloop.run(send_newsletter(relay, readers(messages, domain_of), octets=octets))
    wait_until(received, before + messages, limit_s=LIMIT_S)
    return messages / (time.monotonic() - began)


def drain_rate(
    relay: Relay,
    received: Callable[[], int],
    messages: int,
    *,
    domain_of: Callable[[int], str] = plain_site,
) -> tuple[float, float]:
    """Messages a second accepted while all queues are suspended, and delivered after that."""
    before = received()
    uvloop.run(_suspend(relay, suspended=True))
    seconds = uvloop.run(send_newsletter(relay, readers(messages, domain_of)))
    began = time.monotonic()
    uvloop.run(_suspend(relay, suspended=False))
    wait_until(received, before + messages, limit_s=LIMIT_S)
    return messages / seconds, messages / (time.monotonic() - began)


async def _suspend(relay: Relay, *, suspended: bool) -> None:
    store = await Store.connect(relay.url, "sink", client_name="bench")
    everything = QueueMatch()
    try:
        if suspended:
            await store.suspend(everything, reason="bench", duration_s=3600)
        else:
            await store.resume(everything)
    finally:
        await store.close()
