"""A newsletter through the Python client: a body of its own for each reader, no batch."""

import asyncio
import time
from collections.abc import Callable, Iterable

from bench.source import Bodies
from bench.system import Relay

#: Submissions under way at once in the one client process.
AT_ONCE = 64
_HEAD = """\
From: News <news@example.org>\r
To: Reader {number} <{address}>\r
Subject: What is new this week, reader {number}\r
List-Unsubscribe: <https://news.example.org/u/{number}>\r
List-Unsubscribe-Post: List-Unsubscribe=One-Click\r
MIME-Version: 1.0\r
Content-Type: text/plain\r
\r
"""


async def send_newsletter(
    relay: Relay, addresses: Iterable[str], *, octets: int = 10_000, at_once: int = AT_ONCE
) -> float:
    """One message to each address; seconds until the last one was accepted."""
    numbered = iter(enumerate(addresses))
    bodies = Bodies(octets)
    async with relay.client() as client:

        async def work() -> None:
            for number, address in numbered:
                head = _HEAD.format(number=number, address=address).encode()
                await client.send_raw(
                    head + bodies(number), sender="news@example.org", recipients=[address]
                )

        began = time.monotonic()
        await asyncio.gather(*(work() for _ in range(at_once)))
        return time.monotonic() - began


def readers(count: int, domain_of: Callable[[int], str]) -> Iterable[str]:
    """Addresses, each of the domain that its number gives."""
    return (f"reader{number}@{domain_of(number)}" for number in range(count))
