"""B6: 100 live sites beside one dead site with 50,000 messages queued, and beside 500 tarpits.

The live mail is a steady trickle; its latency alone, then with each kind of trouble, and both.
"""

import asyncio
import time

import uvloop

from bench.client import readers, send_newsletter
from bench.latency import Watch, quantile, shape
from bench.report import Result, say
from bench.run import Run
from bench.system import Relay

LIVE_SITES, TARPITS = 100, 500
A_SECOND = 100
TARGET = 2.0
_CONTENT = b"From: <shop@example.org>\r\nSubject: your order\r\n\r\nThank you.\r\n"


async def _trickle(relay: Relay, watch: Watch, name: str, count: int) -> list[float]:
    """Latencies in milliseconds of `count` messages at a steady rate."""
    sent: dict[str, float] = {}
    async with relay.client() as client:

        async def send(number: int) -> None:
            address = f"{name}{number}@live{number % LIVE_SITES}.notls.test"
            sent[address] = time.time()
            await client.send_raw(_CONTENT, sender="shop@example.org", recipients=[address])

        began, tasks = time.monotonic(), []
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / A_SECOND - time.monotonic()))
            tasks.append(asyncio.create_task(send(number)))
        await asyncio.gather(*tasks)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not sent.keys() <= watch.accepted_at.keys():
        await asyncio.to_thread(watch.look)
        await asyncio.sleep(0.2)
    missing = sent.keys() - watch.accepted_at.keys()
    if missing:
        raise RuntimeError(f"{len(missing)} of {count} live messages did not arrive: {name}")
    return [(watch.accepted_at[address] - at) * 1000 for address, at in sent.items()]


async def _queue_for_the_dead(relay: Relay, count: int) -> None:
    """50,000 messages for one site whose hosts refuse connections."""
    await send_newsletter(relay, readers(count, lambda _: "one.dead.test"), octets=500)


async def _queue_for_tarpits(relay: Relay, each: int) -> None:
    """Mail for 500 sites that take the connection and never speak."""
    addresses = (
        f"r{number}@t{tarpit}.tarpit.test" for number in range(each) for tarpit in range(TARPITS)
    )
    await send_newsletter(relay, addresses, octets=500)


def run(run: Run) -> list[Result]:
    """Measure the live mail alone and beside each trouble."""
    count, dead = run.size(3000, 500), run.size(50_000, 5000)
    found: dict[str, list[float]] = {}
    with Relay(run.folder("relay")) as relay:
        watch = Watch(relay.sink)

        def measure(name: str) -> None:
            found[name] = uvloop.run(_trickle(relay, watch, name, count))
            say(f"  {name}: p95 {quantile(found[name], 0.95):.1f} ms, {shape(found[name])}")

        uvloop.run(_trickle(relay, watch, "warm", LIVE_SITES * 2))
        measure("alone")
        uvloop.run(_queue_for_the_dead(relay, dead))
        measure("dead")
        uvloop.run(_queue_for_tarpits(relay, 4))
        measure("both")
        time.sleep(run.size(20, 5))
        measure("later")
    p95 = {name: quantile(samples, 0.95) for name, samples in found.items()}
    worst = max(p95[name] for name in ("dead", "both", "later")) / p95["alone"]
    shown = {
        "alone": "alone",
        "dead": f"beside {dead:,} messages for a dead site",
        "both": f"beside those and {TARPITS} tarpits that have just got mail",
        "later": "the same, when the tarpits have been silent for a while",
    }
    return [
        Result(
            code="B6",
            what="live sites beside a dead one and 500 tarpits, p95",
            relay=f"{max(p95.values()):.1f} ms ({worst:.2f} x)",
            target=f"<= {TARGET:g} x alone",
            met=worst <= TARGET,
            notes=tuple(
                f"p95 {p95[name]:.1f} ms, {shape(found[name])}: {text}"
                for name, text in shown.items()
            ),
        )
    ]
