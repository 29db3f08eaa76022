"""Counts how TLS sessions with each domain go, and sends the daily reports (RFC 8460).

Counted are sessions, not messages: one success for each domain whose mail a session carries, one
failure for each domain of the lane when TLS does not come about. Only domains that ask for reports
(`_smtp._tls`) are counted in Redis. Reports are mail like any other, sent once: the store knows a
report of the same domain and day again.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

import msgspec
import structlog

from relay.delivery.directory import Directory
from relay.delivery.plan import Plan
from relay.delivery.session import Session
from relay.delivery.tls_report_mail import compose_tls_report
from relay.delivery.values import Endpoint, SessionFailed
from relay.model.address import parse_address
from relay.model.errors import IdempotencyConflict, ResolverUnavailable, StoreError
from relay.model.ids import new_queue_id
from relay.model.message import Submission
from relay.policy.mta_sts import StsMode, StsPolicy
from relay.policy.tls_report import (
    NO_STARTTLS,
    NOT_ADMITTED,
    SUCCESS,
    Failure,
    Policy,
    day_of,
    field_of,
    make_report,
    read_rua,
    result_of,
)
from relay.settings.schema import Settings, TlsPolicy
from relay.store.tls_counts import TlsCounts
from relay.store.work import Work

#: How often counts go to Redis, and how often reports that are due are looked for.
FLUSH_EVERY_S, SEND_EVERY_S = 2.0, 30.0
#: Domains with counts, and failed sessions, that wait for the next flush at most.
PENDING_KEPT = 10_000
#: Domains of a lane to which a failure of it is counted.
DOMAINS_OF_LANE = 50
#: Reports sent in one go, and days that are looked back at.
REPORTS_AT_ONCE, DAYS_BACK = 20, 2
REPORT_LIFETIME_S = 2 * 86400.0

_DAY_S = 86400.0
_log = structlog.get_logger("relay.tls_report")


class TlsResults:
    """One for a process, on its loop: `opened` and `failed` take note, `run` does the rest."""

    def __init__(self, directory: Directory, work: Work) -> None:
        self._directory = directory
        self._work = work
        self._counts = TlsCounts(work.store)
        self._pending: dict[tuple[str, str], Counter[str]] = {}
        self._policies: dict[str, Policy] = {}
        self._failed: list[tuple[str, Failure]] = []
        self._looked = ("", float("-inf"))

    def opened(self, domain: str, session: Session, plan: Plan) -> None:
        """A session begins to carry the domain's mail."""
        if plan.dialogue.tls is TlsPolicy.OFF or plan.is_by_smarthost:
            return
        why = session.clear_because or session.unverified_because
        if session.endpoint.tlsa:
            self._policies[domain] = _of_tlsa(session.endpoint)
        if session.tls and not why:
            self._note(domain, SUCCESS + session.endpoint.host)
        elif session.tls or session.clear_because:
            self._note(domain, field_of(_failure(session.endpoint, plan, result_of(why), why)))
        else:
            self._note(domain, field_of(_failure(session.endpoint, plan, NO_STARTTLS, why)))

    def failed(self, endpoint: Endpoint, failed: SessionFailed, plan: Plan) -> None:
        """TLS did not come about, and so the session did not."""
        if failed.phase != "tls" or plan.is_by_smarthost or len(self._failed) >= PENDING_KEPT:
            return
        words = str(failed.reply or failed.cause or "")
        result = NO_STARTTLS if failed.reply is not None else result_of(words)
        self._failed.append((str(plan.lane), _failure(endpoint, plan, result, words)))

    def _note(self, domain: str, field: str) -> None:
        key = (day_of(self._work.store.clock.now()), domain)
        if key not in self._pending and len(self._pending) >= PENDING_KEPT:
            return
        self._pending.setdefault(key, Counter())[field] += 1

    async def run(self) -> None:
        """Flush and send until cancelled, through every absence of the store."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            try:
                await self.flush()
                today, (day, at) = day_of(self._work.store.clock.now()), self._looked
                if today != day or loop.time() >= at + SEND_EVERY_S:
                    self._looked = (today, loop.time())
                    await self.send_due()
            except StoreError as error:
                _log.debug("tls_report.put_off", detail=str(error))
            except Exception:  # it must not end: nobody else counts
                _log.exception("tls_report.failed")

    async def flush(self) -> None:
        """Write what was noted to Redis; StoreError, and what is left is written later."""
        failures, self._failed = self._failed, []
        for lane, failure in failures:
            for domain in await self._work.destinations_of(lane, DOMAINS_OF_LANE):
                self._note(domain, field_of(failure))
        while self._pending:
            (day, domain), counts = next(iter(self._pending.items()))
            if await self._wanted_by(domain):
                policy, admitted = await self._policy_of(domain)
                held = _held_to(counts, admitted)
                await self._counts.add(day, domain, held, msgspec.json.encode(policy))
            self._pending.pop((day, domain), None)
            self._policies.pop(domain, None)

    async def _wanted_by(self, domain: str) -> tuple[str, ...]:
        """Who wants the domain's reports."""
        try:
            return read_rua(await self._directory.resolver.texts(f"_smtp._tls.{domain}"))
        except ResolverUnavailable:
            return ()

    async def _policy_of(self, domain: str) -> tuple[Policy, StsPolicy | None]:
        """What is told of the policy, and that of MTA-STS where it is this."""
        sts = self._directory.sts
        if domain in self._policies or sts is None:
            return self._policies.get(domain, Policy()), None
        policy = await sts.of(domain)
        if policy is None or policy.mode is StsMode.NONE:
            return Policy(), None
        return _of_sts(policy), policy

    async def send_due(self) -> None:
        """Send reports of days that are over; some of them, others wait for the next time."""
        now = self._work.store.clock.now()
        for back in range(1, DAYS_BACK + 1):
            day = day_of(now - back * _DAY_S)
            for domain in await self._counts.some(day, REPORTS_AT_ONCE):
                await self._send(day, domain, now)
                await self._counts.forget(day, domain)

    async def _send(self, day: str, domain: str, now: float) -> None:
        directory = self._directory
        counts, policy = await self._counts.read(day, domain)
        if not counts:
            return
        hostname, contact = (
            directory.hello_name,
            contact_of(directory.settings, directory.hello_name),
        )
        report = make_report(
            domain,
            day,
            counts,
            read_policy_of(policy),
            organization=hostname,
            contact=contact,
            report_id=f"{day}.{domain}",
        )
        for text in await self._wanted_by(domain):
            to = parse_address(text)
            message_id, content = compose_tls_report(report, domain, to, hostname=hostname, now=now)
            key = f"tls-report:{day}:{domain}:{to}"
            submission = Submission(
                queue_id=new_queue_id(),
                reverse_path=None,
                forward_paths=(to,),
                destinations=(directory.routes.destination_for(to.domain),),
                content=content,
                message_id=message_id,
                ingress="report",
                expires_after_s=REPORT_LIFETIME_S,
                idempotency_key=key,
                digest=key,
            )
            try:
                receipt = await self._work.store.accept(submission)
            except IdempotencyConflict:
                continue
            _log.info("tls_report.sent", domain=domain, day=day, to=text, queue_id=receipt.id)


