"""The hosts of a plan, visited for a probe: how far a session comes, and what RCPT is answered.

Sessions are opened as deliveries open them, side by side; no DATA is ever said.
"""

import asyncio

import msgspec

from relay.delivery.directory import Directory
from relay.delivery.plan import Plan
from relay.delivery.probe_report import (
    CertificateReport,
    HostReport,
    RecipientReport,
    TlsReport,
    VerdictReport,
)
from relay.delivery.refusals import verdict_of_failure, verdict_of_loop
from relay.delivery.session import Session, open_session
from relay.delivery.values import Dialogue, Endpoint, SessionFailed, Transaction
from relay.model.address import Address
from relay.model.verdict import Scope, Severity, Verdict
from relay.net.certificate import read_certificate
from relay.policy.classify import classify_transaction
from relay.settings.schema import TlsPolicy
from relay.smtp.command import EHLO, HELO, LHLO

_HELLOS = tuple(f"> {verb} " for verb in (EHLO, HELO, LHLO))


class Enquiry(msgspec.Struct, frozen=True):
    """Of which recipient a host is asked, and in whose name; None: the null reverse-path."""

    recipient: Address
    reverse_path: Address | None = None


class Visits:
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
        return _opened(endpoint, session, verdict_of_loop(self._plan, session))

    def _not_opened(self, endpoint: Endpoint, failed: SessionFailed) -> HostReport:
        verdict = verdict_of_failure(self._plan, endpoint, failed, self._rules)
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
