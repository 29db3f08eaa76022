"""B1: SMTP in, queue, SMTP out, 10 KB messages, 50 domains; Postfix alternating in the same run.

A run ends when the receiver has accepted every message. Each system's figure is the median of
three rounds at its best number of client sessions of 10, 50, 100.
"""

import statistics
import time
from pathlib import Path

import uvloop

from bench import source
from bench.postfix import Postfix
from bench.system import Relay, free_port
from relay.sim.client import SinkClient

MESSAGES = 3000
OCTETS = 10_000
SESSIONS = (10, 50, 100)
ROUNDS = 3
LIMIT_S = 60.0


def measure(port: int, sink: SinkClient, *, sessions: int, messages: int = MESSAGES) -> float:
    """Messages per second from the first connection to the last receipt."""
    sink.clear()
    began = time.monotonic()
    uvloop.run(source.run(port, messages=messages, sessions=sessions, octets=OCTETS, domains=50))
    while sink.status()["counters"]["messages"] < messages:
        if time.monotonic() - began > LIMIT_S:
            got = sink.status()["counters"]["messages"]
            raise RuntimeError(f"only {got} of {messages} messages arrived in {LIMIT_S:g} s")
        time.sleep(0.05)
    return messages / (time.monotonic() - began)


def run(cache: Path, base: Path) -> list[str]:
    """Measure both; the lines of the table."""
    relay = Relay(base / "relay")
    relay.start()
    postfix = Postfix(cache, base / "postfix", port=free_port(), receiver=relay.sink_port)
    postfix.start()
    try:
        ports = {"relay": relay.smtp_port, "postfix": postfix.port}
        for port in ports.values():
            measure(port, relay.sink, sessions=10, messages=500)
        best = {name: _best(port, relay.sink) for name, port in ports.items()}
        rates: dict[str, list[float]] = {name: [] for name in ports}
        ours: dict[str, float] = {}
        theirs = 0.0
        for _ in range(ROUNDS):
            before = relay.cpu_seconds()
            rates["relay"].append(measure(ports["relay"], relay.sink, sessions=best["relay"]))
            for name, seconds in relay.cpu_seconds().items():
                ours[name] = ours.get(name, 0.0) + seconds - before.get(name, 0.0)
            spent = postfix.cpu_seconds()
            rates["postfix"].append(measure(ports["postfix"], relay.sink, sessions=best["postfix"]))
            theirs += postfix.cpu_seconds() - spent
    finally:
        postfix.stop()
        relay.stop()
    return _lines(rates, best, ours, theirs)


def _best(port: int, sink: SinkClient) -> int:
    return max(SESSIONS, key=lambda number: measure(port, sink, sessions=number, messages=1500))


def _lines(
    rates: dict[str, list[float]],
    best: dict[str, int],
    ours: dict[str, float],
    theirs: float,
) -> list[str]:
    middle = {name: statistics.median(values) for name, values in rates.items()}
    each = 1e6 / (ROUNDS * MESSAGES)
    shares = "  ".join(f"{name} {ours[name] * each:.0f}" for name in sorted(ours) if ours[name])
    return [
        f"B1  SMTP in -> queue -> SMTP out, 10 KB: relay {middle['relay']:.0f}/s"
        f" ({best['relay']} sessions), Postfix {middle['postfix']:.0f}/s"
        f" ({best['postfix']} sessions): {middle['relay'] / middle['postfix']:.2f} x"
        " (target 2 x)",
        f"    rounds: relay {_all(rates['relay'])}, Postfix {_all(rates['postfix'])}",
        f"    CPU us/message: {shares}; Postfix {theirs * each:.0f}",
    ]


def _all(values: list[float]) -> str:
    return " ".join(f"{value:.0f}" for value in values)
