"""B11: transactional mail during the newsletter of B2, to a site that has 1,000,000 bulk ready.

The bulk for that site and the newsletter to fifty others flow all the while; a transactional
message to a reader at that site goes in by the Python client twenty times a second.
"""

import asyncio
import time

import uvloop

from bench.client import endless_newsletter
from bench.latency import Watch, quantile, shape
from bench.receiver import PlainReceiver
from bench.report import Result
from bench.run import Run
from bench.stores import Plan, stored
from bench.system import Relay

A_SECOND = 20
LOOK_EVERY_S = 5
TARGET_MS = 250.0
_CONTENT = b"From: <shop@example.org>\r\nSubject: your code\r\n\r\n123456\r\n"


async def _transact(relay: Relay, domain: str, count: int, watch: Watch) -> dict[str, float]:
    """Send at a steady rate; when each was submitted.

    Receipts are looked at meanwhile: the simulated internet keeps the newest only.
    """
    sent: dict[str, float] = {}
    async with relay.client() as client:
        began, tasks = time.monotonic(), []

        async def send(number: int) -> None:
            address = f"code{number}@{domain}"
            sent[address] = time.time()
            await client.send_raw(_CONTENT, sender="shop@example.org", recipients=[address])

        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / A_SECOND - time.monotonic()))
            tasks.append(asyncio.create_task(send(number)))
            if number % (A_SECOND * LOOK_EVERY_S) == 0:
                await asyncio.to_thread(watch.look)
        await asyncio.gather(*tasks)
    return sent


def run(run: Run) -> list[Result]:
    """Measure."""
    plan = Plan(name="bulk", recipients=run.size(1_000_000, 50_000), domains=1, is_deferred=False)
    held = stored(run, plan)
    ((domain, _),) = plan.counts()
    relay = Relay(run.folder("relay"))
    relay.start(held.path)
    try:
        with PlainReceiver(run.cache, relay.sink_port) as receiver:
            relay.send_to(receiver, "plain.test")
            newsletter = endless_newsletter(relay)
            time.sleep(3)
            began, bulk = time.monotonic(), relay.received()
            letters = receiver.received()
            watch = Watch(relay.sink, reverse_path="shop@example.org")
            sent = uvloop.run(_transact(relay, domain, run.size(600, 200), watch))
            seconds = time.monotonic() - began
            letters = receiver.received() - letters
            bulk = relay.received() - bulk - len(sent)
            newsletter.terminate()
            newsletter.wait()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and len(watch.accepted_at) < len(sent):
                watch.look()
                time.sleep(0.5)
    finally:
        relay.stop()
    if not sent.keys() <= watch.accepted_at.keys():
        raise RuntimeError(f"{len(sent.keys() - watch.accepted_at.keys())} did not arrive")
    samples = [(watch.accepted_at[address] - at) * 1000 for address, at in sent.items()]
    p99 = quantile(samples, 0.99)
    return [
        Result(
            code="B11",
            what=f"transactional mail beside {held.recipients:,} bulk for the site and B2",
            relay=shape(samples),
            target=f"p99 <= {TARGET_MS:g} ms",
            met=p99 <= TARGET_MS,
            notes=(
                f"meanwhile {bulk / seconds:.0f}/s of the bulk for that site (to relay's sink)"
                f" and {letters / seconds:.0f}/s of the newsletter were delivered",
            ),
        )
    ]
