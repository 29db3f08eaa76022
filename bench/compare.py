"""SMTP in, queue, SMTP out: relay and Postfix by turns, with the same source and receiver.

A round ends when the receiver has accepted every message. Each system works at its best number of
client sessions; its figure is the median of the rounds.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import uvloop

from bench import source
from bench.meter import Meter, beside_postfix
from bench.postfix import Postfix
from bench.processes import free_port
from bench.receiver import PlainReceiver, wait_until
from bench.report import rounds, say
from bench.run import Run
from bench.source import Load
from bench.system import Relay

SESSIONS = (10, 50, 100)
LIMIT_S = 120.0


class Sides(msgspec.Struct, frozen=True):
    """Both systems, running, and the receiver that both send to."""

    relay: Relay
    postfix: Postfix
    receiver: PlainReceiver


@contextmanager
def both(run: Run) -> Iterator[Sides]:
    """Start relay, Postfix and a receiver; end them."""
    with (
        Relay(run.folder("relay")) as relay,
        PlainReceiver(run.cache, relay.sink_port) as receiver,
        Postfix(
            run.cache,
            run.folder("postfix"),
            port=free_port(),
            receiver=(receiver.address, receiver.port),
        ) as postfix,
    ):
        relay.send_to(receiver, "plain.test")
        yield Sides(relay, postfix, receiver)


def rate(port: int, received: Callable[[], int], load: Load, *, sessions: int) -> float:
    """Messages a second from the first connection to the last receipt."""
    before, began = received(), time.monotonic()
    uvloop.run(source.run(port, load, sessions=sessions))
    wait_until(received, before + load.messages, limit_s=LIMIT_S)
    return load.messages / (time.monotonic() - began)


def best_sessions(port: int, received: Callable[[], int], load: Load) -> int:
    """The number of client sessions at which a system is fastest, by the best of two runs each."""
    found = dict.fromkeys(SESSIONS, 0.0)
    for number in SESSIONS * 2:
        found[number] = max(found[number], rate(port, received, load, sessions=number))
    return max(found, key=lambda number: found[number])


class Comparison(msgspec.Struct, frozen=True):
    """Rates by round (messages a second), best sessions and CPU of both."""

    ours: list[float]
    theirs: list[float]
    our_sessions: int
    their_sessions: int
    cpu: dict[str, float]
    redis: str

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def notes(self) -> tuple[str, ...]:
        return (
            f"rounds: relay {rounds(self.ours)} ({self.our_sessions} sessions),"
            f" Postfix {rounds(self.theirs)} ({self.their_sessions} sessions)",
            beside_postfix(self.cpu),
            self.redis,
        )


def compare(run: Run, load: Load) -> Comparison:
    """Alternating rounds of a load through both."""
    with both(run) as sides:
        received = sides.receiver.received
        ports = {"relay": sides.relay.smtp_port, "postfix": sides.postfix.port}
        best = {}
        for name, port in ports.items():
            rate(port, received, load, sessions=10)
            best[name] = 50 if run.is_quick else best_sessions(port, received, load)
            say(f"  {name}: {best[name]} sessions")
        ours, theirs = Meter(sides.relay, receiver=sides.receiver.cpu_seconds), postfix_meter(sides)
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for _ in range(run.rounds):
            for name, meter in (("relay", ours), ("postfix", theirs)):
                with meter:
                    rates[name].append(rate(ports[name], received, load, sessions=best[name]))
                say(f"  {name}: {rates[name][-1]:.0f}/s")
    total = run.rounds * load.messages
    cpu = ours.each(total) | {"Postfix": theirs.each(total)["Postfix"]}
    return Comparison(
        rates["relay"],
        rates["postfix"],
        best["relay"],
        best["postfix"],
        cpu,
        ours.redis_each(total),
    )


def postfix_meter(sides: Sides) -> Meter:
    """What Postfix uses."""
    return Meter(None, Postfix=sides.postfix.cpu_seconds)
