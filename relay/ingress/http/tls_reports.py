"""`/v1/tls-reports/{domain}`: what a domain would be told of our TLS sessions with it."""

import datetime

from fastapi import APIRouter, Query
from starlette.responses import Response

from relay.delivery.routing import own_name
from relay.delivery.tls_report_sender import contact_of, tallies_of
from relay.ingress.http.body import json_response
from relay.ingress.http.door import Door
from relay.ingress.http.filters import invalid
from relay.ingress.http.openapi import answers
from relay.model.address import normalize_domain
from relay.model.errors import NotFound
from relay.policy.tls_report import DomainReport, day_of, make_report
from relay.store.tls_counts import TlsCounts


class TlsReports:
    """The endpoint."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def router(self) -> APIRouter:
        """The one endpoint."""
        router = APIRouter(prefix="/v1", tags=["tls-reports"])
        router.add_api_route(
            "/tls-reports/{domain}",
            self.report,
            methods=["GET"],
            summary="The TLS report (RFC 8460) of a domain as it would be sent",
            responses=answers(DomainReport, 404, 422),
        )
        return router

    async def report(self, domain: str, day: str = Query("")) -> Response:
        """The report of a day, today where none is given."""
        try:
            name = normalize_domain(domain)
        except ValueError as error:
            raise invalid("domain", f"{domain[:80]!r} {error}", "give a domain name") from None
        store, settings = self._door.store, self._door.settings
        wanted = _day(day) or day_of(await store.now())
        tallies = tallies_of(await TlsCounts(store).read(wanted, name))
        if not tallies:
            raise NotFound(
                f"nothing was counted of TLS sessions with {name} on {wanted}; counted are, where "
                "tls.reports is on, domains that ask for reports"
            )
        hostname = own_name(settings)
        contact = contact_of(settings, hostname)
        report = make_report(name, wanted, tallies, organization=hostname, contact=contact)
        return json_response(report)


def _day(text: str) -> str:
    if not text:
        return ""
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise invalid("day", f"{text[:20]!r} is no day", "write it as 2026-11-21") from None
