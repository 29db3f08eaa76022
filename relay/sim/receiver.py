"""The receiver: what all connections of a sink share, and the list of them."""

import asyncio
from collections.abc import Callable

from relay.sim.certificates import Certificates
from relay.sim.connection import Connection
from relay.sim.receipts import Mailbox
from relay.sim.registry import Registry
from relay.sim.scenario import Scenario


class Receiver:
    """What all connections of a sink share."""

    def __init__(
        self,
        scenario: Scenario,
        mailbox: Mailbox,
        certificates: Certificates,
    ) -> None:
        """`names_at`, which gives the hosts that have a local address, is set by the sink."""
        self.scenario = scenario
        self.mailbox = mailbox
        self.certificates = certificates
        self.names_at: Callable[[str], tuple[str, ...]] = lambda _address: ()
        self.registry = Registry()
        self.connections: set[Connection] = set()
        self._gone = asyncio.Event()

    def accept(self) -> Connection:
        """A protocol for the next connection."""
        return Connection(self)

    def accept_smarthost(self) -> Connection:
        """A protocol for a connection that is already TLS, to the host smarthost.test."""
        return Connection(self, hosts=("smarthost.test",))

    def forget(self, connection: Connection) -> None:
        """Take a connection that ended off the list."""
        self.connections.discard(connection)
        self._gone.set()

    def drop(self, host: str = "") -> int:
        """Reset the open connections of a host, or all; how many."""
        doomed = [c for c in self.connections if not host or host in c.hosts]
        for connection in doomed:
            connection.reset()
        return len(doomed)

    async def stop(self) -> None:
        """Reset all connections and wait until they are gone."""
        self.drop()
        while self.connections:
            self._gone.clear()
            await self._gone.wait()
