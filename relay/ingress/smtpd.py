"""The SMTP listener: sockets, the sessions on them, and their orderly end (RFC 5321 §3.8).

`run` is the daemon `relay smtpd`; `Listener` is what a test or another process embeds.
"""

import asyncio
import logging
import signal
import ssl
from typing import TYPE_CHECKING

import uvloop

from relay.ingress.gate import Gate
from relay.ingress.prefork import run_processes
from relay.ingress.smtp_session import SubmissionSession
from relay.ingress.smtp_transaction import Surroundings
from relay.ingress.store_link import StoreLink, open_store
from relay.ingress.submit import Acceptor, Submitter
from relay.model.errors import ConfigError
from relay.policy.route import RouteTable
from relay.settings.kinds import parse_listen
from relay.settings.schema import Settings
from relay.telemetry.log import get_logger
from relay.telemetry.meter import Meter

if TYPE_CHECKING:
    from relay.ingress.intake import Intake

#: How long sessions may take to finish the message they are sending when the listener stops.
DRAIN_S = 30.0
_BACKLOG = 1024


class Listener:
    """Listens on all of `smtp.listen`; `shares_port` lets several processes do so.

    With `intake` it listens on `intake.listen` instead, and takes reports only.
    """

    def __init__(
        self,
        settings: Settings,
        acceptor: Acceptor,
        *,
        shares_port: bool = False,
        tls_context: ssl.SSLContext | None = None,
        meter: Meter | None = None,
        intake: "Intake | None" = None,
    ) -> None:
        self._section = "intake" if intake is not None else "smtp"
        self._listen = settings.intake.listen if intake is not None else settings.smtp.listen
        self._shares_port = shares_port
        self._servers: list[asyncio.Server] = []
        self._sessions: set[SubmissionSession] = set()
        routes = RouteTable.from_settings(settings)
        submitter = Submitter(settings, acceptor, routes, meter=meter)
        self._around = Surroundings(
            settings=settings,
            gate=Gate(settings.smtp),
            submit=intake.take if intake is not None else submitter.submit,
            hostname=submitter.hostname,
            tls_context=tls_context,
            refusal_of=intake.refusal if intake is not None else None,
        )

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: host and port, also where port 0 was asked for."""
        sockets = [sock for server in self._servers for sock in server.sockets]
        return [sock.getsockname()[:2] for sock in sockets]

    async def start(self) -> None:
        """Listen; ConfigError names a taken port."""
        loop = asyncio.get_running_loop()
        # aiosmtpd logs commands and, at DEBUG, bodies: its log is not ours.
        logging.getLogger("mail.log").setLevel(logging.ERROR)
        for text in self._listen:
            where = parse_listen(text)
            try:
                server = await loop.create_server(
                    lambda: SubmissionSession(self._around, self._sessions),
                    where.host,
                    where.port,
                    backlog=_BACKLOG,
                    reuse_port=self._shares_port,
                )
            except OSError as error:
                await self.stop(0)
                reason = error.strerror or str(error)
                raise ConfigError(
                    f"{self._section}.listen: cannot listen on {text}: {reason}"
                ) from None
            self._servers.append(server)

    async def stop(self, grace_s: float = DRAIN_S) -> None:
        """Take no more connections, let messages under way end, send the others 421."""
        for server in self._servers:
            server.close()
        for session in list(self._sessions):
            session.drain()
        end = asyncio.get_running_loop().time() + grace_s
        while self._sessions and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        for session in list(self._sessions):
            session.abandon()
        for server in self._servers:
            await server.wait_closed()


async def serve(settings: Settings, *, shares_port: bool = False) -> None:
    """Run one process of the listener until SIGTERM or SIGINT."""
    log = get_logger()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    link = StoreLink(lambda meter: open_store(settings, "relay-smtpd", meter), role="smtpd")
    listeners = [Listener(settings, link, shares_port=shares_port, meter=link.meter)]
    if settings.intake.listen:
        from relay.ingress.intake import intake_of  # what reads reports is loaded where it is used

        intake = intake_of(settings, link)
        listeners.append(Listener(settings, link, shares_port=shares_port, intake=intake))
    try:
        await link.start()
        for listener in listeners:
            await listener.start()
        log.info("smtpd.started", listen=settings.smtp.listen, mode=settings.delivery.mode)
        await link.until(stopping)
        log.info("smtpd.stopping")
    finally:
        await asyncio.gather(*(listener.stop(settings.up.drain) for listener in listeners))
        await link.close()


def run(settings: Settings) -> None:
    """The daemon: one process, or `smtp.processes` of them on one port."""
    count = settings.smtp.processes
    if count == 1:
        uvloop.run(serve(settings))
    else:
        run_processes(
            count,
            lambda: uvloop.run(serve(settings, shares_port=True)),
            ports=[
                *(("smtp.listen", text) for text in settings.smtp.listen),
                *(("intake.listen", text) for text in settings.intake.listen),
            ],
        )
