"""F2, power: what Redis had written and not yet brought to disk is gone, at a random octet.

A proxy between Redis and everybody else falls silent, then the machine dies: what was done in
between was heard of by nobody, and any part of it may be missing from the append-only file.
With `always` that is all that can be missing. With `everysec` the last fsync may lie two seconds
back: what was lost, and what was sent twice without a word, is counted.
"""

import asyncio
import random
import time
from collections import deque
from pathlib import Path

import msgspec

from tests.chaos.account import account, breaches, figures, unreported, until_settled
from tests.chaos.machine import Machine, running_machine
from tests.chaos.producers import Producers
from tests.support.ledger import balance
from tests.support.lossy_proxy import LossyProxy, lossy_proxy
from tests.support.redis_server import RedisServer
from tests.support.system import UNSHAPED, running_system

#: Redis asks for an fsync every second, and waits for one more second where one is under way.
EVERYSEC_S = 2.0
LOOK_EVERY_S = 0.02


class Size(msgspec.Struct, frozen=True):
    """Losses of power with each of `policies`, the mean time between two of them, the seed."""

    losses: int
    pause_s: float
    policies: tuple[str, ...]
    seed: int = 1


SHORT = Size(losses=2, pause_s=1.0, policies=("always",))
LONG = Size(losses=15, pause_s=1.5, policies=("always", "everysec"))


async def run(folder: Path, size: Size) -> str:
    """Lose power so often under each policy; the figures."""
    return "\n".join([await under(policy, folder / policy, size) for policy in size.policies])


async def under(policy: str, folder: Path, size: Size) -> str:
    """Lose power so often with `appendfsync <policy>`; what became of the mail."""
    folder.mkdir()
    path = folder / "proxy.sock"
    redis = RedisServer(
        folder, options=("--appendfsync", policy, "--auto-aof-rewrite-percentage", "0")
    )
    extra = {"RELAY_REDIS_URL": f"unix://{path}", "RELAY_FILES_SHAPING": UNSHAPED}
    async with (
        lossy_proxy(path, redis.socket) as proxy,
        running_system(folder, redis=redis, **extra) as system,
        running_machine(system, supervised=0) as machine,
    ):
        producers = Producers(machine.smtp, machine.http)
        power = Power(machine, proxy, size, is_always=policy == "always")
        await producers.run_while(power.fail())
        await until_settled(machine)
        what = f"F2   power lost {size.losses} times, {power.cut:,} octets of the AOF with it"
        if policy == "always":
            told = figures(producers, await account(system, producers))
        else:
            told = await bounded(power, producers)
        return f"{what}, appendfsync {policy}: {told}"


class Power:
    """Fails again and again; `failed_at` tells when, `cut` how much of the file was lost."""

    def __init__(self, machine: Machine, proxy: LossyProxy, size: Size, *, is_always: bool) -> None:
        self.machine = machine
        self.failed_at: list[float] = []
        self.cut = 0
        self._proxy = proxy
        self._size = size
        self._is_always = is_always
        self._chance = random.Random(size.seed)
        self._lengths: deque[tuple[float, int]] = deque(maxlen=int(60 / LOOK_EVERY_S))

    async def fail(self) -> None:
        """So often as asked for."""
        for _ in range(self._size.losses):
            await self._watch(self._size.pause_s * self._chance.random() * 2)
            self._proxy.silence()
            durable = self._durable()
            await self._watch(self._chance.random() * 0.2)
            await asyncio.to_thread(self.machine.power_off)
            self._truncate(durable)
            self._proxy.speak()
            await asyncio.to_thread(self.machine.power_on)

    async def _watch(self, for_s: float) -> None:
        """Remember how the file grows."""
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            self._lengths.append((time.monotonic(), self._length()))
            await asyncio.sleep(LOOK_EVERY_S)

    def _length(self) -> int:
        return self.machine.system.redis.append_only_file.stat().st_size

    def _durable(self) -> int:
        """How much of the file is on disk for certain: nobody has heard of more, with `always`."""
        self.failed_at.append(time.monotonic())
        if self._is_always:
            return self._length()
        latest = self.failed_at[-1] - EVERYSEC_S
        recent = (length for at, length in self._lengths if at >= latest)
        return next(recent, self._length())

    def _truncate(self, durable: int) -> None:
        file = self.machine.system.redis.append_only_file
        length = file.stat().st_size
        kept = self._chance.randint(durable, length)
        self.cut += length - kept
        with file.open("r+b") as opened:
            opened.truncate(kept)
        self._lengths.clear()


async def bounded(power: Power, producers: Producers) -> str:
    """What is lost was accepted within two seconds before a loss of power; the figures."""
    system = power.machine.system
    ledger = await balance(system)
    lost = set(producers.taken) - {path for _, path in ledger.copies}
    for address in lost:
        taken = producers.taken[address]
        # A client may be a moment late to write down what it heard.
        assert any(-0.5 <= at - taken <= EVERYSEC_S for at in power.failed_at), address
    assert not producers.refused and not await breaches(system)
    return (
        f"{len(producers.taken):,} messages taken, {len(lost)} lost, all of them within "
        f"{EVERYSEC_S:g} s before; {len(ledger.doubled)} arrived twice, "
        f"{len(unreported(ledger))} of them unreported"
    )
