"""The scenario: what happens at a step, decided from names, the fault table and what went before.

Order: the recipient's own keyword, then the fault table, then the host's keywords. Delays add up;
the first effect that is no delay decides. All randomness comes from one seeded generator.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from relay.sim.effects import Action, Command, Effect
from relay.sim.faults import FaultTable
from relay.sim.hosts import HostScript
from relay.sim.keywords import Script
from relay.sim.zone import Zone

#: Attempts and greylisted pairs that are remembered; the oldest are forgotten first.
MEMORY = 1_000_000


class Step(msgspec.Struct):
    """The facts of one step of a session; `scripts` are those of the recipients concerned."""

    command: Command
    hosts: Sequence[str]
    script: HostScript
    reverse_path: str = ""
    forward_paths: Sequence[str] = ()
    scripts: Sequence[tuple[str, Script]] = ()
    accepted: int = 0


class Scenario:
    """Names with a meaning, faults in force, users of smarthosts; one per sink."""

    def __init__(
        self, *, seed: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.zone = Zone()
        self.faults = FaultTable(self.zone.hosts_of)
        self.credentials: dict[str, str] = {"relay": "secret"}
        self._random = random.Random(seed)
        self._clock = clock
        self._attempts: dict[tuple[str, Command], int] = {}
        self._greylist: dict[tuple[str, str], tuple[float, int]] = {}

    def reset(self) -> None:
        """Forget attempts, greylisted pairs, faults and DNS overrides; credentials stay."""
        self._attempts.clear()
        self._greylist.clear()
        self.zone.clear()
        self.faults.clear()

    def decide(self, step: Step) -> tuple[float, Effect | None]:
        """How long the step waits, and what happens instead of it (None: it is carried out)."""
        delay_s = 0.0
        for effect in self._effects(step):
            if effect.action is Action.DELAY:
                delay_s += effect.delay_s
                continue
            if effect.action is Action.GREYLIST:
                refusal = self._greylisted(step, effect)
            elif effect.action is Action.CROWD:
                refusal = _crowded(step, effect)
            else:
                refusal = effect
            if refusal is not None:
                return delay_s, refusal
        return delay_s, None

    def _effects(self, step: Step) -> Iterator[Effect]:
        for address, script in step.scripts:
            if script.command is step.command and self._is_due(address, script):
                yield script.effect
        if self.faults:
            domains = [path.rpartition("@")[2].lower() for path in step.forward_paths]
            for fault in self.faults.matching(step.command, step.hosts, domains):
                if fault.probability < 1.0 and self._random.random() >= fault.probability:
                    continue
                fault.fired += 1
                if fault.remaining is not None:
                    fault.remaining -= 1
                yield fault.effect
        for likely in step.script.effects:
            if likely.command is step.command and (
                likely.probability >= 1.0 or self._random.random() < likely.probability
            ):
                yield likely.effect

    def _is_due(self, address: str, script: Script) -> bool:
        """Whether this attempt is one of the first n that the keyword affects."""
        if script.attempts is None:
            return True
        key = (address.lower(), script.command)
        made = self._attempts.pop(key, 0) + 1
        self._attempts[key] = made
        if len(self._attempts) > MEMORY:
            del self._attempts[next(iter(self._attempts))]
        return made <= script.attempts

    def _greylisted(self, step: Step, effect: Effect) -> Effect | None:
        """A 450 at the first tries of (reverse-path, forward-path), for a time if one is given."""
        key = (step.reverse_path.lower(), step.forward_paths[0].lower())
        now = self._clock()
        first, tries = self._greylist.get(key, (now, 0))
        self._greylist[key] = (first, tries + 1)
        if len(self._greylist) > MEMORY:
            del self._greylist[next(iter(self._greylist))]
        wait_s = effect.delay_s - (now - first)
        is_over = wait_s <= 0 if effect.delay_s else tries >= effect.limit
        if is_over:
            return None
        hint = f", try again in {max(1, round(wait_s))} seconds" if effect.delay_s else ""
        return Effect(Action.REPLY, f"450 4.7.1 Greylisted{hint or ', try again later'}")


def _crowded(step: Step, effect: Effect) -> Effect | None:
    if step.accepted < effect.limit:
        return None
    return Effect(Action.REPLY, "452 4.5.3 Too many recipients")
