"""The daemon `relay http`: the application on uvicorn, on one socket, until SIGTERM."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn
import uvloop

from relay.delivery.routing import provider_of
from relay.ingress.http.app import create_app
from relay.ingress.store_link import StoreLink, open_store
from relay.model.errors import ConfigError
from relay.settings.kinds import parse_listen
from relay.settings.schema import Settings
from relay.store.ages import AgeSweep
from relay.telemetry.log import get_logger

_BACKLOG = 1024


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def check_exposure(settings: Settings) -> None:
    """Refuse to serve the network without keys."""
    where = parse_listen(settings.http.listen)
    if not where.is_loopback and not settings.http.keys:
        raise ConfigError(
            f"http.listen: {settings.http.listen} is reachable from other machines, and http.keys "
            "is empty: anybody could send mail; set http.keys or listen on 127.0.0.1"
        )


def listening_socket(settings: Settings) -> socket.socket:
    """The bound socket; ConfigError names a taken port."""
    where = parse_listen(settings.http.listen)
    sock = socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((where.host, where.port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        text = f"http.listen: cannot listen on {settings.http.listen}: {error.strerror}"
        raise ConfigError(text) from None
    sock.setblocking(False)
    return sock


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished."""
    check_exposure(settings)
    link = StoreLink(lambda meter: open_store(settings, "relay-http", meter), role="http")
    stopping = asyncio.Event()
    sock = listening_socket(settings)
    config = uvicorn.Config(
        create_app(settings, link, stopping),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.up.drain)),
    )
    server = _Server(config)

    def stop() -> None:
        stopping.set()
        server.should_exit = True

    # Without a worker somebody has to see how old the mail becomes.
    sweep = asyncio.create_task(AgeSweep(lambda: link.store, provider_of).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await link.start()
        get_logger().info("http.started", listen=settings.http.listen, mode=settings.delivery.mode)
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        serving.add_done_callback(lambda _: stopping.set())
        try:
            await link.until(stopping)
        finally:
            stop()
            await serving
    finally:
        sock.close()
        sweep.cancel()
        await asyncio.gather(sweep, return_exceptions=True)
        await link.close()


def run(settings: Settings) -> None:
    """The daemon."""
    uvloop.run(serve(settings))
