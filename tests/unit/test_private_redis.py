"""The private Redis: where it is found, where its socket lies, that only one has the data."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from relay.model.errors import ConfigError
from relay.settings.schema import Redis
from relay.store import server
from relay.store.server import PrivateRedis, default_max_memory, find_server, is_news


def test_private_redis_is_durable_bounded_and_closed_to_others(tmp_path: Path) -> None:
    command = PrivateRedis(Redis(fsync="everysec", max_memory=1000), tmp_path).command
    given = command[command.index("--port") :]
    options = dict(zip(given[::2], given[1::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory"] == "1000"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--port"] == "0"
    assert options["--unixsocketperm"] == "700"
    assert options["--save"] == ""


def test_private_redis_socket_lies_in_the_data_folder(tmp_path: Path) -> None:
    assert PrivateRedis(Redis(), tmp_path).url == f"unix://{tmp_path}/redis.sock"


def test_private_redis_socket_of_a_long_path_lies_in_a_folder_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "t"
    short.mkdir()
    monkeypatch.setattr(server.tempfile, "gettempdir", lambda: str(short))
    folder = tmp_path / ("x" * 100)
    path = PrivateRedis(Redis(), folder).socket
    assert len(str(path)) < len(str(folder))
    assert path == PrivateRedis(Redis(), folder).socket
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.chmod(0o777)
    with pytest.raises(ConfigError, match=r"up\.data_dir: .* choose a shorter data_dir"):
        PrivateRedis(Redis(), folder)


def test_private_redis_memory_is_at_most_half_of_the_machine() -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < default_max_memory() <= machine // 2


def test_private_redis_server_is_the_one_that_the_variable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "my-redis"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setenv("RELAY_REDIS_SERVER", str(program))
    assert find_server() == str(program)


def test_private_redis_without_a_server_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RELAY_REDIS_SERVER", raising=False)
    monkeypatch.setattr(server.shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match=r"^redis\.url: .*apt-get install redis-server"):
        find_server()


def test_private_redis_waits_for_one_that_still_writes_and_then_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is inherited: it outlives the process that took it."""
    monkeypatch.setattr(server, "_LEFTOVER_S", 0.1)
    first = PrivateRedis(Redis(), tmp_path)
    first.lock()
    (inherited,) = first.inherited
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=first.inherited,
    ) as leftover:
        os.close(inherited)
        second = PrivateRedis(Redis(), tmp_path)
        with pytest.raises(ConfigError, match="a Redis of an earlier run still works in"):
            second.lock()
        os.close(second.inherited[0])
        assert leftover.stdin is not None
        leftover.stdin.close()
    third = PrivateRedis(Redis(), tmp_path)
    third.lock()
    os.close(third.inherited[0])


def test_private_redis_tells_news_from_ceremony() -> None:
    assert not is_news(b"1:M 21 Nov 2026 04:55:07.262 # Server initialized")
    assert is_news(b"1:M 21 Nov 2026 04:55:07.262 # Can't save in background: fork")
