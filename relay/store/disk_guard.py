"""Marks the store full while the disk under its AOF is nearly full.

Only who runs on the store's machine can know: `relay up` guards the disk of its private Redis. The
mark expires by itself, so that a guard that died never keeps a store closed.
"""

import asyncio
import shutil
from pathlib import Path

from relay.model.errors import StoreError
from relay.store.keys import prefix
from relay.store.wire import Wire
from relay.telemetry.log import get_logger

LOOK_EVERY_S = 2.0
MARK_LIVES_S = 10

_log = get_logger()


async def guard_disk(url: str, mode: str, folder: Path, watermark: int) -> None:
    """Watch until cancelled; `watermark` is in octets free."""
    wire = Wire(url, client_name="relay-disk-guard")
    full = prefix(mode) + "full"
    was_full = False
    try:
        while True:
            free = shutil.disk_usage(folder).free
            is_full = free < watermark
            if is_full != was_full:
                log = _log.warning if is_full else _log.info
                log("disk.full" if is_full else "disk.free", free=free, watermark=watermark)
            try:
                if is_full:
                    reason = f"the disk has {free // 2**20} MiB free, less than the watermark"
                    await wire.call("SET", full, reason, "EX", MARK_LIVES_S)
                elif was_full:
                    await wire.call("DEL", full)
                was_full = is_full
            except StoreError as error:
                _log.debug("disk.not_marked", detail=str(error))
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await wire.close()
