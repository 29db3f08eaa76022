"""B12: a worker is killed with -9, its mail moves; Redis is killed holding 1,000,000 recipients."""

import asyncio
import os
import signal
import time

import redis
import uvloop

from bench.b5_deferred import plan_of
from bench.client import readers, send_newsletter
from bench.report import Result, say
from bench.run import Run
from bench.stores import stored
from bench.system import Relay
from relay.model.errors import RelayError
from relay.store.queue import Store

WORKER_TARGET_S, REDIS_TARGET_S = 20.0, 60.0
_SITES = 40
_CONTENT = b"From: <shop@example.org>\r\nSubject: after the fall\r\n\r\nHello.\r\n"


def run(run: Run) -> list[Result]:
    """Kill both, one after the other."""
    return [_worker(run), _redis(run)]


# -- a worker --------------------------------------------------------------------------------


def _worker(run: Run) -> Result:
    moved: list[float] = []
    held = 0
    for _ in range(run.rounds):
        with Relay(run.folder("relay"), RELAY_LOG_LEVEL="warning") as relay:
            seconds, number = uvloop.run(_kill_a_worker(relay))
        moved.append(seconds)
        held += number
        say(f"  {number} recipients of a killed worker moved in {seconds:.1f} s")
    worst = max(moved)
    return Result(
        code="B12 worker",
        what="worker killed -9, until all its mail was delivered by others",
        relay=f"{worst:.1f} s",
        target=f"<= {WORKER_TARGET_S:g} s",
        met=worst <= WORKER_TARGET_S,
        notes=(f"the slowest of {len(moved)} kills; {held} recipients were with the killed ones",),
    )


async def _kill_a_worker(relay: Relay) -> tuple[float, int]:
    """Seconds until every recipient that the worker held was delivered, and how many it held.

    Its receivers take 2 s for each message, so it holds some; after its death they answer at once.
    """
    slow = relay.sink.add_fault("*.notls.test", "end-of-data", "delay", delay="2s")
    addresses = readers(_SITES * 30, lambda number: f"d{number % _SITES}.notls.test")
    await send_newsletter(relay, addresses, octets=1000)
    await asyncio.sleep(4)
    store = await Store.connect(relay.url, "sink", client_name="bench")
    try:
        held = {
            (await store.wire.call("SCARD", f"{store.p}ic:{worker['incarnation']}")): worker
            for worker in await store.workers()
        }
        victim = held[max(held)]
        os.kill(int(victim["pid"]), signal.SIGKILL)
        killed = time.time()
        relay.sink.remove_fault(slow.id)
        claims = await store.wire.call("SMEMBERS", f"{store.p}ic:{victim['incarnation']}")
        waiting = {await _address_of(store, rid.decode()) for rid in claims}
    finally:
        await store.close()
    number, last = len(waiting), killed
    while waiting and time.time() < killed + 120:
        for receipt in await asyncio.to_thread(relay.sink.receipts, limit=100_000):
            if receipt.time > killed and not waiting.isdisjoint(receipt.forward_paths):
                waiting -= set(receipt.forward_paths)
                last = max(last, receipt.time)
        await asyncio.sleep(0.2)
    if waiting:
        raise RuntimeError(f"{len(waiting)} recipients of a killed worker were not delivered")
    return last - killed, number


async def _address_of(store: Store, recipient_id: str) -> str:
    queue_id, _, number = recipient_id.partition(".")
    view = await store.message(queue_id)
    return view.recipients[int(number) - 1].address


# -- Redis -----------------------------------------------------------------------------------


def _redis(run: Run) -> Result:
    held = stored(run, plan_of(run))
    found: list[tuple[float, float]] = []
    relay = Relay(run.folder("relay"), RELAY_LOG_LEVEL="error")
    relay.start(held.path)
    try:
        uvloop.run(_deliver(relay, "before"))
        for number in range(run.rounds):
            found.append(uvloop.run(_kill_redis(relay, number)))
            say("  Redis answered after {:.1f} s, first delivery after {:.1f} s".format(*found[-1]))
            time.sleep(run.size(35, 5))  # its grace for leases is over: as if nothing had been
        left = int(relay.redis().hget("relay:sink:{r0}:states", "deferred") or 0)
        octets = relay.redis_info()["used_memory"]
    finally:
        relay.stop()
    worst = max(seconds for _, seconds in found)
    answered = max(seconds for seconds, _ in found)
    return Result(
        code="B12 Redis",
        what=f"Redis killed -9 holding {held.recipients:,} recipients, until mail flows again",
        relay=f"{worst:.1f} s",
        target=f"<= {REDIS_TARGET_S:g} s",
        met=worst <= REDIS_TARGET_S,
        notes=(
            f"the slowest of {len(found)} kills; Redis answered again after {answered:.1f} s;"
            f" it holds {octets / 1e9:.2f} GB, {left:,} recipients still deferred at the end",
        ),
    )


async def _deliver(relay: Relay, name: str) -> float:
    """Send one message until it is taken; when the receiver had it."""
    address = f"{name}@first.notls.test"
    async with relay.client() as client:
        while True:
            try:
                await client.send_raw(_CONTENT, sender="shop@example.org", recipients=[address])
                break
            except RelayError:
                await asyncio.sleep(0.05)
    (receipt, *_) = await asyncio.to_thread(
        relay.sink.receipts, at_least=1, recipient=address, timeout_s=60.0
    )
    return receipt.time


async def _kill_redis(relay: Relay, number: int) -> tuple[float, float]:
    """Seconds until Redis answered, and until a message sent since then was delivered."""
    (pid,) = relay.pids("redis")
    os.kill(pid, signal.SIGKILL)
    killed = time.time()
    delivery = asyncio.create_task(_deliver(relay, f"after{number}"))
    while True:
        try:
            await asyncio.to_thread(relay.redis().ping)
            break
        except redis.RedisError:
            await asyncio.sleep(0.05)
    answered = time.time()
    return answered - killed, await delivery - killed
