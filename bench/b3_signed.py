"""B3: the newsletter of B2 signed by DKIM with RSA-2048, against itself unsigned, by turns."""

import statistics
from pathlib import Path

from bench.meter import Meter
from bench.newsletter import rate
from bench.report import Result, rounds, say
from bench.run import Run
from bench.system import Relay
from relay.smtp.dkim_key import make_key

TARGET = 1500.0


def run(run: Run) -> list[Result]:
    """Measure both."""
    messages = run.size(5000, 1000)
    folder = run.folder("signed")
    config = str(_with_key(folder))
    with (
        Relay(folder, RELAY_CONFIG=config) as signed,
        Relay(run.folder("plain")) as plain,
    ):
        sides = {"signed": signed, "plain": plain}
        meters = {name: Meter(side) for name, side in sides.items()}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for side in sides.values():
            rate(side, side.received, 300)
        for _ in range(run.rounds):
            for name, side in sides.items():
                with meters[name]:
                    rates[name].append(rate(side, side.received, messages))
                say(f"  {name} {rates[name][-1]:.0f}/s")
    middle = statistics.median(rates["signed"])
    total = run.rounds * messages
    unsigned = "  ".join(f"{name} {used:.0f}" for name, used in meters["plain"].each(total).items())
    return [
        Result(
            code="B3",
            what="newsletter signed by DKIM, RSA-2048",
            relay=f"{middle:.0f}/s ({middle / statistics.median(rates['plain']):.0%} of unsigned)",
            target=f">= {TARGET:g}/s",
            met=middle >= TARGET,
            cpu=meters["signed"].each(total),
            notes=(
                f"rounds: signed {rounds(rates['signed'])}, plain {rounds(rates['plain'])}",
                f"CPU us/message unsigned: {unsigned}",
            ),
        )
    ]


def _with_key(folder: Path) -> Path:
    """A configuration file with a key for the newsletter's domain."""
    pem = folder / "key.pem"
    pem.touch(mode=0o600)
    pem.write_bytes(make_key("example.org", "bench", "rsa").pem())
    path = folder / "relay.toml"
    path.write_text(
        f'[[dkim_keys]]\ndomain = "example.org"\nselector = "bench"\nfile = "{pem.name}"\n'
    )
    return path
