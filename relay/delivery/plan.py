"""The plan of a lane's sessions: which addresses in which order, and how to speak to them."""

from random import Random
from typing import Protocol

import msgspec

from relay.delivery.addresses import ADDRESSES_TRIED, AddressRules, Found, find_addresses, source_of
from relay.delivery.dane import Unusable, with_dane
from relay.delivery.routing import (
    RETRY_S,
    Routed,
    Unroutable,
    groups_of,
    mx_port,
    nowhere,
    own_name,
)
from relay.delivery.values import Dialogue, Endpoint
from relay.model.errors import RelayError
from relay.model.lane import Lane
from relay.model.verdict import Scope, Severity, Verdict
from relay.net.resolver import Resolver
from relay.policy.reasons import verdict as verdict_of
from relay.policy.route import RouteTable, StaticRoute
from relay.policy.shape import Shape, Shaping
from relay.policy.tls import Security
from relay.settings.schema import Mode, Settings, TlsPolicy


class Plan(msgspec.Struct, frozen=True):
    """One frozen value with all that a session of the lane needs; `provider` may be empty.

    `own_name` is ours where a host that gives itself this name is a mail loop, else empty.
    """

    lane: Lane
    endpoints: tuple[Endpoint, ...]
    dialogue: Dialogue
    shape: Shape
    provider: str
    is_by_smarthost: bool = False
    own_name: str = ""


class Results(Protocol):
    """Who is told of what became of TLS."""

    def without_tlsa(self, lane: str, host: str, why: Unusable) -> None: ...


async def plan_for(
    lane: Lane,
    record: Routed,
    *,
    resolver: Resolver,
    settings: Settings,
    routes: RouteTable,
    shaping: Shaping,
    random: Random,
    results: Results | None = None,
) -> Plan | Unroutable:
    """Plan a session of the lane from its site record; hosts of equal preference are shuffled.

    `results` is told of hosts that are left out because their TLSA records cannot be had.
    """
    route = routes.route(record.route) if record.route else None
    if record.route and not _is_still(route, lane, record):
        text = f"The route {record.route} is configured differently now."
        verdict = Verdict(Severity.TRANSIENT, Scope.ROUTE, "route_changed", text)
        return Unroutable(verdict, retry_after_s=RETRY_S)
    port = record.hosts[0].port
    if route is not None and route.is_socket:
        found = Found(((route.host, route.host),))
    else:
        found = await find_addresses(
            [random.sample(group, len(group)) for group in groups_of(record.hosts)],
            AddressRules.for_smarthost(settings, port)
            if route
            else AddressRules.for_mx(settings, port),
            resolver=resolver,
            wanted=ADDRESSES_TRIED,
            random=random,
        )
    if not found.addresses:
        return nowhere(found, record, settings)
    security = Security.parse(lane.security)
    implicit_tls = route is not None and route.implicit_tls
    is_lmtp = route is not None and route.scheme == "lmtp"
    endpoints = tuple(
        Endpoint(host, address, port, implicit_tls, lmtp=is_lmtp)
        for host, address in found.addresses
    )
    if security.dane:
        next_hops = await _names_of(security.next_hop, resolver)
        endpoints, troubles = await with_dane(
            endpoints,
            security.tls,
            resolver,
            next_hops=next_hops,
            is_only=security.dane_only,
        )
        if results is not None:
            for host, why in troubles.items():
                results.without_tlsa(str(lane), host, why)
        if not endpoints:
            return _no_host_with_tlsa(troubles)
    return Plan(
        lane=lane,
        endpoints=endpoints,
        dialogue=Dialogue(
            hello_name=own_name(settings),
            source_address=source_of(settings),
            tls=security.tls,
            demanded_by="mta-sts" if security.is_by_mta_sts else "",
            tries_verified=security.is_testing and security.tls is TlsPolicy.OPPORTUNISTIC,
            credentials=route.credentials if route else None,
            timeouts=settings.timeouts,
            allow_only_loopback=settings.delivery.mode is not Mode.LIVE,
            chunking=settings.delivery.chunking,
            needs_8bitmime=settings.delivery.without_8bitmime.refuses,
        ),
        shape=_shape_of(record, shaping),
        provider=record.provider,
        is_by_smarthost=route is not None,
        own_name=_name_of_loops(settings, port),
    )


async def _names_of(domain: str, resolver: Resolver) -> tuple[str, ...]:
    """The recipient domain and what it is an alias of, where DNSSEC vouches for both."""
    if not domain:
        return ()
    try:
        answer = await resolver.mx(domain)
    except RelayError:
        return ()
    names = (domain, answer.target) if answer.target else (domain,)
    return names if answer.authentic else ()


def _no_host_with_tlsa(troubles: dict[str, Unusable]) -> Unroutable:
    """No host is left whose TLSA records are known, or that has what a route demands: sending
    without them would be a downgrade."""
    unknown = [trouble.text for trouble in troubles.values() if trouble.kind == "unknown"]
    if unknown:
        text = f"DNS gave no usable answer about the hosts' TLSA records: {unknown[-1]}."
        verdict = Verdict(Severity.TRANSIENT, Scope.DOMAIN, "dns_unavailable", text)
    else:
        verdict = verdict_of(Severity.TRANSIENT, Scope.DOMAIN, "dane_required")
    return Unroutable(verdict, retry_after_s=RETRY_S, by_demand=True)


def _name_of_loops(settings: Settings, port: int) -> str:
    """The name that means ourselves (RFC 5321 §5.1), on the port of MX hosts only, as in Postfix.

    On another port an operator may well have a server of the same name; a loop through it ends by
    the count of its Received fields. Everybody is called localhost.
    """
    name = own_name(settings)
    is_telling = "." in name and not name.startswith("localhost.")
    return name if is_telling and port == mx_port(settings) else ""


def _is_still(route: StaticRoute | None, lane: Lane, record: Routed) -> bool:
    """Whether the configuration still leads this lane to the recorded host, with its account."""
    if route is None:
        return False
    account = route.credentials.key if route.credentials else ""
    host = record.hosts[0]
    return (route.host, route.port, account) == (host.name, host.port, lane.credentials)


def _shape_of(record: Routed, shaping: Shaping) -> Shape:
    """The shape by the provider that the route found, which may rest on the recipient domain."""
    for provider in shaping.providers:
        if provider.name == record.provider:
            return provider.shape
    return shaping.shape_for([host.name for host in record.hosts])
