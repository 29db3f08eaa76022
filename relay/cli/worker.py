"""`relay worker`: Celery worker processes, each with the delivery engine."""

import os
import sys

from relay.cli.options import Changes, Config, as_flags, start_daemon


def worker(config: Config = "", changes: Changes = None) -> None:
    """Deliver mail: one Celery worker process per core (worker.processes)."""
    settings = start_daemon("worker", config, changes)
    from relay.cli.daemons import environment, process_count, worker_program

    flags = as_flags(changes)
    count = process_count(settings)
    if count == 1:  # which looks at the store itself
        os.environ.update(environment(config, settings, flags))
        os.execv(sys.executable, celery_command())
    import asyncio

    from relay.cli.output import Output
    from relay.cli.supervisor import run_programs
    from relay.store.connect import check_store

    if settings.redis.url:
        asyncio.run(check_store(settings.redis.url, str(settings.delivery.mode)))
    base = {**os.environ, **environment(config, settings, flags)}
    programs = [worker_program(settings, base, number) for number in range(1, count + 1)]
    raise SystemExit(asyncio.run(run_programs(programs, Output(settings, "worker").write)))


def celery_command() -> list[str]:
    """One Celery worker process; what it does beyond this stands in `workers/`."""
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "workers.app", "worker"]
    return [*celery, *quiet, f"--hostname=relay-{os.getpid()}@%h"]
