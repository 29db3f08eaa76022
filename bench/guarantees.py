"""What guarantees cost: the load of B1 with each of them changed, by turns, on relay alone."""

import contextlib
import statistics

from bench.compare import rate
from bench.meter import Meter
from bench.receiver import PlainReceiver
from bench.report import Result, rounds, say
from bench.run import Run
from bench.source import Load
from bench.system import Relay

_SESSIONS = 50
#: What differs from the first, by what it means.
KINDS: dict[str, dict[str, str]] = {
    "as it comes: on disk before a 250, marked before a dot": {},
    "on disk within a second": {"RELAY_REDIS_FSYNC": "everysec"},
    "the mark confirmed before a dot": {"RELAY_WORKER_UNCERTAIN_TRANSACTIONAL": "hold"},
}


def run(run: Run) -> list[Result]:
    """Measure each kind."""
    load = Load(messages=run.size(5000, 1000))
    with contextlib.ExitStack() as stack:
        sides = {
            kind: stack.enter_context(_Side(run, **changed)) for kind, changed in KINDS.items()
        }
        for side in sides.values():
            side.measure(load)
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(run.rounds):
            for kind, side in sides.items():
                with side.meter:
                    rates[kind].append(side.measure(load))
                say(f"  {rates[kind][-1]:.0f}/s {kind}")
    first = statistics.median(next(iter(rates.values())))
    return [
        Result(
            code="G",
            what=f"B1, {kind}",
            relay=f"{statistics.median(found):.0f}/s ({statistics.median(found) / first:.0%})",
            target="-",
            met=None,
            cpu=sides[kind].meter.each(run.rounds * load.messages),
            notes=(f"rounds: {rounds(found)}",),
        )
        for kind, found in rates.items()
    ]


class _Side(contextlib.ExitStack):
    """A relay of one kind with a receiver."""

    def __init__(self, run: Run, **changed: str) -> None:
        super().__init__()
        self._relay = self.enter_context(Relay(run.folder("relay"), **changed))
        self._receiver = self.enter_context(PlainReceiver(run.cache, self._relay.sink_port))
        self._relay.send_to(self._receiver, "plain.test")
        self.meter = Meter(self._relay, receiver=self._receiver.cpu_seconds)

    def measure(self, load: Load) -> float:
        """Messages a second."""
        return rate(self._relay.smtp_port, self._receiver.received, load, sessions=_SESSIONS)
