"""Which addresses of MX hosts may be tried, in which order (RFC 5321 §5.1).

Groups of hosts with equal preference are looked at best first, hosts and addresses of a group
shuffled, IPv4 and IPv6 in turn, an address under several names once. The first group that holds an
address of our own ends the list: beyond it mail would go in circles.

Rules of this file: a domain's DNS must not lead us where its owner could not reach himself, so
only public addresses are tried (`delivery.allow_private` lifts this); what may never be dialled
(0.0.0.0, multicast, broadcast, reserved) stays refused; in sink mode only loopback is left.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from random import Random

import msgspec

from relay.model.errors import NoSuchDomain, ResolverUnavailable
from relay.net.resolver import Resolver
from relay.net.system_dns import system_addresses
from relay.settings.kinds import ListenAddress, parse_listen
from relay.settings.schema import Mode, Settings

#: Addresses that one attempt tries (Postfix smtp_mx_address_limit 5).
ADDRESSES_TRIED = 5
#: A domain that publishes many slow hosts is not followed further than this.
SEARCH_S = 30.0

_SMTP_PORT = 25
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Reach(StrEnum):
    """Where an address leads."""

    PUBLIC = "public"
    PRIVATE = "private"  # also link-local, shared, documentation
    LOOPBACK = "loopback"
    UNUSABLE = "unusable"


@lru_cache(maxsize=16384)
def reach_of(address: str) -> Reach:
    """Where an IP address leads; IPv4 inside IPv6 (mapped, 6to4, NAT64) counts as that IPv4."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if inner is None and parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is not None:
            return reach_of(str(inner))
        if parsed.is_site_local:
            return Reach.PRIVATE
    if parsed.is_loopback:
        return Reach.LOOPBACK
    if parsed.is_unspecified or parsed.is_multicast or parsed.is_reserved:
        return Reach.UNUSABLE
    if parsed.version == 4 and parsed.packed[0] == 0:
        return Reach.UNUSABLE
    return Reach.PUBLIC if parsed.is_global else Reach.PRIVATE


class AddressRules(msgspec.Struct, frozen=True):
    """What may be dialled, and what is ourselves."""

    allowed: frozenset[Reach]
    port: int
    listens: tuple[ListenAddress, ...] = ()
    source_address: str = ""
    takes_literals: bool = False
    asks_system: bool = False

    @classmethod
    def for_mx(cls, settings: Settings, port: int) -> "AddressRules":
        """For hosts that a recipient's DNS names."""
        allowed = {Reach.PUBLIC}
        if settings.delivery.mode is not Mode.LIVE:
            allowed = {Reach.LOOPBACK}
        elif settings.delivery.allow_private:
            allowed = {Reach.PUBLIC, Reach.PRIVATE, Reach.LOOPBACK}
        return cls(frozenset(allowed), port, _listens(settings), source_of(settings))

    @classmethod
    def for_smarthost(cls, settings: Settings, port: int) -> "AddressRules":
        """For a host that the operator named: private addresses and names are his business."""
        live = settings.delivery.mode is Mode.LIVE
        allowed = {Reach.PUBLIC, Reach.PRIVATE, Reach.LOOPBACK} if live else {Reach.LOOPBACK}
        return cls(
            allowed=frozenset(allowed),
            port=port,
            listens=_listens(settings),
            source_address=source_of(settings),
            takes_literals=True,
            asks_system=live,
        )

    def is_own(self, address: str) -> bool:
        """Whether a connection to the address would reach our own listener (or port 25)."""
        if self.port == _SMTP_PORT and address == self.source_address:
            return True
        listens = [listen.host for listen in self.listens if listen.port == self.port]
        if address in listens:
            return True
        wildcard = any(ipaddress.ip_address(host).is_unspecified for host in listens)
        return wildcard and _is_of_this_machine(address)

    def allows(self, address: str) -> bool:
        """Whether the address may be dialled, from the source address that is set."""
        return self.fits_source(address) and reach_of(address) in self.allowed

    def fits_source(self, address: str) -> bool:
        """Whether the source address that is set is of the same family."""
        return not self.source_address or (":" in self.source_address) == (":" in address)

    def why_not(self, address: str) -> str:
        """What keeps us from an address that is not allowed, as the end of a sentence."""
        reach = reach_of(address)
        if not self.fits_source(address):
            return f"{address}, which our source address {self.source_address} cannot reach"
        if reach in (Reach.PRIVATE, Reach.LOOPBACK) and Reach.PUBLIC in self.allowed:
            return f"{address}, which is {reach} (delivery.allow_private is off)"
        return f"{address}, which is {reach}"


