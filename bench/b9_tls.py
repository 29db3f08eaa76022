"""B9: what STARTTLS costs: the newsletter of B2, and the warm domains of B4, over TLS.

Both receivers, in the clear and over TLS, are relay's simulated internet: Postfix's smtp-sink has
no TLS. So the figures in the clear are lower than those of B2.
"""

import statistics
from collections.abc import Callable

from bench.b4_domains import share_sites, shared_site
from bench.client import SITES
from bench.meter import Meter
from bench.newsletter import rate
from bench.report import Result, rounds, say
from bench.run import Run
from bench.system import Relay

SHARE_TARGET, WARM_TARGET = 0.75, 600.0
SHARED = "shared.test"


def run(run: Run) -> list[Result]:
    """Measure both."""
    with Relay(run.folder("relay"), tls="opportunistic", RELAY_DNS_MIN_TTL="1h") as relay:
        return [_newsletter(run, relay), _domains(run, relay)]


def _newsletter(run: Run, relay: Relay) -> Result:
    messages = run.size(5000, 1000)
    kinds = {"plain": "notls.test", "TLS": "secure.test"}
    meters = {kind: Meter(relay) for kind in kinds}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind in kinds:
        rate(relay, relay.received, 300, domain_of=_site_of(kinds[kind]))
    before = relay.sink.status()["counters"]["tls_sessions"]
    for _ in range(run.rounds):
        for kind, top in kinds.items():
            with meters[kind]:
                rates[kind].append(rate(relay, relay.received, messages, domain_of=_site_of(top)))
            say(f"  {kind} {rates[kind][-1]:.0f}/s")
    handshakes = relay.sink.status()["counters"]["tls_sessions"] - before
    share = statistics.median(rates["TLS"]) / statistics.median(rates["plain"])
    total = run.rounds * messages
    plain = "  ".join(f"{name} {used:.0f}" for name, used in meters["plain"].each(total).items())
    return Result(
        code="B9 B2",
        what="newsletter over STARTTLS, against itself in the clear",
        relay=f"{statistics.median(rates['TLS']):.0f}/s ({share:.0%})",
        target=f">= {SHARE_TARGET:.0%} of plain",
        met=share >= SHARE_TARGET,
        cpu=meters["TLS"].each(total),
        notes=(
            f"rounds: TLS {rounds(rates['TLS'])}, plain {rounds(rates['plain'])};"
            f" {handshakes} handshakes",
            f"CPU us/message in the clear: {plain}",
        ),
    )


def _site_of(top: str) -> Callable[[int], str]:
    return lambda number: f"d{number % SITES}.{top}"


def _domains(run: Run, relay: Relay) -> Result:
    domains = run.size(10_000, 1000)
    share_sites(relay, top=SHARED)
    meter, rates = Meter(relay), []

    def domain_of(number: int) -> str:
        return shared_site(number, top=SHARED)

    rate(relay, relay.received, domains, domain_of=domain_of)
    for _ in range(run.rounds):
        with meter:
            rates.append(rate(relay, relay.received, domains, domain_of=domain_of))
        say(f"  warm over TLS {rates[-1]:.0f}/s")
    middle = statistics.median(rates)
    return Result(
        code="B9 B4",
        what="10,000 domains on 500 sites, routes known, over STARTTLS",
        relay=f"{middle:.0f}/s",
        target=f">= {WARM_TARGET:g}/s",
        met=middle >= WARM_TARGET,
        cpu=meter.each(run.rounds * domains),
        notes=(f"rounds: {rounds(rates)}",),
    )
