"""The daemons as programs of a supervisor, all with one configuration."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from relay.cli.supervisor import Program
from relay.settings.environment import as_environment
from relay.settings.schema import Mode, Settings
from relay.store.server import PrivateRedis

#: Stages: doors stop first, so that nothing new comes; Redis last, so that all is recorded.
_REDIS, _SINK, _WORKERS, _DOORS = range(4)
#: Beyond `up.drain`, for what a process does after its last session.
_MARGIN_S = 5.0


def environment(config: str, settings: Settings, changed: Iterable[str]) -> dict[str, str]:
    """The variables that carry the configuration file and changed settings to a child."""
    variables = as_environment(settings, changed)
    if config:
        variables["RELAY_CONFIG"] = str(Path(config).absolute())
    return variables


def process_count(settings: Settings) -> int:
    """Worker processes: as set, else one for each core that we may use."""
    return settings.worker.processes or len(os.sched_getaffinity(0))


def redis_program(redis: PrivateRedis) -> Program:
    """The private Redis; it needs nothing of our configuration."""
    return Program(
        name="redis",
        command=redis.command,
        environment=dict(os.environ),
        stage=_REDIS,
        stop_s=10.0,
        # It ends when the disk is full, and is to be back soon after there is space.
        longest_pause_s=4.0,
        inherited=redis.inherited,
    )


def worker_program(settings: Settings, base: Mapping[str, str], number: int) -> Program:
    """One Celery worker process."""
    alone = {"RELAY_WORKER_PROCESSES": "1"}
    return _relay(
        f"worker.{number}", ["worker"], {**base, **alone}, _WORKERS, settings.up.drain + _MARGIN_S
    )


def relay_programs(settings: Settings, base: Mapping[str, str]) -> list[Program]:
    """What `relay up` runs beside Redis, in the order of starting."""
    door_s = settings.up.drain + _MARGIN_S
    programs = []
    if settings.delivery.mode is Mode.SINK:
        programs.append(_relay("sink", ["sink"], base, _SINK, _MARGIN_S))
    workers = range(1, process_count(settings) + 1)
    programs += [worker_program(settings, base, number) for number in workers]
    if settings.smtp.listen or settings.intake.listen:
        programs.append(_relay("smtpd", ["smtpd"], base, _DOORS, door_s))
    programs.append(_relay("http", ["http"], base, _DOORS, door_s))
    return programs


def _relay(
    name: str, verb: list[str], base: Mapping[str, str], stage: int, stop_s: float
) -> Program:
    command = [sys.executable, "-m", "relay.cli.main", *verb]
    return Program(name=name, command=command, environment=dict(base), stage=stage, stop_s=stop_s)
