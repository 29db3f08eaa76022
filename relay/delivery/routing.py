"""From a destination to its lane: a smarthost's, or that of the site formed by the domain's MX.

Outcomes are values: `Routed`, or `Unroutable` with a verdict. The record kept under a lane is one
of the two (`encode_site`); an engine plans from it without knowing any destination of the lane.
"""

import hashlib
from random import Random

import msgspec

from relay.delivery.addresses import AddressRules, Found, find_addresses
from relay.delivery.dane import name_counts
from relay.delivery.sts_policies import StsPolicies
from relay.model.destination import domain_of, is_in_spite_of_tls
from relay.model.errors import NoMailHost, NoSuchDomain, NullMx, ResolverUnavailable
from relay.model.lane import Lane
from relay.model.verdict import Scope, Severity, Verdict
from relay.net.resolver import MxAnswer, Resolver
from relay.net.system_dns import machine_name
from relay.policy.mta_sts import StsMode, StsPolicy
from relay.policy.mx import host_name, order_hosts, preference_groups, site_name
from relay.policy.route import RouteTable, StaticRoute
from relay.policy.shape import Shaping
from relay.policy.tls import Security, tls_for
from relay.settings.schema import Mode, Settings, TlsPolicy

#: When a temporary trouble is looked at again.
RETRY_S = 60.0
#: Why mail waits whose domain's MTA-STS policy admits none of its hosts.
NOT_ADMITTED = "mta_sts_failed"
#: Why mail waits for whose domain a route demands DANE that it does not have.
DANE_REQUIRED = "dane_required"
_DIGEST_OCTETS = 8
_RECORD_VERSION = b"\x02"


class MxHost(msgspec.Struct, frozen=True, array_like=True):
    """One next hop by name."""

    name: str
    preference: int
    port: int


class Routed(msgspec.Struct, frozen=True, tag=True):
    """A destination's lane and what a plan is made from; holds for `ttl_s`.

    `route` is the destination `[name]` of a smarthost route, else empty. `is_backup`: we are an MX
    of the domain ourselves, the better ones are `hosts`.
    """

    lane: Lane
    site: str
    provider: str
    hosts: tuple[MxHost, ...]
    ttl_s: float
    route: str = ""
    is_backup: bool = False


class Unroutable(msgspec.Struct, frozen=True, tag=True):
    """Nowhere to go: why, and when it is worth asking again.

    `by_demand`: for what the lane demands of TLS; other mail to the site may well have where to go.
    """

    verdict: Verdict
    retry_after_s: float
    by_demand: bool = False

    @property
    def may_pass(self) -> bool:
        """Whether it is not for good."""
        return self.verdict.severity is not Severity.PERMANENT


SiteRecord = Routed

_decoder: msgspec.msgpack.Decoder[Routed | Unroutable] = msgspec.msgpack.Decoder(
    Routed | Unroutable
)


def rules_digest(settings: Settings, routes: RouteTable, shaping: Shaping) -> bytes:
    """8 octets that change with all that routes follow from, besides DNS and a host's own names."""
    live = settings.delivery.mode is Mode.LIVE
    tls = (settings.tls.mta_sts, settings.tls.dane, settings.tls.reports)
    said = (
        live,
        mx_port(settings),
        settings.delivery.allow_private,
        repr(routes),
        repr(shaping),
        tls,
    )
    return hashlib.sha256(repr(said).encode()).digest()[:_DIGEST_OCTETS]


def encode_site(routed: Routed | Unroutable, digest: bytes) -> bytes:
    """The record that the store keeps under a lane, made under the rules of this digest."""
    return _RECORD_VERSION + digest + msgspec.msgpack.encode(routed)


def decode_site(record: bytes, digest: bytes) -> Routed | Unroutable | None:
    """What `encode_site` was given; None where rules or version were others."""
    head = _RECORD_VERSION + digest
    if not record.startswith(head):
        return None
    try:
        return _decoder.decode(record[len(head) :])
    except (msgspec.DecodeError, ValueError):
        return None


def provider_of(record: bytes) -> str:
    """The provider of a site record, under whichever rules it was made; empty where it has none."""
    start = len(_RECORD_VERSION)
    site = decode_site(record, record[start : start + _DIGEST_OCTETS])
    return site.provider if isinstance(site, Routed) else ""


