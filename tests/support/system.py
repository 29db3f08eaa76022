"""The whole system with real parts: Redis, the simulated internet, Celery workers, the doors.

A scenario submits, waits for states, and then asserts on both sides: `events()` are ours,
`sink.receipts()` are what the receivers saw. What the processes complain of in their logs is the
scenario's own subject (`expects`), or a fault.
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from relay.ingress.submit import Draft, Submitter
from relay.ingress.trace import Origin
from relay.model.address import parse_address, parse_reverse_path
from relay.model.errors import StoreUnavailable
from relay.model.message import Receipt, Submission
from relay.policy.route import RouteTable
from relay.settings.loader import load_settings
from relay.settings.schema import Sink as SinkSettings
from relay.sim.client import SinkClient
from relay.sim.receipts import Limits
from relay.sim.server import background_sink
from relay.store.events import StoredEvent
from relay.store.queue import Store
from relay.store.views import MessageView, QueueMatch, QueueView, RecipientView
from relay.store.waits import Wait
from tests.support import processes
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica_set import ReplicaSet

WAIT_S = 30.0
#: What receivers saw is kept that far back: accounts are made of all of it.
RECEIPTS = 1_000_000

#: Fast retries, so that a schedule of several steps fits into a test.
QUICK = {
    "RELAY_RETRY_TRANSACTIONAL": "1s 1s 1s*",
    "RELAY_RETRY_BULK": "1s 1s 1s*",
    "RELAY_RETRY_FIRST_AFTER_RCPT": "1s",
    "RELAY_RETRY_JITTER": "0",
    "RELAY_WORKER_IDLE_SESSION": "1s",
    # An account at the end of a scenario reads all of them.
    "RELAY_EVENTS_KEEP": "2000000",
}

_SINK = SinkSettings(
    dns="127.0.0.1:0",
    smtp="127.0.0.1:0",
    smtps="127.0.0.1:0",
    https="127.0.0.1:0",
    control="127.0.0.1:0",
)

#: Shaping without rates: what binds is the number of connections.
UNSHAPED = """
["default"]
max_connections = 20
connection_rate = "unlimited"
message_rate = "unlimited"
mails_per_connection = 1000
"""

_COMPLAINTS = ("warning", "error", "critical")

#: Moves the store's clock, and some leases with it.
_SHIFT = """
redis.call('HINCRBY', KEYS[1] .. 'meta', 'shift_ms', ARGV[1])
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1] .. 'incarnations', 'XX', 'INCR', ARGV[1], ARGV[i])
end
"""


class System:
    """One running relay; `await system.submit([...])`, `await system.until_delivered(receipt)`."""

    def __init__(
        self, folder: Path, redis: RedisServer | ReplicaSet, sink: SinkClient, extra: dict[str, str]
    ) -> None:
        self.folder = folder
        self.redis = redis
        self.sink = sink
        self._expected: tuple[str, ...] = ()
        status = sink.status()
        for name in ("dns", "smtp_port", "smtps_port", "https_port", "authority"):
            value = str(status[name])
            extra = {key: text.replace(f"{{{name}}}", value) for key, text in extra.items()}
        self.environment = {
            "RELAY_DELIVERY_MODE": "sink",
            "RELAY_DELIVERY_HOSTNAME": "relay.example",
            "RELAY_REDIS_URL": redis.url,
            "RELAY_SINK_DNS": status["dns"],
            "RELAY_SINK_SMTP": f"127.0.0.1:{status['smtp_port']}",
            "RELAY_LOG_FORMAT": "json",
            "SSL_CERT_FILE": status["authority"],
            **QUICK,
            **extra,
        }
        files = {"RELAY_CONFIG": "relay.toml", "RELAY_FILES_SHAPING": "shaping.toml"}
        for name in extra.keys() & files.keys():
            path = folder / files[name]
            path.write_text(extra[name])
            self.environment[name] = str(path)
        self.settings = load_settings(environ=self.environment)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.doors: dict[str, subprocess.Popen[bytes]] = {}
        self._sequence = 0

    @property
    def worker_log(self) -> Path:
        return self.folder / "worker.log"

    async def connect(self) -> None:
        """Open our own connection to the store."""
        assert self.settings.delivery.mode is not None
        mode = self.settings.delivery.mode.value
        self.store = await Store.connect(self.redis.url, mode, client_name="test")
        routes = RouteTable.from_settings(self.settings)
        self.submitter = Submitter(self.settings, self.store, routes)

    # -- processes ---------------------------------------------------------------------------

    def start_worker(
        self,
        *,
        code: Path = processes.ROOT,
        log: str = "worker.log",
        inside: Sequence[str] = (),
        module: str = "celery",
        **more: str,
    ) -> subprocess.Popen[bytes]:
        """A real Celery worker process, of this code or of another copy.

        `inside` goes before the command: the host that it runs on; `module` stands for Celery's
        own command line; `more` are variables.
        """
        command = processes.python(
            module, "-A", "workers.app", "worker", "-l", "INFO", "-n", f"w{len(self.workers)}@%h"
        )
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        worker = processes.start(
            [*inside, *command],
            log=self.folder / log,
            environment={**self.environment, **more},
            folder=code,
        )
        self.workers.append(worker)
        return worker

    def stop_worker(self, worker: subprocess.Popen[bytes]) -> int:
        """SIGTERM, and wait for its end; the exit status."""
        return processes.stop(worker)

    def kill_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """SIGKILL; it is gone when this returns."""
        processes.kill(worker)

    def start_smtpd(self, port: int | None = None) -> int:
        """The SMTP listener; its port."""
        port = port or free_port()
        self._start_door("smtpd", {"RELAY_SMTP_LISTEN": f"127.0.0.1:{port}"}, port)
        return port

    def start_http(self, port: int | None = None) -> int:
        """The HTTP daemon; its port."""
        port = port or free_port()
        self._start_door("http", {"RELAY_HTTP_LISTEN": f"127.0.0.1:{port}"}, port)
        return port

    def kill_door(self, verb: str) -> None:
        """SIGKILL a door; it is gone when this returns."""
        processes.kill(self.doors[verb])

    def _start_door(self, verb: str, more: dict[str, str], port: int) -> None:
        command = processes.python("relay.cli.main", verb)
        self.doors[verb] = processes.start(
            command, log=self.folder / f"{verb}.log", environment={**self.environment, **more}
        )
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.05)
        raise AssertionError(f"{verb} does not listen: {(self.folder / f'{verb}.log').read_text()}")

    def stop_processes(self) -> None:
        """End doors and workers."""
        for process in [*self.doors.values(), *self.workers]:
            if process.poll() is None:
                process.kill()
            process.wait()

    # -- mail --------------------------------------------------------------------------------

    def draft(
        self, to: list[str], *, sender: str = "news@example.org", text: str = "hello", **more: Any
    ) -> Draft:
        """A small message for these recipients; `headers` (bytes) are put before the body."""
        self._sequence += 1
        headers: bytes = more.pop("headers", b"")
        content = (
            f"From: <{sender or 'nobody@example.org'}>\r\nTo: undisclosed:;\r\n"
            f"Subject: message {self._sequence}\r\n"
        ).encode()
        content += headers + f"\r\n{text}\r\n".encode()
        return Draft(
            reverse_path=parse_reverse_path(sender),
            forward_paths=tuple(parse_address(item) for item in to),
            content=content,
            ingress=more.pop("ingress", "python"),
            origin=Origin("API"),
            **more,
        )

    async def submit(self, to: list[str], **more: Any) -> Receipt:
        """Submit through the single door behind all doors."""
        return await self.submitter.submit(self.draft(to, **more))

    async def submit_again(self, to: list[str], **more: Any) -> Receipt:
        """Submit; where the store is away, again until it is back, as any client would."""
        submission = self.submitter.prepare(self.draft(to, **more)).submission
        return await self.accept_again(submission)

    async def accept_again(self, submission: Submission) -> Receipt:
        """Hand the same submission over until the store has taken it."""
        while True:
            try:
                return await self.store.accept(submission)
            except StoreUnavailable:
                await asyncio.sleep(0.1)

    # -- looking -----------------------------------------------------------------------------

    async def message(self, receipt: Receipt | str) -> MessageView:
        """The message as the store shows it."""
        return await self.store.message(receipt if isinstance(receipt, str) else receipt.id)

    async def recipients(self, receipt: Receipt | str) -> dict[str, RecipientView]:
        """Recipients by address."""
        return {item.address: item for item in (await self.message(receipt)).recipients}

    async def until(
        self, receipt: Receipt | str, expected: dict[str, str], *, within_s: float = WAIT_S
    ) -> dict[str, RecipientView]:
        """Wait until these addresses have these states; AssertionError shows what they have."""
        return await self.until_view(
            receipt,
            lambda views: all(
                views[address].status == state for address, state in expected.items()
            ),
            within_s=within_s,
        )

    async def until_view(
        self,
        receipt: Receipt | str,
        holds: Callable[[dict[str, RecipientView]], bool],
        *,
        within_s: float = WAIT_S,
    ) -> dict[str, RecipientView]:
        """Wait until a condition on the recipients holds."""
        deadline = time.monotonic() + within_s
        while True:
            views = await self.recipients(receipt)
            if holds(views):
                return views
            if time.monotonic() > deadline:
                raise AssertionError(f"still {views}; worker log:\n{self.log_tail()}")
            await asyncio.sleep(0.05)

    async def until_waiting(self, receipt: Receipt | str, address: str, reason: str) -> Wait:
        """Wait until a recipient says that it is ready and waits for this reason."""

        def waits(views: dict[str, RecipientView]) -> bool:
            waiting = views[address].waiting
            return waiting is not None and waiting.reason == reason

        view = (await self.until_view(receipt, waits))[address]
        assert (view.status, view.step, view.attempt) == ("ready", 0, 0)
        assert view.waiting is not None
        return view.waiting

    async def until_delivered(self, *receipts: Receipt, within_s: float = WAIT_S) -> None:
        """Wait until every recipient of the messages is delivered."""
        for receipt in receipts:
            expected = {item.address: "delivered" for item in receipt.recipients}
            await self.until(receipt, expected, within_s=within_s)

    async def events(self, *types: str) -> list[StoredEvent]:
        """All events so far, of these types if given."""
        found: list[StoredEvent] = []
        cursor = "0"
        while page := await self.store.events(after=cursor, limit=1000):
            found += page
            cursor = page[-1].cursor
        return [event for event in found if not types or event.type in types]

    async def event_counts(self, address: str = "") -> Counter[str]:
        """How often each type of event occurred, of one recipient address if given."""
        return Counter(
            event.type
            for event in await self.events()
            if not address or event.data.get("address") == address
        )

    async def until_event(
        self, kind: str, count: int = 1, *, within_s: float = WAIT_S, **data: Any
    ) -> list[StoredEvent]:
        """Wait until so many events of a type, with these data, have occurred."""
        deadline = time.monotonic() + within_s
        while True:
            found = [
                event
                for event in await self.events(kind)
                if all(event.data.get(key) == value for key, value in data.items())
            ]
            if len(found) >= count:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(found)} of {count} {kind}; {self.log_tail()}")
            await asyncio.sleep(0.05)

    async def until_leased(self) -> None:
        """Wait until every living worker holds a lease."""
        living = {worker.pid for worker in self.workers}
        async with asyncio.timeout(WAIT_S):
            while not living <= {worker["pid"] for worker in await self.store.workers()}:
                await asyncio.sleep(0.1)

    async def until_marked(self, count: int = 1) -> None:
        """Wait until so many recipients bear the mark that their final dot is being sent."""
        wire, deadline = self.store.wire, time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            marks = [
                await wire.call("SCARD", f"{self.store.p}is:{worker['incarnation']}")
                for worker in await self.store.workers()
            ]
            if sum(marks) >= count:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"no {count} dots under way; {self.log_tail()}")

    async def until_host(self, host: str, *, sessions: int) -> None:
        """Wait until a simulated host has seen so many connections."""
        deadline = time.monotonic() + WAIT_S
        while True:
            use = self.sink.hosts().get(host, {}).get("use")
            if use and use["sessions"] >= sessions:
                return
            assert time.monotonic() < deadline, f"{use}; {self.log_tail()}"
            await asyncio.sleep(0.05)

    async def until_connected(self, connections: int) -> None:
        """Wait until the simulated internet has so many connections open."""
        deadline = time.monotonic() + WAIT_S
        while (open_now := self.sink.status()["connections"]) < connections:
            assert time.monotonic() < deadline, f"{open_now} connections; {self.log_tail()}"
            await asyncio.sleep(0.05)

    async def until_logged(self, event: str) -> None:
        """Wait until a worker has logged an event whose name ends so."""
        deadline = time.monotonic() + WAIT_S
        while not any(line["event"].endswith(event) for line in self.log_lines()):
            assert time.monotonic() < deadline, self.log_tail()
            await asyncio.sleep(0.05)

    async def queue(self, destination: str) -> QueueView:
        """The only queue of a destination."""
        (view,) = await self.store.queues(QueueMatch(destination=destination))
        return view

    async def shift_clock(self, seconds: float) -> None:
        """Move the store's clock: what is due later becomes due now.

        Leases of living workers move with it; those of killed ones run out the sooner.
        """
        living = {worker.pid for worker in self.workers if worker.poll() is None}
        holders = [
            info["incarnation"] for info in await self.store.workers() if info["pid"] in living
        ]
        milliseconds = int(seconds * 1000)
        await self.store.wire.call("EVAL", _SHIFT, 1, self.store.p, milliseconds, *holders)

    # -- logs --------------------------------------------------------------------------------

    def expects(self, *events: str) -> None:
        """Warnings and errors whose names begin so belong to the scenario."""
        self._expected += events

    def complaints(self) -> list[str]:
        """Lines of the processes' logs that nobody expected: warnings, errors, tracebacks."""
        found = []
        for path in (self.worker_log, *(self.folder / f"{verb}.log" for verb in self.doors)):
            for line in path.read_text().splitlines() if path.exists() else []:
                fields = _fields(line)
                if fields is None:
                    if "Traceback" in line or "Warning:" in line:
                        found.append(line)
                elif fields["level"] in _COMPLAINTS and not _begins(fields, self._expected):
                    found.append(line)
        return found

    def log_tail(self, octets: int = 6000) -> str:
        """The end of the workers' log."""
        return self.worker_log.read_text()[-octets:] if self.worker_log.exists() else ""

    async def logged(self, count: int, **fields: Any) -> list[dict[str, Any]]:
        """Wait until the workers have logged so many lines with these fields."""
        deadline = time.monotonic() + WAIT_S
        while True:
            found = [
                line
                for line in self.log_lines()
                if all(line.get(name) == value for name, value in fields.items())
            ]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {count}: {fields}"
            await asyncio.sleep(0.05)

    def log_lines(self, *, level: str | None = None) -> list[dict[str, Any]]:
        """The workers' log lines that are JSON, of one level if given.

        Lines below warning come a moment after what they tell: see `logged`.
        """
        text = self.worker_log.read_text() if self.worker_log.exists() else ""
        parsed = [fields for line in text.splitlines() if (fields := _fields(line)) is not None]
        return [line for line in parsed if level is None or line["level"] == level]


def _begins(fields: dict[str, Any], names: tuple[str, ...]) -> bool:
    return str(fields["event"]).startswith(names)


def _fields(line: str) -> dict[str, Any] | None:
    """A log line's fields; None where it is not JSON, or was cut by a kill."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


@contextlib.asynccontextmanager
async def running_system(
    folder: Path, *, workers: int = 1, redis: RedisServer | ReplicaSet | None = None, **extra: str
) -> AsyncIterator[System]:
    """A system of its own: Redis, sink and workers, ended afterwards whatever happens.

    `extra` are variables; in their values {dns}, {smtp_port}, {smtps_port} and {https_port} stand
    for the sink's ports, {authority} for its certificate's. RELAY_CONFIG and RELAY_FILES_SHAPING
    hold the texts of the files.
    """
    redis = redis or RedisServer(folder)
    redis.start()
    try:
        with background_sink(_SINK, Limits(receipts=RECEIPTS)) as sink:
            system = System(folder, redis, sink, extra)
            try:
                await system.connect()
                for _ in range(workers):
                    system.start_worker()
                yield system
            finally:
                system.stop_processes()
                await system.store.close()
    finally:
        redis.stop()
