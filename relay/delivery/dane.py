"""What the TLSA records of MX hosts demand of a session (RFC 7672 §2.2).

Only asked where the domain's MX records are authentic. A host whose addresses are not, or that has
no TLSA records, is one without DANE; a host whose records cannot be looked up is not used at all,
because whoever keeps them from us would be rid of DANE otherwise.
"""

import asyncio
import itertools
from collections.abc import Iterable, Sequence

import msgspec

from relay.delivery.values import Endpoint
from relay.model.errors import NoSuchDomain, ResolverUnavailable
from relay.net.resolver import Resolver
from relay.policy.dane import Tlsa, read_tlsa
from relay.settings.schema import TlsPolicy

#: Hosts of a domain whose records are looked at before there is a plan: more than it ever tries.
HOSTS_ASKED = 10

_AT_LEAST_REQUIRED = {
    TlsPolicy.OPPORTUNISTIC: TlsPolicy.REQUIRED,
    TlsPolicy.REQUIRED: TlsPolicy.REQUIRED,
    TlsPolicy.VERIFIED: TlsPolicy.VERIFIED,
}


class Unusable(msgspec.Struct, frozen=True):
    """A host is not used: its records could not be looked up (`unknown`) or are `missing`."""

    text: str
    kind: str = "unknown"


class Published(msgspec.Struct, frozen=True):
    """The records of a host, and the name under which they were found (RFC 7672 §2.2.3)."""

    base: str
    records: tuple[Tlsa, ...]

    @property
    def usable(self) -> tuple[Tlsa, ...]:
        return tuple(record for record in self.records if record.is_usable)


async def with_dane(
    endpoints: Sequence[Endpoint],
    tls: TlsPolicy,
    resolver: Resolver,
    *,
    next_hops: tuple[str, ...] = (),
    is_only: bool = False,
) -> tuple[tuple[Endpoint, ...], dict[str, Unusable]]:
    """The endpoints that may be used, with what is demanded of each; and why which hosts may not.

    `next_hops`: names of the recipient domain that certificates of issuers in DNS may have, too.
    `is_only`: hosts without records that can be used are not used (§6).
    """
    ports = {endpoint.host: endpoint.port for endpoint in endpoints}
    found = await asyncio.gather(*(_published(host, ports[host], resolver) for host in ports))
    by_host = dict(zip(ports, found, strict=True))
    usable, troubles = [], dict[str, Unusable]()
    for endpoint in endpoints:
        published = by_host[endpoint.host]
        if isinstance(published, Unusable):
            troubles[endpoint.host] = published
        elif is_only and (published is None or not published.usable):
            troubles[endpoint.host] = Unusable("it has no TLSA records that can be used", "missing")
        elif published is None:
            usable.append(endpoint)
        else:
            usable.append(_demanding(endpoint, published, tls, next_hops))
    return tuple(usable), troubles


async def name_counts(hosts: Iterable[str], port: int, resolver: Resolver) -> bool:
    """Whether a host has records of issuers: then the name in its certificate counts, and may be
    that of the recipient domain."""
    asked = itertools.islice(hosts, HOSTS_ASKED)
    found = await asyncio.gather(*(_published(host, port, resolver) for host in asked))
    return any(
        record.is_by_issuer
        for published in found
        if isinstance(published, Published)
        for record in published.usable
    )


def _demanding(
    endpoint: Endpoint, published: Published, tls: TlsPolicy, next_hops: tuple[str, ...]
) -> Endpoint:
    """TLS is required; usable records say of which certificate, and go before any store."""
    usable = published.usable
    names = dict.fromkeys((published.base, *next_hops))
    return msgspec.structs.replace(
        endpoint,
        tls=TlsPolicy.REQUIRED if usable else _AT_LEAST_REQUIRED[tls],
        tlsa=usable,
        tls_names=tuple(names) if usable else (),
        demanded_by="dane",
    )


async def _published(host: str, port: int, resolver: Resolver) -> Published | Unusable | None:
    """The authentic TLSA records of a host; None: it has none."""
    try:
        for base in await _bases(host, resolver):
            records = read_tlsa(await resolver.tlsa(base, port))
            if records:
                return Published(base, records)
    except (ResolverUnavailable, NoSuchDomain, ValueError) as error:
        return Unusable(str(error))
    return None


async def _bases(host: str, resolver: Resolver) -> tuple[str, ...]:
    """Under which names a host's records may be, the better ones first (RFC 7672 §2.2.2).

    Those of the host that aliases lead to, all the way under DNSSEC, go before its own; where the
    way leaves DNSSEC its own are left, if DNSSEC vouches for its being an alias.
    """
    alias_of = await resolver.alias_of(host)
    if await resolver.is_authentic(host):
        return (alias_of, host) if alias_of else (host,)
    if alias_of and await resolver.is_authentic_alias(host):
        return (host,)
    return ()
