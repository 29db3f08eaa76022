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
    CertificateReport,
    DaneReport,
    HostReport,
    LimitsReport,
    MxReport,
    ProbeReport,
    RecipientReport,
    RouteReport,
    StsReport,
    TlsReport,
    VerdictReport,
)
from relay.delivery.routing import MxHost, Routed, Unroutable, resolve_destination
from relay.delivery.session import Session, open_session
from relay.delivery.values import Dialogue, Endpoint, SessionFailed, Transaction
from relay.model.address import Address
from relay.model.errors import NoSuchDomain, ResolutionError, ResolverUnavailable
from relay.model.verdict import Scope, Severity, Verdict
from relay.net.certificate import read_certificate
from relay.net.resolver import Resolver
from relay.policy.classify import classify_loop, classify_session_failure, classify_transaction
from relay.policy.mx import host_name
from relay.policy.tls import Security
from relay.settings.schema import Timeouts, TlsPolicy
from relay.smtp.command import EHLO, HELO, LHLO

#: Nobody who waits before a terminal waits for minutes: seconds for a phase, and for all of it.
PHASE_S, ATTEMPT_S = 10.0, 20.0
_HELLOS = tuple(f"> {verb} " for verb in (EHLO, HELO, LHLO))
#: MX hosts whose addresses are looked up.
HOSTS_SHOWN = 20


class Enquiry(msgspec.Struct, frozen=True):
    """Of which recipient a host is asked, and in whose name; None: the null reverse-path."""

    recipient: Address
    reverse_path: Address | None = None


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
    visits = _Visits(plan, directory)
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


async def _tlsa(host: MxHost, directory: Directory, *, heeded: bool) -> DaneReport:
    """What is published for a host and port, believed or not."""
    try:
        records, authentic = await directory.resolver.published_tlsa(host.name, host.port)
    except ResolverUnavailable as error:
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


class _Visits:
    """The hosts of a plan and how far we came with each, in the order of the plan."""

    def __init__(self, plan: Plan, directory: Directory) -> None:
        self.reports: list[HostReport] = []
        self._plan = plan
        self._rules = directory.rules
        self._provider = plan.provider or None
        self._sessions: dict[int, Session] = {}

    @property
    def take_mail(self) -> bool:
        """Whether a host is ready for it."""
        return any(report.ready for report in self.reports)

    async def open_all(self) -> None:
        """Open a session to each address, side by side."""
        places = enumerate(self._plan.endpoints)
        self.reports = await asyncio.gather(*(self._open(*place) for place in places))

    async def _open(self, position: int, endpoint: Endpoint) -> HostReport:
        try:
            session = await open_session(endpoint, self._plan.dialogue)
        except SessionFailed as failed:
            return self._not_opened(endpoint, failed)
        self._sessions[position] = session
        own = self._plan.own_name
        looped = bool(own) and host_name(session.server_name) == host_name(own)
        verdict = (
            classify_loop(endpoint.host, own, is_by_smarthost=self._plan.is_by_smarthost)
            if looped
            else None
        )
        return _opened(endpoint, session, verdict)

    def _not_opened(self, endpoint: Endpoint, failed: SessionFailed) -> HostReport:
        verdict = classify_session_failure(
            failed.phase,
            failed.reply,
            failed.cause,
            provider=self._provider,
            rules=self._rules,
        )
        if failed.reply is None and failed.cause is not None:
            text = f"{verdict.text.removesuffix('.')} ({str(failed.cause)[:200]})."
            verdict = msgspec.structs.replace(verdict, text=text)
        lines = failed.dialogue.split("\n")
        return HostReport(
            host=endpoint.host,
            ip=endpoint.address,
            port=endpoint.port,
            ready=False,
            phase=failed.phase,
            verdict=VerdictReport.of(verdict),
            greeting=_greeting(lines),
            extensions=_extensions(lines),
            timings=_rounded(failed.timings),
            dialogue=failed.dialogue,
        )

    async def enquire(self, enquiry: Enquiry) -> RecipientReport | None:
        """Ask the host that mail would go to whether it takes the recipient; None: no host."""
        position = next((at for at, one in enumerate(self.reports) if one.ready), None)
        if position is None:
            return None
        session = self._sessions[position]
        reverse_path = str(enquiry.reverse_path or "")
        result = await session.transact(
            Transaction(
                reverse_path,
                (str(enquiry.recipient),),
                b"",
                needs_smtputf8=enquiry.recipient.needs_smtputf8,
                is_enquiry=True,
            )
        )
        reply = result.replies[0]
        accepted = reply is not None and reply.is_positive
        if accepted:
            text = "The receiving server takes mail for the recipient."
            verdict = Verdict(Severity.SUCCESS, Scope.RECIPIENT, "accepted", text, reply)
        else:
            (verdict,) = classify_transaction(result, provider=self._provider, rules=self._rules)
        return RecipientReport(
            address=str(enquiry.recipient),
            reverse_path=reverse_path,
            accepted=accepted,
            verdict=VerdictReport.of(verdict),
            host=session.endpoint.host,
            ip=session.endpoint.address,
            dialogue=result.dialogue,
        )

    async def close_all(self) -> None:
        """Say QUIT to all that are open."""
        await asyncio.gather(*(session.close() for session in self._sessions.values()))

    async def check_certificates(self) -> None:
        """Find out whether the certificates that nobody demanded would be verified, or why not."""
        checked = map(self._checked, self._plan.endpoints, self.reports)
        self.reports = await asyncio.gather(*checked)

    async def _checked(self, endpoint: Endpoint, report: HostReport) -> HostReport:
        tls = report.tls
        if tls is None or tls.certificate is None or tls.certificate.verified:
            return report
        problem = await _problem_of_certificate(endpoint, self._plan.dialogue)
        checked = msgspec.structs.replace(tls.certificate, verified=not problem, problem=problem)
        return msgspec.structs.replace(
            report, tls=msgspec.structs.replace(tls, certificate=checked)
        )


