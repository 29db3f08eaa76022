"""Stores with very many recipients, made once and kept in the cache for the day.

They are loaded by the store's own scripts, each call as a door or a worker makes it: `accept`,
`route`, `claim`, `settle`, and `tick` for what only time does. The worker here is one that sends
nothing: what it claims is deferred, as by a receiver that says 451.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import uvloop

from bench.report import say
from bench.run import Run
from bench.source import Bodies
from relay.delivery.routing import MxHost, Routed, encode_site
from relay.model.address import parse_address
from relay.model.errors import StoreUnavailable
from relay.model.ids import new_queue_id
from relay.model.lane import Lane
from relay.model.message import ClaimedMessage, Outcome, Submission
from relay.model.state import State
from relay.model.verdict import Scope, Severity, Verdict
from relay.settings.schema import Redis
from relay.store.queue import Store
from relay.store.scripts import library
from relay.store.server import PrivateRedis
from relay.store.settler import Group, settle_item, settle_request
from relay.store.work import Work

#: A stored Redis is used for so long: what is deferred in it comes due half a day after that.
KEPT_S = 10 * 3600.0
_DUE_S = (12 * 3600.0, 36 * 3600.0)
_AT_ONCE = 200
_EVENTS = 100_000
_OCTETS = 400
_LATER = Verdict(
    Severity.TRANSIENT, Scope.RECIPIENT, "greylisted", "451 4.7.1 Please try again later."
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a store holds: bulk messages with one recipient each, over domains by Zipf's law."""

    name: str
    recipients: int
    domains: int
    is_deferred: bool

    def counts(self) -> list[tuple[str, int]]:
        """Recipients by domain, the largest first."""
        harmonic = sum(1 / rank for rank in range(1, self.domains + 1))
        counts = [
            max(1, int(self.recipients / (harmonic * rank))) for rank in range(1, self.domains + 1)
        ]
        counts[0] += self.recipients - sum(counts)
        return [(f"z{rank}.{self.name}.test", count) for rank, count in enumerate(counts, start=1)]


class Stored(msgspec.Struct, frozen=True):
    """A stored Redis: its folder, octets a recipient (in all, of content), seconds to load."""

    folder: str
    recipients: int
    octets_each: float
    content_each: float
    accepted_s: float
    deferred_s: float

    @property
    def path(self) -> Path:
        return Path(self.folder)


def stored(run: Run, plan: Plan) -> Stored:
    """The store of a plan, from the cache or made now."""
    key = hashlib.sha256(repr((plan, library("sink")[0], _OCTETS)).encode()).hexdigest()[:12]
    folder = run.cache / "stores" / f"{plan.name}-{key}"
    about = folder / "about.json"
    if about.exists() and time.time() - about.stat().st_mtime < KEPT_S:
        return msgspec.json.decode(about.read_bytes(), type=Stored)
    for old in folder.parent.glob(f"{plan.name}-*"):
        shutil.rmtree(old)
    (folder / "redis").mkdir(parents=True)
    say(f"  loading {plan.recipients} recipients in {plan.domains} domains …")
    with _redis(folder / "redis") as url:
        made = uvloop.run(_load(url, plan, str(folder / "redis")))
    about.write_bytes(msgspec.json.encode(made))
    say(f"  accepted in {made.accepted_s:.0f} s, deferred in {made.deferred_s:.0f} s")
    return made


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """A Redis as `relay up` starts it, but for its fsync: nobody was promised these messages."""
    with tempfile.TemporaryDirectory(prefix="relay-store-") as short:
        redis = PrivateRedis(Redis(fsync="everysec"), folder)
        redis.socket = Path(short) / "redis.sock"
        process = subprocess.Popen(redis.command, stdout=subprocess.DEVNULL)
        try:
            yield redis.url
        finally:
            process.terminate()
            process.wait()


async def _load(url: str, plan: Plan, folder: str) -> Stored:
    store = await _connect(url)
    try:
        empty = await _used(store)
        began = time.monotonic()
        async with _ticking(store) as work:
            content = await _accept(store, plan)
            accepted = time.monotonic()
            if plan.is_deferred:
                await _defer(store, plan)
            deferred = time.monotonic()
            while await store.wire.call("XLEN", store.p + "events") > _EVENTS + 1000:
                await _tick(work)  # each takes off a thousand
        each = (await _used(store) - empty) / plan.recipients
        await _rewrite(store)
        content_each = content / plan.recipients
        times = (accepted - began, deferred - accepted)
        return Stored(folder, plan.recipients, each, content_each, *times)
    finally:
        await store.close()


