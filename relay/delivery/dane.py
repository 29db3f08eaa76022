"""What the TLSA records of MX hosts demand of a session (RFC 7672 §2.2).

Only asked where the domain's MX records are authentic. A host whose addresses are not, or that has
no TLSA records, is one without DANE; a host whose records cannot be looked up is not used at all,
because whoever keeps them from us would be rid of DANE otherwise.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from relay.delivery.values import Endpoint
from relay.model.errors import ResolverUnavailable
from relay.net.resolver import Resolver
from relay.policy.dane import Tlsa, read_tlsa
from relay.settings.schema import TlsPolicy

_AT_LEAST_REQUIRED = {
    TlsPolicy.OPPORTUNISTIC: TlsPolicy.REQUIRED,
    TlsPolicy.REQUIRED: TlsPolicy.REQUIRED,
    TlsPolicy.VERIFIED: TlsPolicy.VERIFIED,
}


class Unknown(msgspec.Struct, frozen=True):
    """The records of a host could not be looked up: why."""

    text: str


async def with_dane(
    endpoints: Sequence[Endpoint], tls: TlsPolicy, resolver: Resolver
) -> tuple[tuple[Endpoint, ...], str]:
    """The endpoints that may be used, with what is demanded of each, and why others may not."""
    ports = {endpoint.host: endpoint.port for endpoint in endpoints}
    found = await asyncio.gather(*(_tlsa_of(host, ports[host], resolver) for host in ports))
    by_host = dict(zip(ports, found, strict=True))
    usable, trouble = [], ""
    for endpoint in endpoints:
        records = by_host[endpoint.host]
        if isinstance(records, Unknown):
            trouble = records.text
        elif records is None:
            usable.append(endpoint)
        else:
            usable.append(_demanding(endpoint, records, tls))
    return tuple(usable), trouble


def _demanding(endpoint: Endpoint, records: Sequence[Tlsa], tls: TlsPolicy) -> Endpoint:
    """TLS is required; usable records say of which certificate, and go before any store."""
    usable = tuple(record for record in records if record.is_usable)
    demand = TlsPolicy.REQUIRED if usable else _AT_LEAST_REQUIRED[tls]
    return msgspec.structs.replace(endpoint, tls=demand, tlsa=usable, demanded_by="dane")


async def _tlsa_of(host: str, port: int, resolver: Resolver) -> tuple[Tlsa, ...] | Unknown | None:
    """The authentic TLSA records of a host; None: it has none."""
    try:
        if not await resolver.is_authentic(host):
            return None
        texts = await resolver.tlsa(host, port)
        return read_tlsa(texts) or None
    except (ResolverUnavailable, ValueError) as error:
        return Unknown(str(error))