async def _problem_of_certificate(endpoint: Endpoint, dialogue: Dialogue) -> str:
    """Why a session that demands a verified certificate does not come about; empty: it does."""
    strict = msgspec.structs.replace(dialogue, tls=TlsPolicy.VERIFIED, credentials=None)
    by_store = msgspec.structs.replace(endpoint, tls=None, tlsa=())
    try:
        session = await open_session(by_store, strict)
    except SessionFailed as failed:
        return str(failed.cause or failed.reply or failed)[:200]
    await session.close()
    return ""


def _opened(endpoint: Endpoint, session: Session, verdict: Verdict | None) -> HostReport:
    lines = list(session.opening)
    return HostReport(
        host=endpoint.host,
        ip=endpoint.address,
        port=endpoint.port,
        ready=verdict is None,
        phase="" if verdict is None else "hello",
        verdict=None if verdict is None else VerdictReport.of(verdict),
        greeting=_greeting(lines),
        name=session.server_name,
        extensions=_extensions(lines),
        tls=_tls(session),
        clear_because=session.clear_because,
        timings=_rounded(session.timings),
        dialogue="\n".join(lines),
    )


def _tls(session: Session) -> TlsReport | None:
    tls = session.tls
    if not tls:
        return None
    certificate = read_certificate(session.certificate)
    return TlsReport(
        version=str(tls["version"]),
        cipher=str(tls["cipher"]),
        policy=str(tls["policy"]),
        certificate=None
        if certificate is None
        else CertificateReport(
            names=certificate.names,
            issuer=certificate.issuer,
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            verified=bool(tls["verified"]),
        ),
    )


def _greeting(lines: list[str]) -> str:
    """The text of the greeting in an opening dialogue."""
    first = lines[0] if lines else ""
    return first[2:] if first.startswith("< ") else ""


def _extensions(lines: list[str]) -> tuple[str, ...]:
    """What the last EHLO of an opening dialogue was answered with, without the host's name."""
    said = [at for at, line in enumerate(lines) if line.startswith(_HELLOS)]
    if not said:
        return ()
    offered: list[str] = []
    for line in lines[said[-1] + 1 :]:
        if not line.startswith("< 250"):
            break
        offered.append(line[6:])
    return tuple(offered[1:])


def _rounded(timings: dict[str, float]) -> dict[str, float]:
    return {phase: round(spent_s, 4) for phase, spent_s in timings.items()}