async def _connect(url: str) -> Store:
    while True:
        try:
            return await Store.connect(url, "sink", client_name="bench")
        except StoreUnavailable:
            await asyncio.sleep(0.1)


async def _used(store: Store) -> int:
    return int(await _info(store, "memory", "used_memory"))


async def _info(store: Store, section: str, field: str) -> str:
    lines: list[str] = (await store.wire.call("INFO", section)).decode().splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(f"{field}:"))


async def _rewrite(store: Store) -> None:
    """One compact file in the place of the log of all that happened."""
    await store.wire.call("BGREWRITEAOF")
    await asyncio.sleep(1)
    while await _info(store, "persistence", "aof_rewrite_in_progress") != "0":
        await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def _ticking(store: Store) -> AsyncIterator[Work]:
    """Let time pass beside the load, as a worker's ticker does; the worker that does it."""
    work = await _worker(store)

    async def run() -> None:
        while True:
            await _tick(work)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(run())
    try:
        yield work
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await work.end()


async def _tick(work: Work) -> None:
    await work.tick(pools=("default",), uncertain={"t": "retry", "b": "retry"}, keep_events=_EVENTS)


async def _worker(store: Store) -> Work:
    work = Work(store, lease_s=3600.0, info={"bench": True})
    await work.begin()
    return work


# -- accept ----------------------------------------------------------------------------------


async def _accept(store: Store, plan: Plan) -> int:
    """Accept a message for each recipient; octets of content."""
    bodies = Bodies(_OCTETS)
    addresses = _shuffled(plan)

    async def work() -> int:
        octets = 0
        for number, address in addresses:
            submission = _submission(number, address, bodies(number))
            octets += len(submission.content)
            await store.accept(submission)
        return octets

    return sum(await asyncio.gather(*(work() for _ in range(_AT_ONCE))))


def _shuffled(plan: Plan) -> Iterator[tuple[int, str]]:
    """All addresses as a list of subscribers has them: in no order."""
    domains = [domain for domain, count in plan.counts() for _ in range(count)]
    random.Random(1).shuffle(domains)
    return ((number, f"reader{number}@{domain}") for number, domain in enumerate(domains))


def _submission(number: int, address: str, body: bytes) -> Submission:
    path, queue_id = parse_address(address), new_queue_id()
    head = f"From: News <news@example.org>\r\nTo: {address}\r\nSubject: letter {number}\r\n\r\n"
    return Submission(
        queue_id=queue_id,
        reverse_path=parse_address("news@example.org"),
        forward_paths=(path,),
        destinations=(path.domain,),
        content=head.encode() + body,
        message_id=f"<{queue_id}@relay.example>",
        mail_class="bulk",
        expires_after_s=3 * 86400.0,
    )


# -- defer -----------------------------------------------------------------------------------


async def _defer(store: Store, plan: Plan) -> None:
    """Route every domain, claim all that is ready and settle it as deferred."""
    work = await _worker(store)
    domains = iter(plan.counts())

    async def run() -> None:
        for domain, _ in domains:
            lane = await _route(work, domain)
            while True:
                claim = await work.claim(lane, limit=50, octets=1 << 20)
                if claim.messages:
                    await _settle(work, [_deferred(message) for message in claim.messages])
                elif claim.backlog <= 0:
                    break

    await asyncio.gather(*(run() for _ in range(20)))
    await work.end()


async def _route(work: Work, domain: str) -> str:
    site = f"mx1.{domain}"
    lane = Lane(site, "default", "off")
    hosts = (MxHost(site, 10, 25),)
    # Made under other rules than those of the relay that will read it: it looks the route up anew.
    record = encode_site(Routed(lane, site, "", hosts, 3600.0), digest=b"bench")
    await work.routed(domain, str(lane), record, fresh_s=60.0)
    return str(lane)


def _deferred(message: ClaimedMessage) -> Outcome:
    (item,) = message.recipients
    return Outcome(
        queue_id=message.queue_id,
        number=item.number,
        attempt=item.attempt,
        state=State.DEFERRED,
        verdict=_LATER,
        delay_s=random.uniform(*_DUE_S),
        advance=True,
        events=("recipient.deferred",),
        event={"recipient_id": f"{message.queue_id}.{item.number}", "attempt": item.attempt},
    )


async def _settle(work: Work, outcomes: list[Outcome]) -> None:
    group = Group([settle_item(outcome) for outcome in outcomes], [])
    request, contents = settle_request(work.holder, [group])
    answers = await work.store.scripts.call("settle", request, *contents)
    if set(answers) != {b"ok"}:
        raise RuntimeError(f"settle answered {answers}, process {os.getpid()}")
