"""B2: a newsletter to 50 sites, 10 KB, every body another one, through the Python client.

Compared with Postfix's B1, by turns. Until there are batches each reader's message is submitted,
stored and read by itself.
"""

import statistics

from bench.compare import best_sessions, both, postfix_meter
from bench.compare import rate as smtp_rate
from bench.meter import Meter, beside_postfix
from bench.newsletter import drain_rate, rate
from bench.report import Result, rounds, say
from bench.run import Run
from bench.source import Load

TARGET = 5.0


def run(run: Run) -> list[Result]:
    """Measure both."""
    messages = run.size(10_000, 2000)
    load = Load(messages=run.size(4000, 1000))
    with both(run) as sides:
        received = sides.receiver.received
        rate(sides.relay, received, 500)
        trial = Load(messages=load.messages // 4)
        smtp_rate(sides.postfix.port, received, trial, sessions=10)
        sessions = 50 if run.is_quick else best_sessions(sides.postfix.port, received, trial)
        ours, theirs = Meter(sides.relay, receiver=sides.receiver.cpu_seconds), postfix_meter(sides)
        our_rates, their_rates = [], []
        for _ in range(run.rounds):
            with ours:
                our_rates.append(rate(sides.relay, received, messages))
            with theirs:
                their_rates.append(smtp_rate(sides.postfix.port, received, load, sessions=sessions))
            say(f"  relay {our_rates[-1]:.0f}/s, Postfix {their_rates[-1]:.0f}/s")
        accepted, drained = drain_rate(sides.relay, received, messages)
    ratio = statistics.median(our_rates) / statistics.median(their_rates)
    total = run.rounds * messages
    cpu = ours.each(total)
    cpu["Postfix"] = theirs.each(run.rounds * load.messages)["Postfix"]
    return [
        Result(
            code="B2",
            what="newsletter, 50 sites, 10 KB, Python client",
            relay=f"{statistics.median(our_rates):.0f}/s ({ratio:.2f} x)",
            postfix=f"{statistics.median(their_rates):.0f}/s (B1)",
            target=f">= {TARGET:g} x Postfix's B1",
            met=ratio >= TARGET,
            cpu=cpu,
            notes=(
                f"rounds: relay {rounds(our_rates)}, Postfix {rounds(their_rates)}",
                f"one after the other: accepted at {accepted:.0f}/s, delivered at {drained:.0f}/s",
                beside_postfix(cpu),
                ours.redis_each(total),
            ),
        )
    ]