class Found(msgspec.Struct, frozen=True):
    """(host, address) in the order to try; else what stood in the way, by kind, as sentences.

    `own_group`: the index of the group in which we met ourselves.
    """

    addresses: tuple[tuple[str, str], ...] = ()
    unavailable: str = ""
    refused: str = ""
    missing: str = ""
    own_group: int | None = None


async def find_addresses(
    groups: Sequence[Sequence[str]],
    rules: AddressRules,
    *,
    resolver: Resolver,
    wanted: int,
    random: Random,
) -> Found:
    """Look the groups' hosts up, best group first, until `wanted` addresses are found."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + SEARCH_S
    found: dict[str, str] = {}
    own_group: int | None = None
    trouble = {"unavailable": "", "refused": "", "missing": ""}
    for index, group in enumerate(groups):
        if index and loop.time() > ends:
            trouble["unavailable"] = "the look-up of the MX hosts took too long"
            break
        lists, own = [], False
        for host, result in zip(group, await _look_up_all(group, rules, resolver), strict=True):
            if isinstance(result, Trouble):
                trouble[result.kind] = trouble[result.kind] or result.text
                continue
            own = own or any(map(rules.is_own, result))
            usable = [address for address in result if rules.allows(address)]
            if not usable:
                trouble["refused"] = f"{host} has the address {rules.why_not(result[0])}"
            lists.append((host, random.sample(usable, len(usable))))
        if own:
            own_group = index
            break
        for host, address in _in_turn(lists):
            found.setdefault(address, host)
        if len(found) >= wanted:
            break
    return Found(
        addresses=tuple((host, address) for address, host in found.items())[:wanted],
        unavailable=trouble["unavailable"],
        refused=trouble["refused"],
        missing=trouble["missing"],
        own_group=own_group,
    )


class Trouble(msgspec.Struct, frozen=True):
    """Why a host has no address: kind is unavailable (temporary) or missing."""

    kind: str
    text: str


async def _look_up_all(
    hosts: Sequence[str], rules: AddressRules, resolver: Resolver
) -> list[tuple[str, ...] | Trouble]:
    if len(hosts) == 1:
        return [await _look_up(hosts[0], rules, resolver)]
    return await asyncio.gather(*(_look_up(host, rules, resolver) for host in hosts))


async def _look_up(host: str, rules: AddressRules, resolver: Resolver) -> tuple[str, ...] | Trouble:
    """The addresses of a host, not empty; a literal is one only where the operator wrote it."""
    if rules.takes_literals and _is_literal(host):
        return (host,)
    try:
        try:
            addresses = await resolver.addresses(host)
        except NoSuchDomain:
            if not rules.asks_system:
                raise
            addresses = await system_addresses(host, timeout_s=resolver.lifetime_s)
    except ResolverUnavailable as error:
        return Trouble("unavailable", str(error))
    except NoSuchDomain as error:
        return Trouble("missing", str(error))
    return addresses or Trouble("missing", f"{host} has no address")


def _in_turn(lists: list[tuple[str, list[str]]]) -> list[tuple[str, str]]:
    """(host, address) of a group: hosts in turn within a family, then the families in turn."""
    families: dict[bool, list[tuple[int, int, str, str]]] = {False: [], True: []}
    for number, (host, addresses) in enumerate(lists):
        counts = {False: 0, True: 0}
        for address in addresses:
            is_v6 = ":" in address
            families[is_v6].append((counts[is_v6], number, host, address))
            counts[is_v6] += 1
    ranked = [
        (rank, is_v6, host, address)
        for is_v6, entries in families.items()
        for rank, (_, _, host, address) in enumerate(sorted(entries))
    ]
    return [(host, address) for _, _, host, address in sorted(ranked, key=lambda one: one[:2])]


def source_of(settings: Settings) -> str:
    """The local address to connect from, or empty; in sink mode only a loopback one is of use."""
    source = settings.delivery.source_address
    if settings.delivery.mode is Mode.LIVE or not source:
        return source
    return source if reach_of(source) is Reach.LOOPBACK else ""


def _listens(settings: Settings) -> tuple[ListenAddress, ...]:
    return tuple(map(parse_listen, settings.smtp.listen))


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_of_this_machine(address: str) -> bool:
    """Whether the address is one of this machine's: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
