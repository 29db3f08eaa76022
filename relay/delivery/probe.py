"""What mail to a domain would meet now: the road of deliveries, up to RCPT and no further.

Routing, plans, sessions and verdicts are those of deliveries; what differs is said here: every
address of the plan is visited, side by side and with short deadlines, and no DATA is ever said.
Nothing of it is remembered, and no limit counts it: a probe is a connection to each host, and one
more to those whose certificate was not verified, to find out why.
"""

import asyncio
import time
from random import Random

import msgspec

from relay.delivery.directory import Directory
from relay.delivery.plan import Plan, plan_for
from relay.delivery.probe_report import (
    DaneReport,
    LimitsReport,
    MxReport,
    ProbeReport,
    RouteReport,
    StsReport,
    VerdictReport,
)
from relay.delivery.routing import MxHost, Routed, Unroutable, resolve_destination
from relay.delivery.visits import Enquiry, Visits
from relay.model.errors import NoSuchDomain, ResolutionError, ResolverUnavailable
from relay.net.resolver import Resolver
from relay.policy.tls import Security
from relay.settings.schema import Timeouts

#: Nobody who waits before a terminal waits for minutes: seconds for a phase, and for all of it.
PHASE_S, ATTEMPT_S = 10.0, 20.0
#: MX hosts whose addresses are looked up.
HOSTS_SHOWN = 20


async def probe(domain: str, directory: Directory, enquiry: Enquiry | None = None) -> ProbeReport:
    """Probe a domain (A-labels); every fault of DNS, network or host is in the report."""
    destination = directory.routes.destination_for(domain)
    settings = directory.settings
    mode = settings.delivery.mode
    report = ProbeReport(domain=domain, mode=mode.value if mode else "", takes_mail=False)
    if destination == domain:
        (implicit, mx), mta_sts, tls_rpt = await asyncio.gather(
            _look_up_mx(domain, directory.resolver),
            _mta_sts(domain, directory),
            _tls_rpt(domain, directory.resolver),
        )
        report = msgspec.structs.replace(
            report, implicit_mx=implicit, mx=mx, mta_sts=mta_sts, tls_rpt=tls_rpt
        )
    routed = await resolve_destination(
        destination,
        resolver=directory.resolver,
        routes=directory.routes,
        shaping=directory.shaping,
        settings=settings,
        random=Random(),
        sts=directory.sts,
    )
    plan: Plan | Unroutable
    if isinstance(routed, Routed):
        report = msgspec.structs.replace(report, dane=await _dane(routed, directory))
        plan = await _plan(routed, directory)
    else:
        plan = routed
    if isinstance(plan, Unroutable):
        return msgspec.structs.replace(report, problem=VerdictReport.of(plan.verdict))
    visits = Visits(plan, directory)
    try:
        await visits.open_all()
        recipient = await visits.enquire(enquiry) if enquiry is not None else None
    finally:
        await visits.close_all()
    await visits.check_certificates()
    return msgspec.structs.replace(
        report,
        takes_mail=visits.take_mail,
        route=_route(destination, plan),
        hosts=tuple(visits.reports),
        recipient=recipient,
    )


async def _look_up_mx(domain: str, resolver: Resolver) -> tuple[bool, tuple[MxReport, ...]]:
    """Whether the domain is its own host, and its MX hosts in their order with their addresses."""
    try:
        answer = await resolver.mx(domain)
    except ResolutionError:
        return False, ()  # the route says why
    records = sorted(answer.records)[:HOSTS_SHOWN]
    looked_up = [_mx(preference, host, resolver) for preference, host in records]
    return answer.implicit, tuple(await asyncio.gather(*looked_up))


async def _mx(preference: int, host: str, resolver: Resolver) -> MxReport:
    try:
        addresses = await resolver.addresses(host)
    except (NoSuchDomain, ResolverUnavailable) as error:
        return MxReport(preference=preference, host=host, problem=str(error))
    problem = "" if addresses else "has no address"
    return MxReport(preference=preference, host=host, addresses=addresses, problem=problem)


