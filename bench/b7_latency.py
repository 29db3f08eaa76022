"""B7: one message, idle system: from the submission's first octet to the receiver's acceptance."""

import asyncio
import time

import uvloop

from bench.latency import quantile, shape
from bench.postfix import Postfix
from bench.processes import free_port
from bench.report import Result
from bench.run import Run
from bench.source import Session
from bench.system import Relay
from relay.sim.client import SinkClient

PAUSE_S = 0.05
TARGET_P50_MS, TARGET_P99_MS = 5.0, 20.0


async def _sample(port: int, sink: SinkClient, number: int) -> float:
    session = await Session.open(port)
    address = f"one{number}@idle.test"
    content = b"From: <news@example.org>\r\nSubject: one\r\n\r\nhello\r\n"
    began = time.time()
    await session.send([address], content)
    receipts = await asyncio.to_thread(sink.receipts, at_least=1, recipient=address)
    await session.quit()
    return (receipts[0].time - began) * 1000


async def _measure(port: int, sink: SinkClient, numbers: range) -> list[float]:
    samples = []
    for number in numbers:
        samples.append(await _sample(port, sink, number))
        await asyncio.sleep(PAUSE_S)
    return samples


def run(run: Run) -> list[Result]:
    """Measure both by turns."""
    each = run.size(300, 100)
    with (
        Relay(run.folder("relay")) as relay,
        Postfix(
            run.cache,
            run.folder("postfix"),
            port=free_port(),
            receiver=("127.0.0.1", relay.sink_port),
        ) as postfix,
    ):
        ports = (relay.smtp_port, postfix.port)
        samples: tuple[list[float], list[float]] = ([], [])
        for port in ports:
            uvloop.run(_sample(port, relay.sink, port))
        for number in range(run.rounds):
            for place, port in enumerate(ports):
                first = 100_000 + (2 * number + place) * each
                numbers = range(first, first + each)
                samples[place].extend(uvloop.run(_measure(port, relay.sink, numbers)))
    ours, theirs = samples
    p50, p99 = quantile(ours, 0.5), quantile(ours, 0.99)
    return [
        Result(
            code="B7",
            what="one message, idle system, submitted until accepted",
            relay=shape(ours),
            postfix=shape(theirs),
            target=f"p50 {TARGET_P50_MS:g} ms, p99 {TARGET_P99_MS:g} ms",
            met=p50 <= TARGET_P50_MS and p99 <= TARGET_P99_MS,
        )
    ]
