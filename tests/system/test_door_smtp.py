"""The SMTP door as a daemon: real store, several processes on one port, stopping, Redis gone."""

import os
import signal
import smtplib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store.queue import Store
from tests.support.doors import Doors, relay, running_doors
from tests.support.system import System

TEXT = "From: a@example.org\r\nTo: ann@gmail.test\r\nSubject: hi\r\n\r\nhello\r\n"


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    with running_doors(tmp_path) as running:
        yield running


def submit(port: int, to: str = "ann@gmail.test") -> str:
    """Send one message with Python's own client; the queue-id of the reply."""
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.ehlo("client.test")
        client.mail("a@example.org", ["SIZE=100"])
        client.rcpt(to)
        code, reply = client.data(TEXT)
        assert code == 250, reply
    return reply.decode().rpartition(" ")[2]


async def test_message_taken_by_smtp_is_delivered(system: System) -> None:
    port = system.start_smtpd()
    queue_id = submit(port)
    await system.until(queue_id, {"ann@gmail.test": "delivered"})
    (seen,) = system.sink.receipts(recipient="ann@gmail.test")
    content = system.sink.content(seen.number)
    assert content.startswith(b"Received: from client.test ([127.0.0.1])\r\n\tby relay.example")
    assert content.endswith(b"\r\n\r\nhello\r\n")


async def test_queued_as_names_what_the_store_has(doors: Doors) -> None:
    _, port = doors.start("smtpd")
    queue_id = submit(port)
    store = await Store.connect(doors.redis.url, "sink")
    try:
        view = await store.message(queue_id)
        assert view.ingress == "smtp" and view.reverse_path == "a@example.org"
        assert (await store.content(queue_id)).endswith(b"\r\n\r\nhello\r\n")
    finally:
        await store.close()


def test_redis_gone_is_451_and_heals(doors: Doors) -> None:
    _, port = doors.start("smtpd")
    submit(port)
    doors.redis.kill()
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("a@example.org", ["ann@gmail.test"], TEXT)
        assert refused.value.smtp_code == 451
        doors.redis.start()
        assert client.sendmail("a@example.org", ["ann@gmail.test"], TEXT) == {}


def test_full_redis_is_452(doors: Doors) -> None:
    _, port = doors.start("smtpd")
    with doors.redis.client() as redis:
        redis.config_set("maxmemory", "1mb")
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("a@example.org", ["ann@gmail.test"], TEXT)
        assert refused.value.smtp_code == 452


def test_listener_starts_without_redis_and_joins_it(doors: Doors) -> None:
    doors.redis.kill()
    _, port = doors.start("smtpd")
    with (
        pytest.raises(smtplib.SMTPDataError),
        smtplib.SMTP("127.0.0.1", port, timeout=10) as client,
    ):
        client.sendmail("a@example.org", ["ann@gmail.test"], TEXT)
    doors.redis.start()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            try:
                client.sendmail("a@example.org", ["ann@gmail.test"], TEXT)
                return
            except smtplib.SMTPDataError:
                time.sleep(0.1)
    raise AssertionError("still refused")


def test_sigterm_tells_idle_clients_and_ends_well(doors: Doors) -> None:
    process, port = doors.start("smtpd")
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        reader = client.makefile("rb")
        assert reader.readline().startswith(b"220")
        process.send_signal(signal.SIGTERM)
        assert reader.readline().startswith(b"421 4.3.2")
        assert reader.readline() == b""
        assert process.wait(10) == 0


def test_several_processes_share_the_port_and_end_together(doors: Doors) -> None:
    process, port = doors.start("smtpd", RELAY_SMTP_PROCESSES="3")
    children = _children(process.pid)
    assert len(children) == 3
    for _ in range(10):
        submit(port)
    os.kill(children[0], signal.SIGKILL)
    end = time.monotonic() + 10
    while len(now := _children(process.pid)) < 3 or now == children:
        assert time.monotonic() < end, "the dead process was not replaced"
        time.sleep(0.05)
    submit(port)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert all(not _lives(child) for child in now)


def test_killed_parent_takes_its_processes_along(doors: Doors) -> None:
    process, _ = doors.start("smtpd", RELAY_SMTP_PROCESSES="2")
    children = _children(process.pid)
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while any(map(_lives, children)):
        assert time.monotonic() < end, "orphans"
        time.sleep(0.05)


@pytest.mark.parametrize("count", ["1", "2"])
def test_taken_port_is_one_line_and_exit_code_78(doors: Doors, count: str) -> None:
    _, port = doors.start("smtpd")
    listen = {"RELAY_SMTP_LISTEN": f"127.0.0.1:{port}", "RELAY_SMTP_PROCESSES": count}
    run = relay("smtpd", **doors.environment, **listen)
    assert run.code == 78
    last = run.err.splitlines()[-1]
    assert last.startswith(f"relay: smtp.listen: cannot listen on 127.0.0.1:{port}: ")


def _children(pid: int) -> list[int]:
    end = time.monotonic() + 5
    found: list[int] = []
    while time.monotonic() < end:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        found = [int(child) for child in text.split()]
        if found:
            break
    return found


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