async def _mta_sts(domain: str, directory: Directory) -> StsReport | None:
    """The policy that deliveries heed; None where they ask for none."""
    if directory.sts is None:
        return None
    published, kept = await directory.sts.look_up(domain)
    policy = kept.valid(time.time())
    if policy is None:
        return StsReport(id=published, problem=kept.problem)
    return StsReport(
        id=published or kept.id,
        mode=policy.mode.value,
        hosts=policy.patterns,
        max_age_s=policy.max_age_s,
        problem=kept.problem,
    )


async def _tls_rpt(domain: str, resolver: Resolver) -> str:
    """Where the domain wants its TLS reports (RFC 8460 §3); empty: nowhere, or DNS is silent."""
    try:
        texts = await resolver.texts(f"_smtp._tls.{domain}")
    except ResolverUnavailable:
        return ""
    records = [text for text in texts if text.startswith("v=TLSRPTv1")]
    fields = records[0].split(";")[1:] if len(records) == 1 else []
    rua = (field.strip().partition("=") for field in fields)
    return next((value.strip() for key, _, value in rua if key.strip() == "rua"), "")


async def _dane(routed: Routed, directory: Directory) -> tuple[DaneReport, ...]:
    """The hosts that have TLSA records, or whose records cannot be looked up."""
    if routed.route:
        return ()
    hosts = routed.hosts[:HOSTS_SHOWN]
    is_heeded = Security.parse(routed.lane.security).dane
    found = await asyncio.gather(*(_tlsa(host, directory, heeded=is_heeded) for host in hosts))
    return tuple(one for one in found if one.records or one.problem)


async def _published_tlsa(host: MxHost, resolver: Resolver) -> tuple[tuple[str, ...], bool]:
    """The records under the name that the host is an alias of, else under its own."""
    if alias_of := await resolver.alias_of(host.name):
        records, authentic = await resolver.published_tlsa(alias_of, host.port)
        if records and authentic:
            return records, True
    return await resolver.published_tlsa(host.name, host.port)


async def _tlsa(host: MxHost, directory: Directory, *, heeded: bool) -> DaneReport:
    """What is published for a host and port, believed or not."""
    try:
        records, authentic = await _published_tlsa(host, directory.resolver)
    except (NoSuchDomain, ResolverUnavailable) as error:
        return DaneReport(host=host.name, problem=str(error))
    problem = ""
    if records and not heeded:
        problem = _why_unheeded(directory)
    elif records and not authentic:
        problem = "they are not authentic"
    return DaneReport(
        host=host.name,
        records=records,
        authentic=authentic,
        heeded=bool(records) and not problem,
        problem=problem,
    )


def _why_unheeded(directory: Directory) -> str:
    if not directory.settings.tls.dane:
        return "tls.dane is off"
    if not directory.resolver.is_trusted:
        return "no nameserver is believed to validate DNSSEC (dns.trust_ad)"
    return "the MX records are not authentic, or a route says what TLS is demanded"


async def _plan(routed: Routed, directory: Directory) -> Plan | Unroutable:
    plan = await plan_for(
        routed.lane,
        routed,
        resolver=directory.resolver,
        settings=directory.settings,
        routes=directory.routes,
        shaping=directory.shaping,
        random=Random(),
    )
    if isinstance(plan, Unroutable):
        return plan
    dialogue = msgspec.structs.replace(plan.dialogue, timeouts=_short(plan.dialogue.timeouts))
    return msgspec.structs.replace(plan, dialogue=dialogue)


def _short(timeouts: Timeouts) -> Timeouts:
    """The deadlines of deliveries, none above what a person waits."""
    phases = {name: min(limit, PHASE_S) for name, limit in msgspec.structs.asdict(timeouts).items()}
    return Timeouts(**phases | {"attempt": min(timeouts.attempt, ATTEMPT_S)})


def _route(destination: str, plan: Plan) -> RouteReport:
    dialogue = plan.dialogue
    return RouteReport(
        destination=destination,
        by_smarthost=plan.is_by_smarthost,
        lane=str(plan.lane),
        site=plan.lane.site,
        provider=plan.provider,
        tls=plan.lane.security,
        source=dialogue.source_address,
        hello_name=dialogue.hello_name,
        limits=LimitsReport.of(plan.shape),
    )
