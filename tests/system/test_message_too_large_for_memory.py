"""A message for whose content a worker has no memory: it is held, its neighbours are delivered."""

import resource
import subprocess
from pathlib import Path

from tests.system.conftest import Start

CONTENT = 24 * 2**20
#: What the worker may take beyond what it has: less than the content.
ROOM = 16 * 2**20


def limit_memory(process: "subprocess.Popen[bytes]") -> None:
    """Let the address space of a process grow by `ROOM` only, from now on."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def lift_limit(process: "subprocess.Popen[bytes]") -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(process.pid, resource.RLIMIT_AS, unlimited)


async def test_message_without_room_in_memory_is_held_and_its_neighbours_arrive(
    start: Start,
) -> None:
    # One arena: else address space that threads reserve beforehand would hold it.
    system = await start(MALLOC_ARENA_MAX="1")
    system.expects("session.crashed", "session.store_unavailable", "recipient.poisoned")
    await system.until_delivered(await system.submit(["first@shop.test"]))
    (worker,) = system.workers
    limit_memory(worker)

    line = "A" * 76 + "\r\n"
    large = await system.submit(["large@shop.test"], text=line * (CONTENT // len(line)))
    neighbours = [await system.submit([f"reader{n}@shop.test"]) for n in range(20)]
    await system.until_delivered(*neighbours)
    views = await system.until(large, {"large@shop.test": "held"})
    assert views["large@shop.test"].reason == "poison"
    assert views["large@shop.test"].attempt == 5
    assert worker.poll() is None
    (held,) = await system.events("recipient.held")
    assert (held.data["address"], held.data["reason"]) == ("large@shop.test", "poison")
    (alert,) = [line for line in system.log_lines() if line["event"] == "recipient.poisoned"]
    assert (alert["level"], alert["recipient_id"]) == ("error", f"{large.id}.1")
    assert await system.events("recipient.uncertain", "recipient.duplicate") == []

    lift_limit(worker)
    await system.store.release(large.id)
    await system.until_delivered(large)
    assert set(system.sink.counts().values()) == {1}
    (seen,) = system.sink.receipts(recipient="large@shop.test")
    assert seen.size > CONTENT
