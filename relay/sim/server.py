"""The sink: DNS, MX hosts and control port in one, embedded in a test or run as a process."""

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import uvloop

from relay.model.errors import ConfigError
from relay.settings.kinds import ListenAddress, parse_listen
from relay.settings.schema import Settings
from relay.settings.schema import Sink as SinkSettings
from relay.sim.addresses import MAX_ADDRESSES, AddressPool
from relay.sim.certificates import Certificates
from relay.sim.client import SinkClient
from relay.sim.control import Control
from relay.sim.dns import DnsServer
from relay.sim.policy_host import PolicyHost
from relay.sim.receipts import Limits, Mailbox
from relay.sim.receiver import Receiver
from relay.sim.scenario import Scenario

#: Any free port for everything: what an embedded sink takes.
EPHEMERAL = SinkSettings(dns="127.0.0.1:0", smtp="127.0.0.1:0", control="127.0.0.1:0")
#: The host behind `sink.smtps`.
SMARTHOST = "smarthost.test"
_DESCRIPTORS = 65_536
_WRITE = "write a loopback address with a port, such as 127.0.0.1:8454"
_log = logging.getLogger("relay.sink")


def _split(setting: str, text: str) -> tuple[str, int]:
    """Address and port of a setting; ConfigError unless it is on loopback."""
    try:
        address = parse_listen(text)
    except ValueError as error:
        raise ConfigError(f"sink.{setting}: {text!r}: {error}; {_WRITE}") from None
    if not address.is_loopback:
        raise ConfigError(
            f"sink.{setting}: the simulated internet stays on this machine, and {text} is no "
            f"loopback address; {_WRITE}"
        )
    return address.host, address.port


def check_addresses(settings: SinkSettings) -> None:
    """ConfigError unless every address of the simulated internet is on loopback."""
    for setting in ("dns", "smtp", "smtps", "https", "control"):
        if text := getattr(settings, setting):
            _split(setting, text)


