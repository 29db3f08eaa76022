"""What a stretch of work cost: CPU by process, and what was asked of Redis."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from bench.system import Relay

_OURS = ("redis", "engine", "celery", "listener", "http", "supervisor", "keeper")


class Meter:
    """`with meter:` around what is to be counted, as often as wanted; then `each(messages)`.

    `others`: CPU clocks of what runs beside relay (the receiver, Postfix).
    """

    def __init__(self, relay: Relay | None = None, **others: Callable[[], float]) -> None:
        self._relay = relay
        self._others = {**others, "source": time.process_time}
        self._used: dict[str, float] = {}
        self._asked: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._cpu_before, self._redis_before = self._cpu(), self._redis()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for total, before, after in (
            (self._used, self._cpu_before, self._cpu()),
            (self._asked, self._redis_before, self._redis()),
        ):
            for name, value in after.items():
                total[name] = total.get(name, 0.0) + value - before.get(name, 0.0)

    def each(self, messages: int) -> dict[str, float]:
        """Microseconds of CPU a message, by process."""
        return {name: used * 1e6 / messages for name, used in sorted(self._used.items())}

    def redis_each(self, messages: int) -> str:
        """What a message asked of Redis, in words."""
        asked = {name: value / messages for name, value in self._asked.items()}
        scripts, commands = asked["scripts"], asked["commands"]
        return (
            f"Redis a message: {scripts:.2f} scripts, {commands:.1f} commands in them and beside,"
            f" {asked['in'] / 1000:.1f} kB in, {asked['out'] / 1000:.1f} kB out"
        )

    def _cpu(self) -> dict[str, float]:
        found = self._relay.cpu_seconds() if self._relay is not None else {}
        return found | {name: clock() for name, clock in self._others.items()}

    def _redis(self) -> dict[str, float]:
        if self._relay is None:
            return {}
        info = self._relay.redis_info()
        calls = {
            name.removeprefix("cmdstat_"): float(stat["calls"])
            for name, stat in info.items()
            if name.startswith("cmdstat_")
        }
        scripts = calls.pop("fcall", 0.0)
        octets = {"in": "total_net_input_bytes", "out": "total_net_output_bytes"}
        found = {name: float(info[field]) for name, field in octets.items()}
        return found | {"scripts": scripts, "commands": sum(calls.values())}


def beside_postfix(cpu: dict[str, float]) -> str:
    """CPU of the two systems without source and receiver: says more than rates where the machine
    is busy with other work.
    """
    ours = sum(cpu.get(name, 0.0) for name in _OURS)
    return (
        f"CPU of the systems alone: relay {ours:.0f} us a message, Postfix {cpu['Postfix']:.0f}:"
        f" {cpu['Postfix'] / ours:.2f} x"
    )
