"""F1: kill -9 of every process at random points while mail comes and goes (F2: of Redis).

Nothing that a door answered 250 or 202 is lost, and each copy too many is among those reported.
"""

import asyncio
import random
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import msgspec

from tests.chaos.account import account, figures, until_settled
from tests.chaos.machine import Machine, running_machine
from tests.chaos.producers import Producers
from tests.support.system import UNSHAPED, running_system


class Size(msgspec.Struct, frozen=True):
    """Kills, the mean pause between two of them, who is killed in turn, the seed of chance."""

    kills: int
    pause_s: float
    victims: tuple[str, ...] = ("listener", "http", "worker", "supervisor")
    seed: int = 1


SHORT = Size(kills=4, pause_s=0.7)
LONG = Size(kills=200, pause_s=0.7)


async def run(folder: Path, size: Size) -> str:
    """Kill so often; the figures."""
    async with (
        running_system(folder, RELAY_FILES_SHAPING=UNSHAPED) as system,
        running_machine(system) as machine,
    ):
        producers = Producers(machine.smtp, machine.http)
        killed: Counter[str] = Counter()
        await producers.run_while(kill(machine, size, killed))
        await until_settled(machine)
        ledger = await account(system, producers)
    number = "F2" if size.victims == ("redis",) else "F1"
    whom = ", ".join(f"{count} x {name}" for name, count in sorted(killed.items()))
    return f"{number}   kill -9 of {whom} (seed {size.seed}): {figures(producers, ledger)}"


async def kill(machine: Machine, size: Size, killed: Counter[str]) -> None:
    """One victim after another, each at a random moment."""
    chance = random.Random(size.seed)
    victims = list(islice(cycle(size.victims), size.kills))
    chance.shuffle(victims)
    for victim in victims:
        await asyncio.sleep(size.pause_s * chance.random() * 2)
        await machine.kill(victim)
        killed[victim] += 1
