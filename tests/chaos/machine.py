"""Every process of a running relay, to be killed one at a time, or all at once."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable

from tests.support import processes
from tests.support.system import System
from tests.system.test_redis_restarted import ABSENCE

#: A lease, and the time for which nothing is taken back after a restart of Redis.
GRACE_S = 15 + 30
#: What processes say of each other's deaths.
NEWS = (*ABSENCE, "lease.lost", "lease.not_ended", "message.refused", "program.")


class Machine:
    """Listener, HTTP daemon, a worker, and `relay worker`, which supervises more of them."""

    def __init__(self, system: System, smtp: int, http: int, supervised: int) -> None:
        self.system = system
        self.smtp, self.http = smtp, http
        self._supervised = supervised
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._start_supervisor()

    def _start_supervisor(self) -> None:
        if not self._supervised:
            return
        system = self.system
        self._supervisor = processes.start(
            processes.python("relay.cli.main", "worker"),
            log=system.folder / "supervisor.log",
            environment={**system.environment, "RELAY_WORKER_PROCESSES": str(self._supervised)},
        )

    async def kill(self, name: str) -> None:
        """SIGKILL one of listener, http, worker, supervisor, redis, and start it again."""
        kills: dict[str, Callable[[], None]] = {
            "listener": self._kill_listener,
            "http": self._kill_http,
            "worker": self._kill_worker,
            "supervisor": self._kill_supervisor,
            "redis": self.system.redis.restart,
        }
        await asyncio.to_thread(kills[name])

    def _kill_listener(self) -> None:
        self.system.kill_door("smtpd")
        self.system.start_smtpd(self.smtp)

    def _kill_http(self) -> None:
        self.system.kill_door("http")
        self.system.start_http(self.http)

    def _kill_worker(self) -> None:
        self.system.kill_worker(self.system.workers.pop(0))
        self.system.start_worker()

    def _kill_supervisor(self) -> None:
        self.end_supervisor()
        self._start_supervisor()

    def end_supervisor(self) -> None:
        """SIGKILL it, and with it its workers."""
        if self._supervisor is not None:
            processes.kill(self._supervisor)

    def power_off(self) -> None:
        """SIGKILL everything."""
        system = self.system
        for process in self.processes:
            process.kill()
        system.redis.kill()
        for process in self.processes:
            process.wait()
        system.workers.clear()

    def power_on(self) -> None:
        """Start everything that `power_off` ended."""
        system = self.system
        system.redis.start()
        system.start_worker()
        self._start_supervisor()
        system.start_smtpd(self.smtp)
        system.start_http(self.http)

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """All but Redis and what is supervised."""
        others = [*self.system.doors.values(), *self.system.workers]
        return others if self._supervisor is None else [self._supervisor, *others]


@contextlib.asynccontextmanager
async def running_machine(system: System, *, supervised: int = 1) -> AsyncIterator[Machine]:
    """Start the doors of a system and a supervisor of so many workers, none where that is 0."""
    system.expects(*NEWS)
    smtp = await asyncio.to_thread(system.start_smtpd)
    http = await asyncio.to_thread(system.start_http)
    machine = Machine(system, smtp, http, supervised)
    try:
        yield machine
    finally:
        machine.end_supervisor()