async def resolve_destination(
    destination: str,
    *,
    resolver: Resolver,
    routes: RouteTable,
    shaping: Shaping,
    settings: Settings,
    random: Random,
    sts: StsPolicies | None = None,
) -> Routed | Unroutable:
    """The lane of a destination.

    Of mail that is to go in spite of TLS failures (`~domain`) nothing is demanded by what the
    domain publishes; what the operator demands holds for it, too.
    """
    if destination.startswith("["):
        route = routes.route(destination)
        if route is None:
            return _no_such_route(destination)
        return _by_smarthost(route, shaping, settings)
    domain, heeds_domain = domain_of(destination), not is_in_spite_of_tls(destination)
    try:
        answer = await resolver.mx(domain)
    except NullMx as error:
        return _unroutable(Severity.PERMANENT, "null_mx", str(error), settings)
    except NoMailHost as error:
        return _unroutable(Severity.PERMANENT, "no_usable_host", str(error), settings)
    except NoSuchDomain as error:
        return _unroutable(Severity.PERMANENT, "no_such_domain", str(error), settings)
    except ResolverUnavailable as error:
        return _unroutable(Severity.TRANSIENT, "dns_unavailable", str(error), settings)
    routed = _by_mx(domain, answer.records, settings, random)
    if isinstance(routed, Unroutable):
        return routed
    shape = shaping.shape_for([host.name for host in routed.hosts], domain=domain)
    demanded = routes.tls_demanded(domain)
    security = Security(tls_for(None, shape, demanded=demanded))
    heeds_domain = heeds_domain and demanded is None and security.tls is not TlsPolicy.OFF
    site = _site_of(routed.site, routed.hosts, shape.provider, shaping)
    if sts is not None and heeds_domain:
        policy = await sts.of(domain)
        if policy is not None and policy.mode is StsMode.TESTING and settings.tls.reports:
            security = security.by_testing()
        if policy is not None and policy.mode is StsMode.ENFORCE:
            admitted = tuple(host for host in routed.hosts if policy.admits(host.name))
            if not admitted:
                return _not_admitted(domain, policy, routed.hosts, settings)
            security = security.by_mta_sts(_names(routed.hosts), _names(admitted))
            routed = msgspec.structs.replace(routed, hosts=admitted)
    if demanded is TlsPolicy.DANE and not answer.authentic:
        return _not_authentic(domain, settings)
    if demanded is TlsPolicy.DANE or (settings.tls.dane and heeds_domain):
        is_only = demanded is TlsPolicy.DANE
        security = await _by_dane(domain, routed, answer, security, resolver, is_only=is_only)
    routed = msgspec.structs.replace(
        routed,
        lane=Lane(site, pool_of(settings), str(security)),
        site=site,
        provider=shape.provider or "",
        ttl_s=answer.ttl_s,
    )
    found = await find_addresses(
        groups_of(routed.hosts),
        AddressRules.for_mx(settings, mx_port(settings)),
        resolver=resolver,
        wanted=1,
        random=random,
    )
    return routed if found.addresses else nowhere(found, routed, settings)


async def _by_dane(
    domain: str,
    routed: Routed,
    answer: MxAnswer,
    security: Security,
    resolver: Resolver,
    *,
    is_only: bool,
) -> Security:
    """With DANE where the MX records are authentic; the domain's name where it may count."""
    if not answer.authentic:
        return security
    is_named = await name_counts(_names(routed.hosts), routed.hosts[0].port, resolver)
    return msgspec.structs.replace(
        security, dane=True, next_hop=domain if is_named else "", dane_only=is_only
    )


def _names(hosts: tuple[MxHost, ...]) -> list[str]:
    return [host.name for host in hosts]


def _not_authentic(domain: str, settings: Settings) -> Unroutable:
    """A route demands DANE of a domain that has none, or whose signatures are broken."""
    text = (
        f"A route demands DANE for {domain}, but DNSSEC does not vouch for its MX records, "
        "or no resolver that says so is believed (dns.trust_ad)"
    )
    return _unroutable(Severity.TRANSIENT, DANE_REQUIRED, text, settings)


def _not_admitted(
    domain: str, policy: StsPolicy, hosts: tuple[MxHost, ...], settings: Settings
) -> Unroutable:
    """MX records and MTA-STS policy contradict each other: one of them is wrong, or forged."""
    text = (
        f"The MTA-STS policy of {domain} admits none of its MX hosts "
        f"({', '.join(_names(hosts)[:3])}), only {', '.join(policy.patterns[:3])}"
    )
    return _unroutable(Severity.TRANSIENT, NOT_ADMITTED, text, settings)


def _by_smarthost(route: StaticRoute, shaping: Shaping, settings: Settings) -> Routed:
    """A smarthost's lane; its addresses are looked up when a session is planned."""
    shape = shaping.shape_for([route.host])
    host = f"[{route.host}]" if ":" in route.host else route.host
    site = f"{host}:{route.port}"
    account = route.credentials.key if route.credentials else ""
    return Routed(
        lane=Lane(site, pool_of(settings), tls_for(route, shape).value, account),
        site=site,
        provider=shape.provider or "",
        hosts=(MxHost(route.host, 0, route.port),),
        ttl_s=settings.dns.max_ttl,
        route=route.destination,
    )


