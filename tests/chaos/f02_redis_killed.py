"""F2: kill -9 of Redis at random points while mail comes and goes."""

from tests.chaos.f01_processes_killed import Size, run

__all__ = ["LONG", "SHORT", "run"]

SHORT = Size(kills=2, pause_s=0.7, victims=("redis",))
LONG = Size(kills=50, pause_s=1.5, victims=("redis",))
