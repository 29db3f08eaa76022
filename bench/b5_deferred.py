"""B5: the newsletter of B2 while 1,000,000 recipients in 20,000 domains (Zipf) are deferred.

Two relays by turns: one whose store is empty, one whose store holds the million. Until there are
batches each deferred recipient has a message of its own, so the octets a recipient are not yet
those of the target (400 for a batch recipient with three substitutions of 12 characters).
"""

import statistics

from bench.meter import Meter
from bench.newsletter import rate
from bench.receiver import PlainReceiver
from bench.report import Result, rounds, say
from bench.run import Run
from bench.stores import Plan, stored
from bench.system import Relay

TARGET = 0.9


def plan_of(run: Run) -> Plan:
    """The million."""
    return Plan(
        name="deferred",
        recipients=run.size(1_000_000, 20_000),
        domains=run.size(20_000, 1000),
        is_deferred=True,
    )


def run(run: Run) -> list[Result]:
    """Measure both."""
    held = stored(run, plan_of(run))
    messages = run.size(10_000, 2000)
    full = Relay(run.folder("full"))
    full.start(held.path)
    try:
        with (
            Relay(run.folder("empty")) as empty,
            PlainReceiver(run.cache, full.sink_port, address="127.0.0.2") as one,
            PlainReceiver(run.cache, empty.sink_port, address="127.0.0.3") as other,
        ):
            sides = {"full": (full, one), "empty": (empty, other)}
            meters = {
                name: Meter(relay, receiver=to.cpu_seconds) for name, (relay, to) in sides.items()
            }
            rates: dict[str, list[float]] = {name: [] for name in sides}
            for relay, receiver in sides.values():
                relay.send_to(receiver, "plain.test")
                rate(relay, receiver.received, 500)
            for _ in range(run.rounds):
                for name, (relay, receiver) in sides.items():
                    with meters[name]:
                        rates[name].append(rate(relay, receiver.received, messages))
                    say(f"  {name} {rates[name][-1]:.0f}/s")
            deferred = int(full.redis().hget("relay:sink:{r0}:states", "deferred") or 0)
    finally:
        full.stop()
    share = statistics.median(rates["full"]) / statistics.median(rates["empty"])
    total = run.rounds * messages
    alone = "  ".join(f"{name} {used:.0f}" for name, used in meters["empty"].each(total).items())
    return [
        Result(
            code="B5",
            what=f"newsletter while {held.recipients:,} recipients are deferred",
            relay=f"{statistics.median(rates['full']):.0f}/s ({share:.0%})",
            target=f">= {TARGET:.0%} of it alone",
            met=share >= TARGET,
            cpu=meters["full"].each(total),
            notes=(
                f"rounds: full {rounds(rates['full'])}, alone {rounds(rates['empty'])};"
                f" {deferred:,} still deferred at the end",
                f"CPU us/message alone: {alone}",
                f"Redis holds {held.octets_each:.0f} octets a deferred recipient, of which"
                f" {held.content_each:.0f} are its message",
                f"loaded: accepted in {held.accepted_s:.0f} s, deferred in {held.deferred_s:.0f} s",
            ),
        )
    ]
