"""F1: kill -9 of every process at random points while mail comes and goes (F2: of Redis).

Nothing that a door answered 250 or 202 is lost, and each copy too many is among those reported.
"""

import asyncio
import http.client
import json
import random
import smtplib
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from tests.support import processes
from tests.support.ledger import Ledger, balance, until_all_ended
from tests.support.system import UNSHAPED, System, running_system
from tests.system.test_redis_restarted import ABSENCE

DOMAINS = 200
#: A lease, and the time for which nothing is taken back after a restart of Redis.
GRACE_S = 15 + 30
#: What the processes say of each other's deaths.
NEWS = (*ABSENCE, "lease.lost", "message.refused", "program.ended", "store.unavailable")


class Size(msgspec.Struct, frozen=True):
    """Kills, the pause between two of them, whether Redis is the victim, the seed of chance."""

    kills: int
    pause_s: float
    redis: bool = False
    seed: int = 1


SHORT = Size(kills=6, pause_s=0.7)
LONG = Size(kills=200, pause_s=0.7)


class Producers:
    """Clients that send message after message, each until it is taken; `taken`: their addresses."""

    def __init__(self, smtp: int, http: int) -> None:
        self._smtp = smtp
        self._http = http
        self._ends = False
        self.taken: list[str] = []

    async def run_while(self, work: Awaitable[None]) -> None:
        """Send as long as the work lasts."""
        senders = [
            asyncio.create_task(asyncio.to_thread(self._send, name, way))
            for name, way in (
                ("smtp0", self._by_smtp),
                ("smtp1", self._by_smtp),
                ("http0", self._by_http),
                ("http1", self._by_http),
            )
        ]
        try:
            await work
        finally:
            self._ends = True
            await asyncio.gather(*senders)

    def _send(self, name: str, way: Callable[[str], bool]) -> None:
        number = 0
        while not self._ends:
            address = f"{name}-{number}@slowdot20ms.domain{number % DOMAINS}.test"
            while not way(address):
                time.sleep(0.02)
            self.taken.append(address)
            number += 1

    def _by_smtp(self, address: str) -> bool:
        content = f"From: news@example.org\r\nTo: {address}\r\nSubject: hi\r\n\r\nhello\r\n"
        try:
            with smtplib.SMTP("127.0.0.1", self._smtp, timeout=10) as client:
                client.sendmail("news@example.org", [address], content)
        except (OSError, smtplib.SMTPException):
            return False
        return True

    def _by_http(self, address: str) -> bool:
        body = {"from": "news@example.org", "to": [address], "subject": "hi", "text": "hello"}
        headers = {"Content-Type": "application/json", "Idempotency-Key": address}
        connection = http.client.HTTPConnection("127.0.0.1", self._http, timeout=10)
        try:
            connection.request("POST", "/v1/messages", json.dumps(body), headers)
            return connection.getresponse().status in (200, 202)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Victims:
    """The processes of a running system, to be killed one at a time and started again."""

    def __init__(self, system: System, smtp: int, http: int) -> None:
        self._system = system
        self._ports = {"smtpd": smtp, "http": http}
        self._supervisor = self._start_supervisor()

    def _start_supervisor(self) -> subprocess.Popen[bytes]:
        """`relay worker`, which keeps one more worker running."""
        system = self._system
        return processes.start(
            processes.python("relay.cli.main", "worker"),
            log=system.folder / "supervisor.log",
            environment={**system.environment, "RELAY_WORKER_PROCESSES": "1"},
        )

    async def kill(self, name: str) -> None:
        """SIGKILL, and start it again."""
        await asyncio.to_thread(getattr(self, f"_kill_{name}"))

    def _kill_listener(self) -> None:
        self._again("smtpd", self._system.start_smtpd)

    def _kill_http(self) -> None:
        self._again("http", self._system.start_http)

    def _again(self, verb: str, start: Callable[[int], int]) -> None:
        self._system.kill_door(verb)
        start(self._ports[verb])

    def _kill_worker(self) -> None:
        self._system.kill_worker(self._system.workers.pop(0))
        self._system.start_worker()

    def _kill_supervisor(self) -> None:
        processes.kill(self._supervisor)
        self._supervisor = self._start_supervisor()

    def _kill_redis(self) -> None:
        self._system.redis.restart()

    def stop(self) -> None:
        """End what the system does not know of."""
        processes.kill(self._supervisor)


async def run(folder: Path, size: Size) -> str:
    """Kill so often; the figures."""
    chance = random.Random(size.seed)
    names = ["redis"] if size.redis else ["listener", "http", "worker", "supervisor"]
    async with running_system(folder, workers=2, RELAY_FILES_SHAPING=UNSHAPED) as system:
        system.expects(*NEWS)
        smtp = await asyncio.to_thread(system.start_smtpd)
        producers = Producers(smtp, await asyncio.to_thread(system.start_http))
        victims = Victims(system, smtp, producers._http)

        async def kills() -> None:
            for _ in range(size.kills):
                await asyncio.sleep(size.pause_s * chance.random() * 2)
                await victims.kill(chance.choice(names))

        try:
            await producers.run_while(kills())
        finally:
            victims.stop()
        # The leases of the dead run out; after a restart of Redis nothing is taken back before.
        await system.until_leased()
        await system.shift_clock(GRACE_S)
        await until_all_ended(system, within_s=150)
        ledger = await balance(system)
    return _account(ledger, producers.taken, size, names)


def _account(ledger: Ledger, taken: list[str], size: Size, names: list[str]) -> str:
    arrived = {path for _, path in ledger.copies}
    lost = set(taken) - arrived
    # By address: what came by HTTP has a Message-ID that is not made of its queue-id.
    reported = {path for _, path in ledger.uncertain | ledger.duplicates}
    hidden = {path for _, path in ledger.doubled} - reported
    assert not lost, sorted(lost)[:10]
    assert not hidden, sorted(hidden)[:10]
    assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
    assert ledger.accepted == len(ledger.ends)
    return (
        f"{'F2' if size.redis else 'F1'}   {size.kills} kills -9 of {', '.join(names)} "
        f"(seed {size.seed}): {len(taken):,} messages taken, 0 lost, {len(ledger.doubled)} "
        f"arrived twice, all reported ({len(ledger.uncertain)} as uncertain, "
        f"{len(ledger.duplicates)} as duplicates)"
    )
