"""What `relay up` does: claim data and ports, start Redis, then the rest, tell, wait, stop."""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from relay.cli.api import DEFAULT_API
from relay.cli.daemons import environment, redis_program, relay_programs
from relay.cli.faults import CommandFailed
from relay.cli.output import Output
from relay.cli.supervisor import Supervisor
from relay.delivery.routing import doubt_of_name
from relay.model.errors import ConfigError, RelayError, ScriptMismatch
from relay.settings.files import data_folder
from relay.settings.kinds import ListenAddress, parse_listen
from relay.settings.loader import Loaded, listens
from relay.settings.schema import Mode, Settings
from relay.store.connect import check_store
from relay.store.disk_guard import guard_disk
from relay.store.server import PrivateRedis, is_news
from relay.telemetry.log import get_logger

#: How long Redis may take to open its socket before we say so; loading may take longer.
_REDIS_OPENS_S = 10.0
_LISTENING_S = 30.0
_log = get_logger()


def prepare(loaded: Loaded, flags: dict[str, Any]) -> "Household":
    """Claim everything that must be ours alone; a fault here means that nothing was started."""
    settings = loaded.settings
    folder = data_folder(settings)
    _make_folder(folder)
    lock = _claim(folder)
    check_ports(settings)
    if settings.redis.url:
        asyncio.run(check_store(settings.redis.url, str(settings.delivery.mode)))
    redis = None
    if not settings.redis.url:
        redis_folder = folder / str(settings.delivery.mode)
        _make_folder(redis_folder)
        redis = PrivateRedis(settings.redis, redis_folder)
        redis.lock()
    return Household(loaded, flags, folder, redis, lock)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"up.data_dir: {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"up.data_dir: {folder} cannot be written to")


