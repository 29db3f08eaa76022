"""B7: one message, idle system: from the submission's first octet to the receiver's acceptance."""

import asyncio
import statistics
import time
from pathlib import Path

import uvloop

from bench import source
from bench.postfix import Postfix
from bench.system import Relay, free_port
from relay.sim.client import SinkClient

MESSAGES = 200
PAUSE_S = 0.05


async def _sample(port: int, sink: SinkClient, number: int) -> float:
    session = await source.open_session(port)
    address = f"one{number}@idle.test"
    content = b"From: <news@example.org>\r\nSubject: one\r\n\r\nhello\r\n"
    began = time.time()
    await session.send([address], content)
    receipts = await asyncio.to_thread(sink.receipts, at_least=1, recipient=address)
    await session.quit()
    return (receipts[0].time - began) * 1000


async def _measure(port: int, sink: SinkClient, first: int) -> list[float]:
    samples = []
    for number in range(first, first + MESSAGES):
        samples.append(await _sample(port, sink, number))
        await asyncio.sleep(PAUSE_S)
    return samples


def run(cache: Path, base: Path) -> list[str]:
    """Measure both; the lines of the table."""
    relay = Relay(base / "relay")
    relay.start()
    postfix = Postfix(cache, base / "postfix", port=free_port(), receiver=relay.sink_port)
    postfix.start()
    try:
        for port in (relay.smtp_port, postfix.port):
            uvloop.run(_sample(port, relay.sink, 1_000_000 + port))
        ours = uvloop.run(_measure(relay.smtp_port, relay.sink, 0))
        theirs = uvloop.run(_measure(postfix.port, relay.sink, MESSAGES))
    finally:
        postfix.stop()
        relay.stop()
    return [
        f"B7  one message, idle: relay {_shape(ours)}, Postfix {_shape(theirs)}"
        " (target p50 5 ms, p99 20 ms)"
    ]


def _shape(samples: list[float]) -> str:
    cuts = statistics.quantiles(samples, n=100)
    return f"p50 {cuts[49]:.1f} ms p99 {cuts[98]:.1f} ms"