def _taken(setting: str, text: str, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        fault, fix = "is in use", "stop what listens there or choose another port"
    else:
        fault, fix = f"cannot be bound: {error.strerror}", "choose another address"
    return ConfigError(f"sink.{setting}: {text} {fault}; {fix}")


class Sink:
    """The simulated internet; `async with Sink() as sink:` gives one on free ports."""

    def __init__(
        self,
        settings: SinkSettings = EPHEMERAL,
        *,
        scenario: Scenario | None = None,
        limits: Limits | None = None,
        max_addresses: int = MAX_ADDRESSES,
    ) -> None:
        """Ports are known after `start`; `scenario` and `mailbox` may be used at any time."""
        self.settings = settings
        self.scenario = scenario or Scenario()
        self.mailbox = Mailbox(limits)
        self.dns_port = self.smtp_port = self.control_port = 0
        self.smtps_port = self.https_port = 0
        self._max_addresses = max_addresses
        self._stack: contextlib.AsyncExitStack | None = None

    @property
    def dns_address(self) -> str:
        """What belongs into `dns.nameservers`."""
        return str(ListenAddress(_split("dns", self.settings.dns)[0], self.dns_port))

    @property
    def control_address(self) -> str:
        """What a SinkClient takes."""
        host, _ = _split("control", self.settings.control)
        return str(ListenAddress(host, self.control_port))

    @property
    def authority_path(self) -> str:
        """The file of the certificate authority of this run (for `SSL_CERT_FILE`)."""
        return self._certificates.authority_path

    def address_of(self, host: str) -> str:
        """The address of a host, which listens from now on; ConfigError if none is to be had.

        To be called on the sink's event loop; from elsewhere use `SinkClient.address_of`.
        """
        address = self._pool.address_of(host)
        if address is None:
            raise ConfigError(f"no loopback address is free for {host}")
        return address

    async def start(self) -> Self:
        """Bind everything; ConfigError names the setting whose port is taken."""
        async with contextlib.AsyncExitStack() as stack:
            self._certificates = Certificates()
            stack.callback(self._certificates.close)
            self.scenario.zone.key_digest = self._certificates.key_digest
            self.receiver = Receiver(self.scenario, self.mailbox, self._certificates)
            stack.push_async_callback(self.receiver.stop)
            await self._start_smtp(stack)
            if self.settings.https:
                await self._start_https(stack)
            await self._start_dns(stack)
            if self.settings.control:
                await self._start_control(stack)
            self._stack = stack.pop_all()
        return self

    async def stop(self) -> None:
        """Close every socket; receipts stay readable."""
        if self._stack is not None:
            stack, self._stack = self._stack, None
            await stack.aclose()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start_smtp(self, stack: contextlib.AsyncExitStack) -> None:
        faults = self.scenario.faults
        self._pool = AddressPool(
            self.receiver.accept, refuses=faults.refuses, max_addresses=self._max_addresses
        )
        self.receiver.names_at = self._pool.names_at
        host, port = _split("smtp", self.settings.smtp)
        try:
            await self._pool.start(host, port, "sink.test")
        except OSError as error:
            raise _taken("smtp", self.settings.smtp, error) from None
        stack.push_async_callback(self._pool.stop)
        self.smtp_port = self._pool.port
        faults.observe(self._pool.refresh)
        self.scenario.zone.address_of = self._pool.address_of
        self.scenario.zone.name_at = lambda at: next(iter(self._pool.names_at(at)), None)
        if self.settings.smtps:
            await self._start_smtps(stack)

    async def _start_smtps(self, stack: contextlib.AsyncExitStack) -> None:
        host, port = _split("smtps", self.settings.smtps)
        context: ssl.SSLContext = self._certificates.context_for(SMARTHOST)
        loop = asyncio.get_running_loop()
        # Where the setting says, and where the sink's own DNS says that the host is.
        for address in dict.fromkeys((host, self.address_of(SMARTHOST))):
            try:
                server = await loop.create_server(
                    self.receiver.accept_smarthost, address, self.smtps_port or port, ssl=context
                )
            except OSError as error:
                raise _taken("smtps", self.settings.smtps, error) from None
            stack.callback(server.close)
            self.smtps_port = server.sockets[0].getsockname()[1]

    async def _start_https(self, stack: contextlib.AsyncExitStack) -> None:
        zone = self.scenario.zone
        policies = PolicyHost(self._certificates, zone.hosts_of)
        host, port = _split("https", self.settings.https)
        try:
            await policies.start(host, port)
        except OSError as error:
            raise _taken("https", self.settings.https, error) from None
        stack.callback(policies.stop)
        self.https_port, zone.policy_address = policies.port, host

    async def _start_dns(self, stack: contextlib.AsyncExitStack) -> None:
        server = DnsServer(self.scenario.zone)
        try:
            await server.start(*_split("dns", self.settings.dns))
        except OSError as error:
            raise _taken("dns", self.settings.dns, error) from None
        stack.push_async_callback(server.stop)
        self.dns_port = server.port

    async def _start_control(self, stack: contextlib.AsyncExitStack) -> None:
        about: dict[str, Any] = {
            "dns": self.dns_address,
            "smtp_port": self.smtp_port,
            "smtps_port": self.smtps_port,
            "https_port": self.https_port,
            "authority": self.authority_path,
        }
        control = Control(self.receiver, self._pool, about)
        try:
            await control.start(*_split("control", self.settings.control))
        except OSError as error:
            raise _taken("control", self.settings.control, error) from None
        stack.push_async_callback(control.stop)
        self.control_port = control.port


def run_sink(settings: Settings, *, on_ready: Callable[[Sink], None] | None = None) -> None:
    """Run a sink until SIGTERM or SIGINT; `on_ready` is called once every port is bound."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, _DESCRIPTORS) if hard != resource.RLIM_INFINITY else _DESCRIPTORS
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    uvloop.run(_run(settings.sink, on_ready))


async def _run(settings: SinkSettings, on_ready: Callable[[Sink], None] | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with Sink(settings) as sink:
        _log.info(
            "simulated internet: DNS %s, SMTP port %d, control port %d",
            sink.dns_address,
            sink.smtp_port,
            sink.control_port,
        )
        if on_ready is not None:
            on_ready(sink)
        await stopping.wait()


@contextlib.contextmanager
def background_sink(
    settings: SinkSettings = EPHEMERAL, limits: Limits | None = None
) -> Iterator[SinkClient]:
    """A sink in a thread of its own, for tests without an event loop; gives its client."""
    ready = threading.Event()
    state: dict[str, Any] = {}

    async def serve() -> None:
        state["loop"], state["stopping"] = asyncio.get_running_loop(), asyncio.Event()
        async with Sink(settings, limits=limits) as sink:
            state["address"] = sink.control_address
            ready.set()
            await state["stopping"].wait()

    def run() -> None:
        try:
            uvloop.run(serve())
        except ConfigError as error:
            state["error"] = error
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="relay-sink", daemon=True)
    thread.start()
    ready.wait()
    if "error" in state:
        raise state["error"]
    try:
        yield SinkClient(state["address"])
    finally:
        state["loop"].call_soon_threadsafe(state["stopping"].set)
        thread.join()