def read_policy_of(octets: bytes) -> Policy:
    """The policy that was kept beside the counts."""
    try:
        return msgspec.json.decode(octets, type=Policy)
    except (msgspec.DecodeError, ValueError):
        return Policy()


def contact_of(settings: Settings, hostname: str) -> str:
    """Whom to ask about our reports."""
    return settings.tls.report_contact or f"postmaster@{hostname}"


def _failure(endpoint: Endpoint, plan: Plan, result: str, words: str) -> Failure:
    source = plan.dialogue.source_address
    reason = " ".join(words.split())[:120]
    return Failure(result, endpoint.host, endpoint.address, source, reason)


def _of_tlsa(endpoint: Endpoint) -> Policy:
    lines: Iterable[str] = (
        f"{one.usage} {one.selector} {one.matching} {one.data.hex()}" for one in endpoint.tlsa
    )
    return Policy("tlsa", tuple(lines), (endpoint.host,))


def _of_sts(policy: StsPolicy) -> Policy:
    head = ("version: STSv1", f"mode: {policy.mode.value}")
    hosts = tuple(f"mx: {pattern}" for pattern in policy.patterns)
    return Policy("sts", (*head, *hosts, f"max_age: {policy.max_age_s}"), policy.patterns)


def _held_to(counts: Counter[str], policy: StsPolicy | None) -> Counter[str]:
    """The counts, held to a policy: in testing mode mail goes to hosts that it does not admit."""
    held: Counter[str] = Counter()
    for field, count in counts.items():
        host = field.removeprefix(SUCCESS)
        if host == field:
            held[field] += count
        elif policy is None or policy.admits(host):
            held[SUCCESS] += count
        else:
            held[field_of(Failure(NOT_ADMITTED, host, reason="not an mx of the policy"))] += count
    return held
