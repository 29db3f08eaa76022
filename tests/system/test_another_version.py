"""Two versions of relay at one store: of another schema refused, of the same one side by side."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay.model.message import Receipt
from relay.store.keys import SCHEMA
from tests.support import processes
from tests.support.ports import free_ports
from tests.support.redis_server import RedisServer
from tests.support.system import System
from tests.system.conftest import Start

REFUSAL = (
    f"the store has schema 99, this relay speaks {SCHEMA}; "
    "run the version that wrote it, or drain it first"
)

SEND = """
from relay import Message, Relay
from relay.model.errors import ScriptMismatch
try:
    with Relay() as relay:
        relay.send(Message(from_="news@example.org", to="ann@shop.test", text="hello"))
except ScriptMismatch as error:
    print(f"relay: {error}", file=sys.stderr)
    raise SystemExit(78)
"""


def start(arguments: Sequence[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=processes.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def everything(redis: RedisServer) -> dict[bytes, Any]:
    """All keys of the server with their values, and the libraries of functions."""
    with redis.client() as client:
        keys: dict[bytes, Any] = {key: client.dump(key) for key in client.keys("*")}
        return {**keys, b"functions": client.function_list()}


def test_store_of_another_schema_is_refused_by_everything_and_left_as_it_is(
    tmp_path: Path,
) -> None:
    redis = RedisServer(tmp_path)
    redis.start()
    try:
        meta = "relay:sink:{r0}:meta"
        with redis.client() as client:
            client.hset(meta, mapping={"schema": "99", "mode": "sink", "created": "1"})
        before = everything(redis)
        smtp, http, dns, sink, control, other_smtp, other_http, third_smtp = free_ports(8)
        third = f"127.0.0.1:{third_smtp}"
        environment = {
            "RELAY_DELIVERY_MODE": "sink",
            "RELAY_REDIS_URL": redis.url,
            "RELAY_SMTP_LISTEN": f"127.0.0.1:{smtp}",
            "RELAY_HTTP_LISTEN": f"127.0.0.1:{http}",
            "RELAY_SINK_DNS": f"127.0.0.1:{dns}",
            "RELAY_SINK_SMTP": f"127.0.0.1:{sink}",
            "RELAY_SINK_CONTROL": f"127.0.0.1:{control}",
            "RELAY_LOG_FORMAT": "json",
        }
        verbs = {
            "smtpd": ["smtpd"],
            "two listeners": [
                "smtpd",
                "--set",
                "smtp.processes=2",
                "--set",
                f"smtp.listen={third}",
            ],
            "http": ["http"],
            "one worker": ["worker", "--set", "worker.processes=1"],
            "two workers": ["worker", "--set", "worker.processes=2"],
        }
        started = {
            name: start(["-m", "relay.cli.main", *verb], environment)
            for name, verb in verbs.items()
        }
        environment["RELAY_SMTP_LISTEN"] = f"127.0.0.1:{other_smtp}"
        environment["RELAY_HTTP_LISTEN"] = f"127.0.0.1:{other_http}"
        folder = str(tmp_path / "data")
        started["up"] = start(["-m", "relay.cli.main", "up", "--data-dir", folder], environment)
        started["client"] = start(["-c", "import sys\n" + SEND], environment)
        for name, process in started.items():
            out, err = process.communicate(timeout=60)
            assert (name, process.returncode, out, err) == (name, 78, "", f"relay: {REFUSAL}\n")
        assert everything(redis) == before
    finally:
        redis.stop()


async def test_store_taken_over_by_another_schema_ends_what_runs_and_loses_nothing(
    start: Start,
) -> None:
    system = await start()
    await asyncio.to_thread(system.start_smtpd)
    await asyncio.to_thread(system.start_http)
    system.expects("store.", "session.store", "deliver.store", "route.store", "lease.not_ended")
    await system.until_delivered(await system.submit(["first@shop.test"]))
    due_later = await system.submit(["tempfail+1@shop.test"])
    under_way = await system.submit(["slow+30s@other.test"])
    await system.until(under_way, {"slow+30s@other.test": "claimed"})
    await set_schema(system, "99")
    running = {"worker": system.workers[0], **system.doors}
    for name, process in running.items():
        code = await asyncio.to_thread(process.wait, 60)
        (said,) = [
            line
            for line in (system.folder / f"{name}.log").read_text().splitlines()
            if line.startswith("relay: ")
        ]
        assert (name, code, said) == (name, 78, f"relay: {REFUSAL}")
    await set_schema(system, SCHEMA)
    await system.shift_clock(60)
    system.start_worker()
    await system.until_delivered(due_later, await system.submit(["second@shop.test"]))
    await system.until_view(under_way, lambda views: views["slow+30s@other.test"].attempt == 2)
    assert set(system.sink.counts().values()) == {1}


async def set_schema(system: System, schema: str) -> None:
    await system.store.wire.call("HSET", system.store.p + "meta", "schema", schema)


async def test_code_of_two_versions_with_one_schema_delivers_side_by_side(start: Start) -> None:
    """A rolling restart: each version brings its own library of functions."""
    system = await start(workers=0, RELAY_WORKER_MAX_SESSIONS="4")
    other = changed_copy(system.folder / "other")
    old = system.start_worker(log="old.log")
    new = system.start_worker(code=other, log="new.log")
    await system.until_leased()
    # More than one of them has places for: they share them, and both deliver.
    system.sink.add_fault("first*.test", "RCPT", "stall")
    receipts = [await system.submit([f"ann@first{n}.test"]) for n in range(8)]
    assert [await tried_by(system, receipt) for receipt in receipts].count(old.pid) == 4
    system.sink.clear_faults()
    system.sink.drop_connections()
    await system.until_delivered(*receipts)
    libraries = await system.store.wire.call("FUNCTION", "LIST")
    assert len({bytes(library[1]) for library in libraries}) == 2

    before = [await system.submit([f"slow+1s@second{n}.test"]) for n in range(8)]
    assert await asyncio.to_thread(system.stop_worker, old) == 0
    after = [await system.submit([f"reader@second{n}.test"]) for n in range(8)]
    await system.until_delivered(*before, *after)
    assert new.poll() is None
    assert set(system.sink.counts().values()) == {1}
    assert await system.events("recipient.uncertain", "recipient.duplicate") == []


async def tried_by(system: System, receipt: Receipt) -> int:
    """Wait until the only recipient is being tried; the process id of the worker that does."""
    (address,) = (item.address for item in receipt.recipients)
    view = (await system.until(receipt, {address: "claimed"}))[address]
    assert view.waiting is not None
    return int(view.waiting.text.split(" by worker ")[1].split()[0])


def changed_copy(folder: Path) -> Path:
    """This code with one script written otherwise, as a later version would have it."""
    for name in ("relay", "workers", "config"):
        shutil.copytree(
            processes.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    script = folder / "relay" / "store" / "lua" / "claim.lua"
    script.write_text(script.read_text() + "\n-- another version\n")
    return folder
