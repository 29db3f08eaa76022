"""F2: kill -9 of Redis at random points while mail comes and goes."""

from tests.chaos.f01_processes_killed import Size, run

__all__ = ["LONG", "SHORT", "run"]

SHORT = Size(kills=3, pause_s=1.0, redis=True)
LONG = Size(kills=50, pause_s=1.5, redis=True)
