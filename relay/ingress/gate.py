"""Who may connect, who may relay, and how much all sessions of a process may hold at once."""

import ipaddress
from collections import Counter
from functools import lru_cache

from relay.model.errors import ConfigError
from relay.settings.schema import Smtp

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Gate:
    """The common limits of one process's SMTP sessions."""

    def __init__(self, settings: Smtp) -> None:
        self._networks = _networks(settings.allowed_networks)
        self._most = settings.max_connections
        self._most_per_address = settings.max_connections_per_address
        self._room = settings.max_content
        self._by_address: Counter[str] = Counter()
        self.connections = 0
        self.may_relay = lru_cache(maxsize=4096)(self._may_relay)

    def enter(self, address: str) -> str:
        """Count a connection; the answer says why it is refused, "" lets it in."""
        self.connections += 1
        self._by_address[address] += 1
        if self.connections > self._most:
            return "too many connections, try again later"
        if self._by_address[address] > self._most_per_address:
            return "too many connections from your address, try again later"
        return ""

    def leave(self, address: str) -> None:
        """Count a connection out, refused or not."""
        self.connections -= 1
        self._by_address[address] -= 1
        if self._by_address[address] <= 0:
            del self._by_address[address]

    def has_room(self, octets: int) -> bool:
        """Whether so much content could be read now."""
        return octets <= self._room

    def reserve(self, octets: int) -> bool:
        """Take room for content that is being read; False where there is none."""
        if octets > self._room:
            return False
        self._room -= octets
        return True

    def release(self, octets: int) -> None:
        """Give room back."""
        self._room += octets

    def _may_relay(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)


def _networks(texts: tuple[str, ...]) -> tuple[_Network, ...]:
    networks = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise ConfigError(f"smtp.allowed_networks: {error}") from None
        if network.prefixlen == 0:
            raise ConfigError(
                f"smtp.allowed_networks: {text} is the whole Internet and would make an open "
                "relay; name the networks of your own machines"
            )
        networks.append(network)
    return tuple(networks)
