"""B13, `make soak`: half of what B1 can do for an hour; memory at the end against minute 5.

`python -m bench.soak [LENGTH] [--rate MESSAGES_A_SECOND]`: LENGTH as in "10m", "1h" (the default).
What is judged: memory in RAM of each process of relay, and what Redis uses, at the end within 5 %
of what they were after a twelfth of the time (minute 5 of an hour).
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import msgspec
import uvloop

from bench.compare import rate
from bench.receiver import PlainReceiver
from bench.report import Result, circumstances, lines_of, say
from bench.run import Run
from bench.source import Bodies, Load, Session
from bench.system import Relay
from relay.model.units import parse_duration_s

SHARE = 0.05
_SESSIONS = 20
_LOOKS = 120
_LARGE_OCTETS = 20e6


class Look(msgspec.Struct, frozen=True):
    """One moment: octets by name, and how far the mail was."""

    seconds: float
    octets: dict[str, float]
    sent: int
    received: int


class Soak:
    """A steady load on one relay, looked at from time to time."""

    def __init__(self, relay: Relay, receiver: PlainReceiver, a_second: float) -> None:
        self._relay = relay
        self._receiver = receiver
        self._a_second = a_second
        self._sent = 0
        self.looks: list[Look] = []

    async def run(self, length_s: float) -> None:
        """Send for so long, and look."""
        bodies, load = Bodies(10_000), Load(messages=0)
        began = time.monotonic()

        async def work(first: int) -> None:
            session = await Session.open(self._relay.smtp_port)
            number = first
            while (due := number / self._a_second) < length_s:
                await asyncio.sleep(max(0.0, began + due - time.monotonic()))
                head = f"From: <news@example.org>\r\nSubject: soak {number}\r\n\r\n".encode()
                await session.send(load.recipients(number), head + bodies(number))
                self._sent += 1
                number += _SESSIONS
            await session.quit()

        watching = asyncio.create_task(self._watch(began, length_s / _LOOKS))
        await asyncio.gather(*(work(first) for first in range(_SESSIONS)))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self, began: float, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            look = await asyncio.to_thread(self._look, time.monotonic() - began)
            self.looks.append(look)
            shown = "  ".join(f"{name} {value / 1e6:.0f}" for name, value in look.octets.items())
            say(f"  {look.seconds:.0f} s: {look.sent} sent, {look.received} received; MB: {shown}")

    def _look(self, seconds: float) -> Look:
        octets = {name: float(value) for name, value in self._relay.resident_octets().items()}
        info = self._relay.redis_info()
        octets["redis data"] = float(info["used_memory"] - info["mem_clients_normal"])
        return Look(seconds, octets, self._sent, self._receiver.received())


def judge(looks: list[Look], length_s: float) -> dict[str, tuple[float, float]]:
    """Octets by name, early and at the end; each the median of neighbouring looks."""
    late = looks[-max(3, _LOOKS // 20) :]
    after = [look for look in looks if look.seconds >= length_s / 12]
    early = after[: max(3, _LOOKS // 20)]

    def middle(name: str, part: list[Look]) -> float:
        return statistics.median(look.octets[name] for look in part)

    return {name: (middle(name, early), middle(name, late)) for name in late[-1].octets}


def run(run: Run, length_s: float, a_second: float) -> Result:
    """Soak for so long, at a rate or at half of what B1 can do."""
    with (
        Relay(run.folder("relay"), RELAY_LOG_LEVEL="warning") as relay,
        PlainReceiver(run.cache, relay.sink_port) as receiver,
    ):
        relay.send_to(receiver, "plain.test")
        if not a_second:
            load = Load(messages=run.size(6000, 1500))
            rate(relay.smtp_port, receiver.received, load, sessions=50)
            a_second = rate(relay.smtp_port, receiver.received, load, sessions=50) / 2
        say(f"  {a_second:.0f} messages a second for {length_s:.0f} s")
        soak = Soak(relay, receiver, a_second)
        before = receiver.received()
        uvloop.run(soak.run(length_s))
        time.sleep(2)
        received = receiver.received() - before
    sent = int(length_s * a_second)
    found = judge(soak.looks, length_s)
    grown = {name: late / early - 1 for name, (early, late) in found.items()}
    large = {name: share for name, share in grown.items() if found[name][1] > _LARGE_OCTETS}
    worst = max(large, key=lambda name: large[name])
    return Result(
        code="B13",
        what=f"{length_s / 60:.0f} min at {a_second:.0f}/s, memory at the end against early",
        relay=f"{large[worst]:+.1%} ({worst})",
        target=f"within {SHARE:.0%}",
        met=large[worst] <= SHARE and received >= sent,
        notes=(
            f"{received} messages arrived of {sent}; early is minute {length_s / 720:.1f}",
            *(
                f"{name}: {early / 1e6:.1f} MB, at the end {late / 1e6:.1f} MB ({grown[name]:+.1%})"
                for name, (early, late) in sorted(found.items())
            ),
        ),
    )


def main() -> int:
    """Soak and print; 1 when memory grew."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("length", nargs="?", default="1h", help="such as 10m (default: 1h)")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second")
    chosen = parser.parse_args()
    print("\n".join(circumstances(f"make soak ARGS={chosen.length}")), flush=True)
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    with tempfile.TemporaryDirectory(prefix="relay-soak-") as base:
        bench = Run(cache=home / "relay-bench", base=Path(base))
        result = run(bench, parse_duration_s(chosen.length), chosen.rate)
    print("\n".join(lines_of(result)))
    return 0 if result.met else 1


if __name__ == "__main__":
    raise SystemExit(main())
