"""Counts how TLS sessions with each domain go, for the daily reports about it (RFC 8460).

Counted are sessions, not messages: one success for each domain whose mail a session carries, one
failure for each domain of the lane when TLS does not come about, or is not even tried because
what the domain publishes of it cannot be had. Only domains that ask for reports (`_smtp._tls`)
are counted in Redis. Mail that is to be sent in spite of TLS failures is not counted: reports
themselves are.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import structlog

from relay.delivery.addresses import reach_of
from relay.delivery.dane import Unusable
from relay.delivery.directory import Directory
from relay.delivery.plan import Plan
from relay.delivery.session import Session
from relay.delivery.tls_report_sender import TlsReportSender, wanted_by
from relay.delivery.values import Endpoint, SessionFailed
from relay.model.destination import is_in_spite_of_tls
from relay.model.errors import ResolverUnavailable, StoreError
from relay.policy.mta_sts import StsMode, StsPolicy
from relay.policy.tls_report import (
    DANE_REQUIRED,
    DNSSEC_INVALID,
    NO_STARTTLS,
    SUCCESS,
    TLSA_INVALID,
    VALIDATION_FAILURE,
    Failure,
    Policy,
    day_of,
    field_of,
    result_of,
)
from relay.settings.schema import TlsPolicy
from relay.store.tls_counts import TlsCounts
from relay.store.work import Work

#: How often counts go to Redis, and how often reports that are due are looked for.
FLUSH_EVERY_S, SEND_EVERY_S = 2.0, 30.0
#: Domains with counts, and failed sessions, that wait for the next flush at most.
PENDING_KEPT = 10_000
#: Domains of a lane to which a failure of it is counted.
DOMAINS_OF_LANE = 50

_log = structlog.get_logger("relay.tls_report")

#: A policy, None: what MTA-STS says, and a result in text form.
_Result = tuple[Policy | None, str]


class TlsResults:
    """One for a process, on its loop: it takes note of what it is told, `run` does the rest."""

    def __init__(self, directory: Directory, work: Work) -> None:
        self._directory = directory
        self._work = work
        self._counts = TlsCounts(work.store)
        self._sender = TlsReportSender(directory, work)
        self._pending: dict[tuple[str, str], Counter[_Result]] = {}
        self._failed: list[tuple[str, str, _Result]] = []
        self._looked = ("", float("-inf"))

    def opened(self, domain: str, session: Session, plan: Plan) -> None:
        """A session begins to carry the domain's mail."""
        if plan.dialogue.tls is TlsPolicy.OFF or plan.is_by_smarthost:
            return
        endpoint, why = session.endpoint, session.clear_because or session.unverified_because
        policy = _of_tlsa(endpoint)
        if policy is not None and not endpoint.tlsa:
            text = "none of the TLSA records is usable"
            self._note(domain, policy, field_of(_failure(session, plan, TLSA_INVALID, text)))
        elif session.tls and not why:
            self._note(domain, policy, SUCCESS + endpoint.host)
        else:
            is_tried = session.tls or session.clear_because
            result = result_of(why) if is_tried else NO_STARTTLS
            self._note(domain, policy, field_of(_failure(session, plan, result, why)))

    def failed(self, endpoint: Endpoint, failed: SessionFailed, plan: Plan) -> None:
        """TLS did not come about, and so the session did not."""
        if failed.phase != "tls" or plan.is_by_smarthost:
            return
        words = str(failed.reply or failed.cause or "")
        result = NO_STARTTLS if failed.reply is not None else result_of(words)
        source = plan.dialogue.source_address or failed.local_address
        failure = _failure_with(endpoint, source, result, words)
        self._note_lane(str(plan.lane), _of_tlsa(endpoint), failure)

    def without_tlsa(self, lane: str, host: str, why: Unusable) -> None:
        """A host of the lane is not used: its TLSA records cannot be had, or are missing."""
        result = DNSSEC_INVALID if why.kind == "unknown" else DANE_REQUIRED
        failure = Failure(result, host, reason=_short(why.text))
        self._note_lane(lane, Policy("tlsa", (), (host,), host), failure)

    def not_admitted(self, domain: str, why: str) -> None:
        """The domain's MTA-STS policy admits none of its hosts."""
        failure = Failure(VALIDATION_FAILURE, reason=_short(why))
        self._note(domain, None, field_of(failure))

    def not_authentic(self, domain: str, why: str) -> None:
        """A route demands DANE, and DNSSEC does not vouch for the domain's MX records."""
        failure = Failure(DANE_REQUIRED, reason=_short(why))
        self._note(domain, Policy("tlsa"), field_of(failure))

    def _note_lane(self, lane: str, policy: Policy | None, failure: Failure) -> None:
        if len(self._failed) < PENDING_KEPT:
            self._failed.append((self._today(), lane, (policy, field_of(failure))))

    def _note(self, domain: str, policy: Policy | None, field: str, day: str = "") -> None:
        if is_in_spite_of_tls(domain):
            return
        key = (day or self._today(), domain)
        if key not in self._pending and len(self._pending) >= PENDING_KEPT:
            return
        self._pending.setdefault(key, Counter())[policy, field] += 1

    def _today(self) -> str:
        return day_of(self._work.store.clock.now())

    async def run(self) -> None:
        """Flush and send until cancelled, through every absence of the store.

        Side by side: who takes a minute to take a report must not keep counts from the store.
        """
        await asyncio.gather(self._repeat(self.flush), self._repeat(self._send))

    async def _repeat(self, do: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            try:
                await do()
            except StoreError as error:
                _log.debug("tls_report.put_off", detail=str(error))
            except Exception:  # it must not end: nobody else counts
                _log.exception("tls_report.failed")

    async def _send(self) -> None:
        """Look for reports that are due, now and then, and when a day has ended."""
        loop = asyncio.get_running_loop()
        today, (day, at) = self._today(), self._looked
        if today == day and loop.time() < at + SEND_EVERY_S:
            return
        self._looked = (today, loop.time())
        if await self._sender.send_due():
            self._looked = (today, float("-inf"))

    async def flush(self) -> None:
        """Write what was noted to Redis; StoreError, and what is left is written later."""
        await self._spread_failures()
        today = self._today()
        pending, self._pending = self._pending, {}
        try:
            while pending:
                (day, domain), counts = next(iter(pending.items()))
                is_late = day != today and await self._counts.is_made(day, domain)
                if not is_late and await self._is_wanted(domain):
                    for policy, held in (await self._by_policy(domain, counts)).items():
                        await self._counts.add(day, domain, msgspec.json.encode(policy), held)
                del pending[day, domain]
        finally:
            for key, counts in pending.items():
                self._pending.setdefault(key, Counter()).update(counts)

    async def _spread_failures(self) -> None:
        """Note what failed on a lane for the domains that wait there."""
        failures, self._failed = self._failed, []
        try:
            while failures:
                day, lane, (policy, field) = failures[-1]
                for domain in await self._work.destinations_of(lane, DOMAINS_OF_LANE):
                    self._note(domain, policy, field, day)
                failures.pop()
        finally:
            self._failed += failures

    async def _is_wanted(self, domain: str) -> bool:
        """Whether anybody wants the domain's reports."""
        try:
            return bool(await wanted_by(domain, self._directory.resolver))
        except ResolverUnavailable:
            return False

    async def _by_policy(self, domain: str, counts: Counter[_Result]) -> dict[Policy, Counter[str]]:
        """The results by the policy that they were held to.

        Where the present MTA-STS policy cannot be had, sessions go without, or by one that was
        fetched earlier: they count for what became of them, and as failures of the fetch.
        """
        sts = self._directory.sts
        policy, unfetched, words = await sts.known(domain) if sts is not None else (None, "", "")
        if policy is not None and policy.mode is StsMode.NONE:
            policy = None
        held = Policy() if policy is None else _of_sts(policy)
        found: dict[Policy, Counter[str]] = {}
        for (applied, field), count in counts.items():
            if applied is not None:
                kept = SUCCESS if field.startswith(SUCCESS) else field
                found.setdefault(applied, Counter())[kept] += count
                continue
            found.setdefault(held, Counter())[_held_to(policy, field)] += count
            if unfetched:
                failure = field_of(Failure(unfetched, reason=_short(words)))
                found.setdefault(Policy("sts"), Counter())[failure] += count
        return found


def _failure(session: Session, plan: Plan, result: str, words: str) -> Failure:
    source = plan.dialogue.source_address or session.local_address
    return _failure_with(session.endpoint, source, result, words)


def _failure_with(endpoint: Endpoint, source: str, result: str, words: str) -> Failure:
    """A failure with a host; an address of ours that it cannot see is nobody's business."""
    is_seen = bool(source) and reach_of(source) is reach_of(endpoint.address)
    return Failure(
        result, endpoint.host, endpoint.address, source if is_seen else "", _short(words)
    )


def _short(words: str) -> str:
    return " ".join(words.split())[:120]


def _of_tlsa(endpoint: Endpoint) -> Policy | None:
    """What is told of a host's TLSA records; None: it has none."""
    if endpoint.demanded_by != "dane":
        return None
    lines: Iterable[str] = (
        f"{one.usage} {one.selector} {one.matching} {one.data.hex()}" for one in endpoint.tlsa
    )
    return Policy("tlsa", tuple(lines), (endpoint.host,), endpoint.server_name).cut()


def _of_sts(policy: StsPolicy) -> Policy:
    head = ("version: STSv1", f"mode: {policy.mode.value}")
    hosts = tuple(f"mx: {pattern}" for pattern in policy.patterns)
    age = f"max_age: {policy.max_age_s}"
    return Policy("sts", (*head, *hosts[:60], age), policy.patterns).cut()


def _held_to(policy: StsPolicy | None, field: str) -> str:
    """A result, held to a policy: in testing mode mail goes to hosts that it does not admit."""
    host = field.removeprefix(SUCCESS)
    if host == field:
        return field
    if policy is None or policy.admits(host):
        return SUCCESS
    return field_of(Failure(VALIDATION_FAILURE, host, reason="not an mx of the policy"))
