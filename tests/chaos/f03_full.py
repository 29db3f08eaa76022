"""F3: Redis' memory is full, the disk is nearly full, the disk is full; and back, under traffic.

From the watermark on every door says that it cannot take mail for now, and none says that it did;
what was taken is delivered meanwhile (with a full disk: when there is space again).
"""

import asyncio
import base64
import contextlib
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from relay.model.errors import StoreFull, StoreUnavailable
from relay.sim.client import SinkClient
from relay.store.queue import Store
from relay.store.server import private_url
from tests.chaos.clients import Answer, Clients, clients
from tests.support.household import Household, household
from tests.support.ledger import balance, until_all_ended
from tests.support.redis_server import RedisServer
from tests.support.system import UNSHAPED, System, running_system
from tests.system.test_redis_restarted import ABSENCE

#: What was said before is read until then; what looks at the disk looks every 2 s.
MARGIN_S, MARK_S = 1.0, 4.0
BACK_WITHIN_S = 60
DISK_MB, WATERMARK_MB = 64, 24


class Size(msgspec.Struct, frozen=True):
    """Memory of Redis, how long each lack lasts."""

    memory_mb: int
    lasts_s: float


SHORT = Size(memory_mb=24, lasts_s=0.5)
LONG = Size(memory_mb=128, lasts_s=15.0)


async def run(folder: Path, size: Size) -> str:
    """Each of the three; the figures. Without root's mounts the disk is left out."""
    told = [await _memory(folder, size)]
    if os.geteuid() == 0:
        told += await _disk(folder, size)
    return "\n".join(told)


# -- memory ----------------------------------------------------------------------------------


async def _memory(folder: Path, size: Size) -> str:
    place = folder / "memory"
    place.mkdir()
    redis = RedisServer(place, max_memory=f"{size.memory_mb}mb")
    async with running_system(
        place, redis=redis, workers=0, RELAY_FILES_SHAPING=UNSHAPED
    ) as system:
        system.expects(*ABSENCE, "message.refused", "http.unavailable", "store.")
        smtp = await asyncio.to_thread(system.start_smtpd)
        http = await asyncio.to_thread(system.start_http)
        async with clients(smtp, http) as senders:
            filling = await _fill(system)
            full = time.monotonic()
            await asyncio.sleep(MARGIN_S + size.lasts_s)
            meanwhile = senders.between(full + MARGIN_S, time.monotonic())
            draining = time.monotonic()
            system.start_worker()
            again_s = await senders.until_taken(draining, within_s=BACK_WITHIN_S)
        await until_all_ended(system, within_s=90)
        ledger = await balance(system)
        _check_refused(meanwhile)
        arrived, expected = {path for _, path in ledger.copies}, {*senders.taken, *filling}
        assert arrived == expected, (list(expected - arrived)[:5], list(arrived - expected)[:5])
        assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
        assert not ledger.doubled
        assert not system.complaints(), system.complaints()[:3]
    return (
        f"F3   memory full with {len(filling):,} messages: {len(meanwhile)} times told to come "
        f"again, none taken; all delivered once while full, doors take mail {again_s:.1f} s later"
    )


async def _fill(system: System) -> list[str]:
    """Messages that cannot be compressed, until the store takes no more."""
    taken: list[str] = []
    while True:
        address = f"fill{len(taken)}@domain{len(taken) % 50}.test"
        try:
            await system.submit([address], text=_noise())
        except StoreFull:
            return taken
        except StoreUnavailable:
            continue  # there was room for the message, and none for its content
        taken.append(address)


def _noise() -> str:
    return base64.encodebytes(random.randbytes(8_000)).decode().replace("\n", "\r\n")


def _check_refused(answers: list[Answer]) -> None:
    assert answers
    assert all(answer.is_for_now for answer in answers), answers


# -- disk ------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def _disk(folder: Path, size: Size) -> list[str]:
    with (
        small_disk(folder / "disk") as disk,
        household(disk, RELAY_REDIS_DISK_WATERMARK=f"{WATERMARK_MB} MiB") as house,
    ):
        await asyncio.to_thread(house.start_ready)
        async with clients(house.smtp, house.http) as senders:
            await senders.until_taken(time.monotonic(), within_s=BACK_WITHIN_S)
            told = [
                await _lack(house, senders, disk, size, left_mb=WATERMARK_MB - 8),
                await _lack(house, senders, disk, size, left_mb=0),
            ]
        copies = await _until_arrived(house, senders)
        assert await asyncio.to_thread(house.end) == 0
    return [f"{line}; {len(senders.taken):,} taken, 0 lost, {copies} twice" for line in told]


async def _lack(house: Household, senders: Clients, disk: Path, size: Size, *, left_mb: int) -> str:
    """Fill the disk up to so much, and free it again."""
    ballast = disk / "ballast"
    _write(ballast, disk, left_mb)
    full = time.monotonic()
    margin = MARK_S if left_mb else MARGIN_S
    await asyncio.sleep(margin + size.lasts_s)
    if not left_mb:
        _write(ballast, disk, left_mb)  # what Redis had freed by ending
    now = time.monotonic()
    meanwhile = senders.between(full + margin, now)
    ballast.unlink()
    again_s = await senders.until_taken(now, within_s=BACK_WITHIN_S)
    _check_refused(meanwhile)
    what = f"{left_mb} MB left, below the watermark" if left_mb else "disk full, Redis ended"
    if not left_mb:
        assert "program.ended" in house.out
    return (
        f"F3   {what}: {len(meanwhile)} times told to come again, none taken; "
        f"doors take mail {again_s:.1f} s after there was space"
    )


def _write(ballast: Path, disk: Path, left_mb: int) -> None:
    """Octets until no more than that is free."""
    with ballast.open("ab") as opened, contextlib.suppress(OSError):
        while (free := os.statvfs(disk)).f_bavail * free.f_bsize > left_mb << 20:
            space = free.f_bavail * free.f_bsize - (left_mb << 20)
            opened.write(bytes(min(space, 1 << 20)))
            opened.flush()


async def _until_arrived(house: Household, senders: Clients) -> int:
    """Wait until all that was taken has arrived; how many did twice, all of them reported."""
    sink = SinkClient(house.environment["RELAY_SINK_CONTROL"])
    async with asyncio.timeout(BACK_WITHIN_S):
        while True:
            seen = await asyncio.to_thread(sink.receipts, limit=1_000_000)
            copies = Counter((one.message_id, path) for one in seen for path in one.forward_paths)
            if set(senders.taken) <= {path for _, path in copies}:
                break
            await asyncio.sleep(0.5)
    twice = {path for (_, path), count in copies.items() if count > 1}
    store = await Store.connect(private_url(house.data / "sink"), "sink", client_name="test")
    reported, cursor = set(), "0"
    while page := await store.events(after=cursor, limit=1000):
        cursor = page[-1].cursor
        reported |= {
            event.data["address"]
            for event in page
            if event.type in ("recipient.uncertain", "recipient.duplicate")
        }
    await store.close()
    assert twice <= reported, sorted(twice - reported)[:10]
    return len(twice)
