"""B4: 10,000 domains with one message each, 10 KB: warm, on 500 sites; and all of them cold.

Cold: each domain has an MX host of its own and nobody has asked for it before. The DNS is that of
the simulated internet, in packets; the receiver is Postfix's smtp-sink.
"""

import statistics
from collections.abc import Callable

from bench.meter import Meter
from bench.newsletter import rate
from bench.receiver import PlainReceiver
from bench.report import Result, rounds, say
from bench.run import Run
from bench.system import Relay

SITES = 500
WARM_TARGET, COLD_TARGET = 2000.0, 500.0


def shared_site(number: int, *, top: str = "shared.plain.test") -> str:
    """One of very many domains that share 500 sets of MX hosts."""
    return f"w{number}.s{number % SITES}.{top}"


def _unknown_site(number: int) -> Callable[[int], str]:
    """Domains of a round, which nobody has asked for before."""
    return lambda reader: f"c{number}x{reader}.onemx.plain.test"


def share_sites(relay: Relay, *, top: str = "shared.plain.test") -> None:
    """Tell the DNS of the shared MX hosts."""
    for number in range(SITES):
        relay.sink.set_dns(f"*.s{number}.{top}", "MX", f"10 mx.s{number}.{top}.")


def run(run: Run) -> list[Result]:
    """Measure both kinds."""
    domains = run.size(10_000, 1000)
    with (
        Relay(run.folder("relay"), RELAY_DNS_MIN_TTL="1h") as relay,
        PlainReceiver(run.cache, relay.sink_port) as receiver,
    ):
        relay.send_to(receiver, "plain.test")
        share_sites(relay)
        warm, cold = (Meter(relay, receiver=receiver.cpu_seconds) for _ in range(2))
        first = rate(relay, receiver.received, domains, domain_of=shared_site)
        say(f"  making 500 sites warm: {first:.0f}/s")
        warm_rates, cold_rates = [], []
        for number in range(run.rounds):
            with warm:
                warm_rates.append(rate(relay, receiver.received, domains, domain_of=shared_site))
            with cold:
                cold_rates.append(
                    rate(relay, receiver.received, domains, domain_of=_unknown_site(number))
                )
            say(f"  warm {warm_rates[-1]:.0f}/s, cold {cold_rates[-1]:.0f}/s")
    total = run.rounds * domains
    return [
        _result("B4 warm", "10,000 domains on 500 sites, routes known", warm_rates, warm, total),
        _result("B4 cold", "10,000 domains, own hosts, nothing known", cold_rates, cold, total),
    ]


def _result(code: str, what: str, rates: list[float], meter: Meter, total: int) -> Result:
    middle = statistics.median(rates)
    target = WARM_TARGET if code.endswith("warm") else COLD_TARGET
    return Result(
        code=code,
        what=what,
        relay=f"{middle:.0f}/s",
        target=f">= {target:g}/s",
        met=middle >= target,
        cpu=meter.each(total),
        notes=(f"rounds: {rounds(rates)}", meter.redis_each(total)),
    )