def _by_mx(
    domain: str, records: tuple[tuple[int, str], ...], settings: Settings, random: Random
) -> Routed | Unroutable:
    """Hosts and site of an MX set, ourselves and all after us cut."""
    groups = order_hosts(records, own_names=own_names(settings), random=random)
    if not groups:
        text = f"Mail for {domain} loops back to us: we are its best MX host."
        return _unroutable(Severity.PERMANENT, "routing_loop", text, settings)
    best: dict[str, int] = {}
    for preference, name in records:
        best[host_name(name)] = min(preference, best.get(host_name(name), preference))
    port = mx_port(settings)
    hosts = tuple(MxHost(name, best[name], port) for group in groups for name in group)
    site = site_name(groups)
    is_backup = len(groups) < len(preference_groups(records))
    return Routed(Lane(site), site, "", hosts, 0.0, is_backup=is_backup)


def nowhere(found: Found, routed: Routed, settings: Settings) -> Unroutable:
    """The verdict where no address is left: soft beats hard, backups wait for their primary."""
    hosts = ", ".join(host.name for host in routed.hosts[:3])
    if found.own_group == 0:
        text = f"Mail loops back to us: {hosts} is an address of our own."
        severity = Severity.TRANSIENT if routed.route else Severity.PERMANENT
        return _unroutable(severity, "routing_loop", text, settings, _scope_of(routed))
    if found.unavailable:
        text = f"DNS gave no usable answer: {found.unavailable}."
        return _unroutable(Severity.TRANSIENT, "dns_unavailable", text, settings, _scope_of(routed))
    if found.refused and settings.delivery.mode is not Mode.LIVE:
        text = f"Sink mode sends to loopback only, but {found.refused}."
        return _unroutable(Severity.TRANSIENT, "no_usable_host", text, settings, Scope.LOCAL)
    trouble = found.refused or found.missing or f"{hosts} has no address"
    if routed.is_backup or found.own_group is not None:
        text = f"We are a backup MX and no better host can be reached: {trouble}."
        return _unroutable(Severity.TRANSIENT, "no_usable_host", text, settings)
    if routed.route:
        text = f"The smarthost has no usable address: {trouble}."
        return _unroutable(Severity.TRANSIENT, "no_usable_host", text, settings, Scope.ROUTE)
    text = f"No MX host has an address that we may use: {trouble}."
    return _unroutable(Severity.PERMANENT, "no_usable_host", text, settings)


def groups_of(hosts: tuple[MxHost, ...]) -> tuple[tuple[str, ...], ...]:
    """Host names by preference, best first."""
    groups: dict[int, list[str]] = {}
    for host in sorted(hosts, key=lambda one: one.preference):
        groups.setdefault(host.preference, []).append(host.name)
    return tuple(map(tuple, groups.values()))


def own_name(settings: Settings) -> str:
    """The name that we give in EHLO."""
    return settings.delivery.hostname or machine_name()


def doubt_of_name(settings: Settings) -> str:
    """Why receivers will not like the name that we give in EHLO; empty where they may, or in sink
    mode. They look it up: it must be a public one (RFC 5321 §2.3.5).
    """
    name = own_name(settings)
    is_public = "." in name and not name.endswith((".localdomain", ".local", ".localhost"))
    if is_public or settings.delivery.mode is not Mode.LIVE:
        return ""
    return (
        f"receivers will be greeted by '{name}', which is no public name, and many refuse that; "
        "set delivery.hostname (RELAY_DELIVERY_HOSTNAME)"
    )


def own_names(settings: Settings) -> tuple[str, ...]:
    """MX names that mean ourselves; in the simulated internet nobody is."""
    return (own_name(settings),) if settings.delivery.mode is Mode.LIVE else ()


def pool_of(settings: Settings) -> str:
    """The source pool of lanes."""
    pools = settings.worker.pools
    return "default" if "default" in pools or not pools else pools[0]


def mx_port(settings: Settings) -> int:
    """The port of MX hosts: `delivery.smtp_port`, in sink mode that of the sink."""
    if settings.delivery.mode is Mode.LIVE:
        return settings.delivery.smtp_port
    return int(settings.sink.smtp.rpartition(":")[2])


def _site_of(site: str, hosts: tuple[MxHost, ...], provider: str | None, shaping: Shaping) -> str:
    """The MX set's name; with the provider where the domain, not the MX names, belongs to it."""
    if provider is None or shaping.shape_for([host.name for host in hosts]).provider == provider:
        return site
    label = "".join(char if char.isalnum() or char in "-_." else "_" for char in provider)
    return f"{site}~{label}"


def _scope_of(routed: Routed) -> Scope:
    return Scope.ROUTE if routed.route else Scope.DOMAIN


def _no_such_route(destination: str) -> Unroutable:
    text = f"No route is named {destination} in the configuration any more."
    return Unroutable(Verdict(Severity.TRANSIENT, Scope.ROUTE, "no_such_route", text), RETRY_S)


def _unroutable(
    severity: Severity, reason: str, text: str, settings: Settings, scope: Scope = Scope.DOMAIN
) -> Unroutable:
    permanent = severity is Severity.PERMANENT
    return Unroutable(
        Verdict(severity, scope, reason, text if text.endswith(".") else f"{text}."),
        retry_after_s=settings.dns.negative_ttl if permanent else RETRY_S,
    )
