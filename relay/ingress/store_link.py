"""A daemon's link to the store: it starts without Redis, says so, and joins when it is there."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from relay.model.errors import ConfigError, StoreUnavailable
from relay.model.message import Receipt, Submission
from relay.settings.files import data_folder
from relay.settings.schema import Mode, Settings
from relay.store.keys import prefix
from relay.store.meters import MeterReporter
from relay.store.queue import Store, copies_of
from relay.store.server import private_url
from relay.store.wire import Wire
from relay.telemetry.log import get_logger
from relay.telemetry.meter import Meter

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0
#: A store that another version took over is noticed after this.
_CHECK_EVERY_S = 2.0
_LAST_REPORT_S = 1.0


class StoreLink:
    """The store once it could be opened; until then every use raises StoreUnavailable.

    What the door counts on `meter` becomes part of the figures of all processes, under its `role`.
    """

    def __init__(self, connect: Callable[[Meter], Awaitable[Store]], *, role: str) -> None:
        self.meter = Meter()
        self._connect = connect
        self._store: Store | None = None
        self._error = StoreUnavailable("the store is not open yet")
        self._watching: asyncio.Task[None] | None = None
        self._reporter = MeterReporter(self.meter, role, lambda: self.store)
        self._reporting: asyncio.Task[None] | None = None
        self._log = get_logger()

    @property
    def store(self) -> Store:
        """The open store."""
        if self._store is None:
            raise type(self._error)(str(self._error))  # anew: it is raised by many at once
        return self._store

    async def start(self) -> None:
        """Try once, and go on in the background while Redis is absent.

        ConfigError and ScriptMismatch are raised: waiting does not heal them.
        """
        is_open = await self._try()
        self._watching = asyncio.create_task(self._watch(is_open))
        self._reporting = asyncio.create_task(self._reporter.run())

    async def until(self, stopping: asyncio.Event) -> None:
        """Wait for the end; ConfigError or ScriptMismatch where the store proves not to be ours.

        Redis may come later than we, and a store may be taken over by another version.
        """
        assert self._watching is not None
        told = asyncio.create_task(stopping.wait())
        await asyncio.wait((told, self._watching), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if self._watching.done():
            self._watching.result()

    async def close(self) -> None:
        """Stop trying, report what is left and close the store."""
        tasks = [task for task in (self._watching, self._reporting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._store is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reporter.report(), _LAST_REPORT_S)
            await self._store.close()

    async def accept(self, submission: Submission) -> Receipt:
        """As `Store.accept`."""
        return await self.store.accept(submission)

    async def _try(self) -> bool:
        try:
            self._store = await self._connect(self.meter)
        except StoreUnavailable as error:
            if str(error) != str(self._error):
                self._log.warning("store.unavailable", reason=str(error))
            self._error = error
            return False
        return True

    async def _watch(self, is_open: bool) -> None:
        pause_s = _FIRST_PAUSE_S
        while not is_open:
            await asyncio.sleep(pause_s)
            is_open = await self._try()
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            if is_open:
                self._log.info("store.available")
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            with contextlib.suppress(StoreUnavailable):
                await self.store.check_schema()


async def open_store(settings: Settings, client_name: str, meter: Meter | None = None) -> Store:
    """Open the store that the settings name; the mode must be said (exit 78 otherwise)."""
    if settings.delivery.mode is None:
        raise ConfigError('delivery.mode: is not set; write "sink" or "live"')
    if not settings.redis.url:
        raise ConfigError(
            "redis.url: is not set; `relay up` starts a private Redis, the other daemons need one"
        )
    return await Store.connect(
        settings.redis.url,
        settings.delivery.mode,
        client_name=client_name,
        watermark=settings.redis.accept_watermark,
        copies=copies_of(settings.redis),
        meter=meter,
    )


async def find_store(
    settings: Settings, client_name: str, *, url: str = "", mode: str = ""
) -> Store:
    """Open the store for a program that was perhaps told nothing.

    The URL is the given one, else that of the settings, else that of the Redis which `relay up`
    keeps for this user. The mode is the given one, else that of the settings, else the only one
    that the store has been used in. ConfigError where it cannot be told.
    """
    mode = mode or str(settings.delivery.mode or "")
    if mode not in ("", *Mode):
        raise ConfigError(f'mode: {mode!r} is none; write "sink" or "live"')
    found = url or settings.redis.url or _private_url(settings, mode)
    if not mode:
        mode = await _only_mode(found, client_name)
    return await Store.connect(
        found,
        mode,
        client_name=client_name,
        watermark=settings.redis.accept_watermark,
        copies=copies_of(settings.redis),
    )


def _private_url(settings: Settings, mode: str) -> str:
    """The URL of the Redis that `relay up` runs now; StoreUnavailable where there is none."""
    folder = data_folder(settings)
    for name in [mode] if mode else list(Mode):
        url = private_url(folder / name)
        if Path(url.removeprefix("unix://")).exists():
            return url
    raise StoreUnavailable(
        "no Redis was named (RELAY_REDIS_URL) and `relay up` does not run with its data in "
        f"{folder}"
    )


async def _only_mode(url: str, client_name: str) -> str:
    """The mode in which the store at the URL is used, when it is one."""
    wire = Wire(url, client_name=client_name)
    try:
        used = [mode for mode in Mode if await wire.call("EXISTS", prefix(mode) + "meta")]
    finally:
        await wire.close()
    if len(used) == 1:
        return str(used[0])
    raise ConfigError(
        f"delivery.mode: the store is used in {'both modes' if used else 'no mode yet'}; "
        'set RELAY_DELIVERY_MODE to "sink" or "live"'
    )
