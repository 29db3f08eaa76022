"""What a loss of power leaves at the end of Redis' append-only file, cut at every octet of it."""

import asyncio
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from relay.settings.schema import Redis
from relay.store.server import PrivateRedis, find_server
from relay.store.torn_tail import ends_well, mend
from tests.support import processes
from tests.support.redis_server import RedisServer

BEFORE = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"
SCRIPT = "redis.call('SET', 'b', ARGV[1]) redis.call('SET', 'c', ARGV[1])"


class File:
    """The append-only file of a server that ran one command and then one script."""

    def __init__(self, folder: Path) -> None:
        server = RedisServer(folder)
        server.start()
        with server.client() as client:
            client.set("a", "1")
            # Text that looks like the end of a transaction.
            client.eval(SCRIPT, 0, b"*1\r\n$4\r\nEXEC\r\n\0\0")
        server.kill()
        self.folder = server.folder
        self.path = server.append_only_file
        self.whole = self.path.read_bytes()
        self.script = self.whole.index(b"*1\r\n$5\r\nMULTI")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[File]:
    file = File(tmp_path_factory.mktemp("aof"))
    yield file
    shutil.rmtree(file.folder)


def test_script_of_which_any_octet_is_missing_is_gone_as_a_whole(file: File) -> None:
    for kept in range(file.script, len(file.whole)):
        file.path.write_bytes(file.whole[:kept])
        assert mend(file.folder, find_server()) == kept - file.script
        assert file.path.read_bytes() == file.whole[: file.script]


def test_octets_that_the_disk_never_got_are_gone(file: File) -> None:
    for kept in random.Random(1).sample(range(file.script, len(file.whole)), 20):
        file.path.write_bytes(file.whole[:kept].ljust(5000, b"\0"))
        mend(file.folder, find_server())
        assert file.path.read_bytes() == file.whole[: file.script]


def test_whole_file_is_left_alone(file: File) -> None:
    for more in (b"", file.whole[file.script :], BEFORE.encode(), BEFORE.encode() * 50_000):
        file.path.write_bytes(file.whole + more)
        assert mend(file.folder, find_server()) == 0
        assert file.path.read_bytes() == file.whole + more
    assert ends_well(file.path) is False  # beyond what is looked at first: all of it was read


def test_damage_in_the_middle_is_left_to_an_operator(file: File) -> None:
    damaged = file.whole[: file.script] + b"?" + file.whole[file.script + 1 :]
    file.path.write_bytes(damaged)
    assert mend(file.folder, find_server()) == 0
    assert file.path.read_bytes() == damaged


def test_zeros_behind_such_damage_are_left_too(file: File) -> None:
    damaged = file.whole[: file.script] + b"?" + file.whole[file.script + 1 :] + bytes(100)
    file.path.write_bytes(damaged)
    assert mend(file.folder, find_server()) == 0
    assert file.path.read_bytes() == damaged


def test_file_that_is_all_zeros_is_empty(file: File) -> None:
    for length in (0, 5000):
        file.path.write_bytes(bytes(length))
        assert mend(file.folder, find_server()) == length
        assert file.path.read_bytes() == b""


@pytest.mark.parametrize("end", [b"*", bytes(5000)])
async def test_private_redis_starts_on_an_end_that_redis_refuses(
    file: File, tmp_path: Path, end: bytes
) -> None:
    shutil.copytree(file.path.parent, tmp_path / "appendonlydir")
    (tmp_path / "appendonlydir" / file.path.name).write_bytes(file.whole + end)
    private = PrivateRedis(Redis(), tmp_path)
    process = processes.start(private.command, log=tmp_path / "redis.log")
    try:
        async with asyncio.timeout(20):
            while await private.state() != "ready":
                await asyncio.sleep(0.02)
        with redis.Redis(unix_socket_path=str(private.socket)) as client:
            assert client.get("a") == b"1"
    finally:
        processes.kill(process)
    assert f"{len(end)} octets of an unfinished write" in (tmp_path / "redis.log").read_text()


async def test_private_redis_does_not_start_on_damage_in_the_middle(
    file: File, tmp_path: Path
) -> None:
    damaged = file.whole[: file.script] + b"?" + file.whole[file.script + 1 :]
    shutil.copytree(file.path.parent, tmp_path / "appendonlydir")
    (tmp_path / "appendonlydir" / file.path.name).write_bytes(damaged)
    process = processes.start(PrivateRedis(Redis(), tmp_path).command, log=tmp_path / "redis.log")
    try:
        assert await asyncio.to_thread(process.wait, 20) == 1
    finally:
        processes.kill(process)
    assert "Bad file format" in (tmp_path / "redis.log").read_text()


def test_folder_without_a_file_is_nothing_to_mend(tmp_path: Path) -> None:
    assert mend(tmp_path, find_server()) == 0


def test_half_a_script_is_never_carried_out(tmp_path: Path) -> None:
    """Not at the next start either, when more has been written behind it."""
    server = RedisServer(tmp_path)
    server.start()
    with server.client() as client:
        client.eval(SCRIPT, 0, "x")
    server.kill()
    file = server.append_only_file
    file.write_bytes(file.read_bytes()[:-20])
    server.start()
    with server.client() as client:
        client.set("a", "1")
        client.eval("redis.call('SET', 'd', 1) redis.call('SET', 'e', 1)", 0)
        server.restart()
        assert client.mget("a", "b", "c", "d", "e") == [b"1", None, None, b"1", b"1"]
    server.stop()
