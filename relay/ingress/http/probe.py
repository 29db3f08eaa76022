"""`/v1/probe`: what mail to a domain would meet now, seen from the machine of this process."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from relay.delivery.directory import Directory, load_directory
from relay.delivery.probe import probe
from relay.delivery.probe_report import ProbeReport
from relay.delivery.visits import Enquiry
from relay.ingress.http.body import json_response, read_json
from relay.ingress.http.door import Door
from relay.ingress.http.filters import ProbeRequest, invalid
from relay.ingress.http.openapi import answers, takes
from relay.ingress.http.problem import Problem
from relay.model.address import normalize_domain, parse_address, parse_reverse_path
from relay.model.errors import ConfigError
from relay.net.resolver import Resolver
from relay.settings.schema import Settings

#: Probes under way at a time; more wait their turn.
SIDE_BY_SIDE = 4
#: Seconds that a probe may take: the command line waits a little longer.
LONGEST_S = 75.0


class Probes:
    """The endpoint; its answers of DNS are fresh, for each probe has a resolver of its own."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._places = asyncio.Semaphore(SIDE_BY_SIDE)

    def router(self) -> APIRouter:
        """The one endpoint."""
        router = APIRouter(prefix="/v1", tags=["probe"])
        router.add_api_route(
            "/probe",
            self.probe,
            methods=["POST"],
            summary="Look at the road to a domain: MX, hosts, TLS, limits; nothing is sent",
            responses=answers(ProbeReport, 400, 415, 422, 504),
            openapi_extra=takes(ProbeRequest, required=True),
        )
        return router

    async def probe(self, request: Request) -> Response:
        """Probe a domain."""
        asked = await read_json(request, ProbeRequest)
        domain = _domain(asked.domain)
        enquiry = _enquiry(asked, domain)
        settings = self._door.settings
        async with self._places:
            resolver = Resolver.from_settings(settings)
            directory = _directory(settings, resolver)
            try:
                async with asyncio.timeout(LONGEST_S):
                    report = await probe(domain, directory, enquiry)
            except TimeoutError:
                detail = f"the probe of {domain} took over {LONGEST_S:g} s; its hosts or DNS hang"
                raise Problem(504, "probe_too_slow", detail) from None
            finally:
                if directory.sts is not None:
                    await directory.sts.aclose()
                await resolver.aclose()
        return json_response(report)


def _directory(settings: Settings, resolver: Resolver) -> Directory:
    """The configuration as it is in the files now."""
    try:
        return load_directory(settings, resolver, signs=False)
    except ConfigError as error:
        raise Problem(500, "configuration_invalid", str(error)) from None


def _domain(given: str) -> str:
    if "@" in given:
        fix = "give the domain alone; verify asks for an address"
        raise invalid("domain", f"{given[:80]!r} is an address", fix)
    try:
        return normalize_domain(given)
    except ValueError as error:
        raise invalid("domain", f"{given[:80]!r} {error}", "give a domain name") from None


def _enquiry(asked: ProbeRequest, domain: str) -> Enquiry | None:
    """Whom to ask for; SubmissionRefused names the field where an address is none."""
    if not asked.verify:
        if asked.reverse_path:
            raise invalid("from", "goes with verify", "give verify, the address to ask for")
        return None
    recipient = parse_address(asked.verify, field="verify")
    if recipient.domain != domain:
        fault = f"{asked.verify[:80]!r} is no address of {domain}"
        raise invalid("verify", fault, "give an address of the domain that is probed")
    reverse_path = parse_reverse_path(asked.reverse_path, field="from")
    return Enquiry(recipient, reverse_path)
