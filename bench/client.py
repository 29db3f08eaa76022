"""A newsletter through the Python client: a body of its own for each reader, no batch.

`python -m bench.client URL` goes on with one until it is ended.
"""

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import uvloop

from bench.source import Bodies
from bench.system import Relay
from relay.ingress.client import AsyncRelay

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
    return await _send(relay.client(), addresses, octets=octets, at_once=at_once)


async def _send(
    client: AsyncRelay, addresses: Iterable[str], *, octets: int, at_once: int
) -> float:
    numbered = iter(enumerate(addresses))
    bodies = Bodies(octets)
    async with client:

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


SITES = 50


def plain_site(number: int) -> str:
    """Fifty domains, each a site of its own."""
    return f"d{number % SITES}.plain.test"


def endless_newsletter(relay: Relay) -> "subprocess.Popen[bytes]":
    """A newsletter that goes on until the process is ended."""
    return subprocess.Popen([sys.executable, "-m", "bench.client", relay.url])


if __name__ == "__main__":
    _endless = (f"reader{number}@{plain_site(number)}" for number in itertools.count())
    _client = AsyncRelay(sys.argv[1], mode="sink")
    uvloop.run(_send(_client, _endless, octets=10_000, at_once=16))
