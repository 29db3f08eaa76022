"""B10: a receiver that is far away: what it answers arrives after 50 ms, 20 sessions to one site.

With one round trip a message 20 sessions carry 400 messages a second: the final dot and the next
MAIL, RCPT and DATA leave in one write. The receiver is smtp-sink behind a line with that delay.
"""

import statistics

from bench.long_line import LongLine
from bench.meter import Meter
from bench.newsletter import rate
from bench.receiver import PlainReceiver
from bench.report import Result, rounds, say
from bench.run import Run
from bench.system import Relay

DELAY_S, SESSIONS = 0.05, 20
TARGET = 0.9 * SESSIONS / DELAY_S
FAR = "127.0.0.3"


def far_site(_: int) -> str:
    """The one domain behind the line."""
    return "one.onemx.far.test"


def run(run: Run) -> list[Result]:
    """Measure."""
    messages = run.size(4000, 1500)
    with (
        Relay(run.folder("relay"), connections=SESSIONS) as relay,
        PlainReceiver(run.cache, relay.sink_port) as receiver,
        LongLine(FAR, receiver, DELAY_S) as line,
    ):
        relay.sink.set_dns("*.far.test", "A", line.address)
        meter, rates = Meter(relay, receiver=receiver.cpu_seconds, line=line.cpu_seconds), []
        # The number of connections grows with success: measured is the road once it is wide.
        rate(relay, receiver.received, messages // 2, domain_of=far_site)
        for _ in range(run.rounds):
            with meter:
                rates.append(rate(relay, receiver.received, messages, domain_of=far_site))
            say(f"  {rates[-1]:.0f}/s")
    middle = statistics.median(rates)
    return [
        Result(
            code="B10",
            what="answers after 50 ms, 20 sessions to one site",
            relay=f"{middle:.0f}/s",
            target=f">= {TARGET:g}/s",
            met=middle >= TARGET,
            cpu=meter.each(run.rounds * messages),
            notes=(
                f"rounds: {rounds(rates)};"
                f" {middle * DELAY_S / SESSIONS:.2f} messages a round trip and session",
            ),
        )
    ]