def _claim(folder: Path) -> int:
    """Lock the data folder until this process is gone, however it goes; says who has it."""
    lock = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        who = f" (process {holder})" if holder.isdecimal() else ""
        raise CommandFailed(
            f"relay up is running already{who} with the data in {folder}; stop it, or give this "
            "one its own --data-dir and ports"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def used_listens(settings: Settings) -> list[tuple[str, ListenAddress]]:
    """What will listen in this mode, with the name of each setting."""
    is_sink = settings.delivery.mode is Mode.SINK
    named = [(name, parse_listen(text)) for name, text in listens(settings)]
    return [(name, at) for name, at in named if is_sink or not name.startswith("sink.")]


def check_ports(settings: Settings) -> None:
    """ConfigError naming port and setting where one cannot be bound."""
    for name, at in used_listens(settings):
        kinds = [socket.SOCK_STREAM] + ([socket.SOCK_DGRAM] if name == "sink.dns" else [])
        for kind in kinds:
            _check_port(name, at, kind)


def _check_port(name: str, at: ListenAddress, kind: int) -> None:
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    variable = "RELAY_" + name.upper().replace(".", "_")
    free = ListenAddress(at.host, at.port + 10000 if at.port < 55000 else at.port - 10000)
    elsewhere = f"choose another: {variable}={free}"
    reasons = {
        errno.EADDRINUSE: f"is in use; stop what listens there, or {elsewhere}",
        errno.EACCES: f"needs privileges (a port below 1024); {elsewhere}",
        errno.EADDRNOTAVAIL: "is no address of this machine",
    }
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:  # connections of the last run may still be in TIME_WAIT
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((at.host, at.port))
        except OSError as error:
            reason = reasons.get(error.errno or 0, f"cannot be bound: {error.strerror}")
            raise ConfigError(f"{name}: {at} {reason}") from None


class Household:
    """Everything that runs under one `relay up`."""

    def __init__(
        self,
        loaded: Loaded,
        flags: dict[str, Any],
        folder: Path,
        redis: PrivateRedis | None,
        lock: int,
    ) -> None:
        self.settings = loaded.settings
        self._flags = flags
        self._config = str(loaded.path or "")
        self._folder = folder
        self._redis = redis
        self._lock = lock
        self._output = Output(self.settings, "up")
        self._guard: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Until a signal; answers the exit code."""
        supervisor = Supervisor(self._write)
        supervisor.run_until_signalled()
        telling = asyncio.create_task(self._start(supervisor))
        await supervisor.wait()
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling
        if self._guard is not None:
            self._guard.cancel()
        _log.info("up.stopping")
        await supervisor.stop()
        if supervisor.reason:
            with contextlib.suppress(OSError):
                print(f"relay: {supervisor.reason}", file=sys.stderr)
        return supervisor.exit_code

    async def _guard_disk(self, redis: PrivateRedis) -> None:
        mode, watermark = str(self.settings.delivery.mode), self.settings.redis.disk_watermark
        await guard_disk(redis.url, mode, redis.folder, watermark)

    def _write(self, name: str, lines: bytes) -> None:
        if name != "redis":
            self._output.write(name, lines)
        elif news := [line for line in lines.split(b"\n") if is_news(line)]:
            self._output.write(name, b"\n".join(news))

    async def _start(self, supervisor: Supervisor) -> None:
        if self._redis is not None:
            supervisor.start(redis_program(self._redis))
            await self._await_redis(self._redis, supervisor)
            await self._check_store(self._redis, supervisor)
        if supervisor.is_ending:
            return
        if self._redis is not None:
            self._guard = asyncio.create_task(self._guard_disk(self._redis))
        for program in relay_programs(self.settings, self._environment()):
            supervisor.start(program)
        silent = await self._await_listening()
        for name, at in silent:
            _log.warning("up.not_listening", setting=name, address=str(at), after_s=_LISTENING_S)
        self._tell(silent)

    def _environment(self) -> dict[str, str]:
        base = {**os.environ, **environment(self._config, self.settings, self._flags)}
        base |= self._output.environment()
        if self._redis is not None:
            base.pop("RELAY_REDIS_URL_FILE", None)
            base["RELAY_REDIS_URL"] = self._redis.url
        return base

    async def _await_redis(self, redis: PrivateRedis, supervisor: Supervisor) -> None:
        began = told = time.monotonic()
        while (state := await redis.state()) != "ready":
            now = time.monotonic()
            if state == "absent" and now - began > _REDIS_OPENS_S:
                _log.error("redis.not_started", folder=str(redis.folder), after_s=_REDIS_OPENS_S)
                said = supervisor.last_line("redis") or "it says nothing"
                supervisor.give_up(
                    os.EX_UNAVAILABLE, f"the private Redis does not start; its last line: {said}"
                )
                return
            if state == "loading" and now - told > 5:
                told = now
                _log.info("redis.loading", since_s=round(now - began))
            await asyncio.sleep(0.02)

    async def _check_store(self, redis: PrivateRedis, supervisor: Supervisor) -> None:
        try:
            await check_store(redis.url, str(self.settings.delivery.mode))
        except ScriptMismatch as error:
            way_out = f"; or give up all mail in it: remove {redis.folder}"
            supervisor.give_up(os.EX_CONFIG, f"{error}{way_out}")
        except RelayError as error:
            supervisor.give_up(os.EX_CONFIG, str(error))

    async def _await_listening(self) -> list[tuple[str, ListenAddress]]:
        """Wait for SMTP and HTTP; answers those that did not come."""
        waiting = [
            (name, at)
            for name, at in used_listens(self.settings)
            if name in ("smtp.listen", "http.listen") and at.port
        ]
        end = time.monotonic() + _LISTENING_S
        while waiting and time.monotonic() < end:
            waiting = [pair for pair in waiting if not await _answers(pair[1])]
            await asyncio.sleep(0.05)
        return waiting

    def _tell(self, silent: Iterable[tuple[str, ListenAddress]]) -> None:
        """Say where everything is: for people on standard error, and as a line of the log."""
        settings = self.settings
        is_sink = settings.delivery.mode is Mode.SINK
        redis = self._redis.url if self._redis else "redis.url"
        _log.info(
            "up.ready",
            smtp=list(settings.smtp.listen),
            http=settings.http.listen,
            data=str(self._folder),
            redis=redis,
        )
        where = [str(at) for name, at in used_listens(settings) if name == "smtp.listen"]
        marks = {str(at): " (not yet)" for _, at in silent}
        smtp = ", ".join(at + marks.get(at, "") for at in where) or "off"
        web = settings.http.listen
        mail = (
            "sink: no mail leaves this machine (start with --live to deliver)"
            if is_sink
            else "live: mail is delivered for real"
        )
        lines = [
            "",
            "relay is up",
            f"  SMTP   {smtp}",
            f"  HTTP   http://{web}{marks.get(web, '')}",
            f"  Mode   {mail}",
            f"  Data   {self._folder}",
            f"  Redis  {redis}",
            f"  Try    {_command_to_try(settings)}",
            *([f"  Note   {doubt}"] if (doubt := doubt_of_name(settings)) else []),
            "",
        ]
        with contextlib.suppress(OSError):
            print("\n".join(lines), file=sys.stderr, flush=True)


def _command_to_try(settings: Settings) -> str:
    """What works as it stands in a second terminal, and in live mode sends nothing."""
    command = _short(Path(sys.executable).with_name("relay"))
    if settings.delivery.mode is Mode.SINK:
        said = "--from news@example.org --to ann@gmail.test --subject hi --text hello --wait"
        command += f" send {said}"
    else:
        command += " status"
    at = parse_listen(settings.http.listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(at.host, at.host)
    url = f"http://{ListenAddress(host, at.port)}"
    return command if url == DEFAULT_API else f"{command} --api {url}"


async def _answers(at: ListenAddress) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(at.host, at.host)
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(host, at.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _short(path: Path) -> str:
    """The path as a person in this folder would type it."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
