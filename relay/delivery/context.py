"""What the sessions of a worker process share: settings, rules, the store, budgets, the lease."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from random import Random
from typing import Any, Protocol

from relay.delivery.broken_hosts import BrokenHosts
from relay.delivery.directory import Directory
from relay.delivery.journal import log_outcomes
from relay.delivery.lanes import Leaver
from relay.delivery.load import Load
from relay.delivery.measures import Measures
from relay.delivery.notes import Notes
from relay.delivery.outcomes import Facts, RetryRules, unattempted
from relay.delivery.plan import Plan, plan_for
from relay.delivery.reports import with_reports
from relay.delivery.routes import Routes
from relay.delivery.routing import Unroutable
from relay.delivery.seven_bit import in_7bit
from relay.delivery.tls_results import TlsResults
from relay.delivery.values import Endpoint
from relay.model.lane import Lane
from relay.model.message import ClaimedMessage, Outcome
from relay.model.state import State
from relay.model.verdict import Scope, Severity, Verdict
from relay.policy.retry import Schedule
from relay.policy.suppress import Suppressing
from relay.policy.tls import Security
from relay.policy.window import INITIAL
from relay.settings.schema import MailClass, Settings, UncertainPolicy
from relay.store.claims import Claim
from relay.store.keys import CLASS_LETTER
from relay.store.limits import Ceilings, Rate, Report, Taken
from relay.store.settler import Settler
from relay.store.work import Work

#: Shares of a lease (15 s), counted from its last renewal by our own clock. Later than this
#: no dot is written …
DOTS_UNTIL = 2 / 3
#: … and what has sent none ends: its slots are about to be another worker's.
SESSIONS_UNTIL = 3 / 4
#: A claim takes at most so much content into memory.
CLAIM_OCTETS = 1024 * 1024
PLAN_KEPT_S = 5.0
#: A host that offers CHUNKING and failed at BDAT gets all content by DATA for so long.
BROKEN_BDAT_S = 86_400.0
#: So long after a failed connection a window grows by connections that succeed, not by messages.
SOBER_S = 60.0

EXPIRED = Verdict(
    Severity.PERMANENT, Scope.RECIPIENT, "expired", "The message was not delivered in time."
)
TOO_SLOW = Verdict(
    Severity.TRANSIENT,
    Scope.CONNECTION,
    "timeout",
    "The receiving server answered too slowly while other mail waited for the place.",
)
GIVEN_BACK = Verdict(
    Severity.TRANSIENT, Scope.LOCAL, "given_back", "The attempt was broken off on our side."
)


class LeaseView(Protocol):
    """When the lease was last renewed (monotonic seconds)."""

    @property
    def age_s(self) -> float: ...


class Lanes(Protocol):
    """What a session tells and asks about its lane."""

    def noticed(self, lane: str, claim: Claim) -> None: ...
    def may_open(self, lane: str) -> None: ...
    async def await_work(self, lane: str, claim: Claim) -> bool: ...
    def opening(self) -> AbstractAsyncContextManager[None]: ...
    def may_leave(self, leaver: Leaver) -> None: ...
    def gives_way(self) -> bool: ...
    @property
    def is_draining(self) -> bool: ...


class Context:
    """Shared by all sessions of one engine; every method is called on its loop."""

    def __init__(
        self, directory: Directory, work: Work, settler: Settler, lease: LeaseView, lanes: Lanes
    ) -> None:
        self.directory = directory
        self.work = work
        self.settler = settler
        self.measures = Measures(work.store.meter)
        self.notes = Notes(work)
        self.rules = directory.rules
        self.random = Random()
        self.tls_results = TlsResults(directory, work) if directory.settings.tls.reports else None
        self.routes = Routes(directory, work, self.random, self.tls_results)
        self.retry_rules = _retry_rules(directory.settings, self.random)
        self.broken_bdat = BrokenHosts(BROKEN_BDAT_S)
        self.broken_tls = BrokenHosts(directory.settings.tls.remember_broken)
        self.revoked: set[str] = set()
        self._lease = lease
        self._lanes = lanes
        self._octets = 0
        self._sessions = count(1)
        self._plans: dict[str, tuple[float, Plan | Unroutable]] = {}
        self._narrow: set[str] = set()
        self._failed_at: dict[str, float] = {}

    # -- plans and ceilings ------------------------------------------------------------------

    async def plan(self, lane: str) -> Plan | Unroutable | None:
        """Where a lane's sessions go, remembered for a few seconds; None: nowhere any more."""
        known = self._plans.get(lane)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        record = await self.routes.site_of(lane)
        if record is None:
            return None
        directory = self.directory
        plan: Plan | Unroutable
        if isinstance(record, Unroutable):
            plan = record
        else:
            plan = await plan_for(
                Lane.parse(lane),
                record,
                resolver=directory.resolver,
                settings=directory.settings,
                routes=directory.routes,
                shaping=directory.shaping,
                random=self.random,
                results=self.tls_results,
            )
        if len(self._plans) > 10_000:
            self._plans.clear()
        self._plans[lane] = (time.monotonic() + PLAN_KEPT_S, plan)
        return plan

    def site_breaker(self, plan: Plan) -> str:
        return f"site:{self._source(plan)}:{plan.lane.site}"

    def route_breaker(self, plan: Plan) -> str:
        """The breaker of a smarthost's account; a site that demands one we have none for rests."""
        if not plan.lane.credentials:
            return self.site_breaker(plan)
        return f"route:{plan.lane.site}:{plan.lane.credentials}"

    def tls_breaker(self, plan: Plan) -> str:
        """The breaker that failed TLS opens: where more is demanded than TLS that is offered, not
        that of the whole site, whose other mail demands less."""
        demands = Security.parse(plan.lane.security).demands
        return "~".join((self.site_breaker(plan), *demands))

    def breakers(self, plan: Plan) -> tuple[str, ...]:
        """The breakers that a session of the plan heeds."""
        own = (self.site_breaker(plan), self.route_breaker(plan), self.tls_breaker(plan))
        return tuple(dict.fromkeys(own))

    def windows(self, plan: Plan) -> dict[str, int]:
        """The feedback window's key (provider where one matches, else site) and first size."""
        return {self._feedback_key(plan): min(INITIAL, plan.shape.max_connections)}

    def ceilings(self, plan: Plan) -> Ceilings:
        """All that binds a session of the plan."""
        shape, key = plan.shape, self._feedback_key(plan)
        slots = [(key, shape.max_connections)]
        rates: tuple[Rate, ...] = ()
        if shape.connection_rate_per_s > 0:
            rates = (Rate(f"c:{key}", shape.connection_rate_per_s, shape.max_connections),)
        return Ceilings(tuple(slots), self.windows(plan), rates, self.breakers(plan))

    def message_rates(self, plan: Plan) -> tuple[Rate, ...]:
        """The rates that bind claims of the plan."""
        rate = plan.shape.message_rate_per_s
        if rate <= 0:
            return ()
        return (Rate(f"m:{self._feedback_key(plan)}", rate, max(1, int(rate))),)

    def _feedback_key(self, plan: Plan) -> str:
        source = self._source(plan)
        if plan.provider:
            return f"provider:{source}:{plan.provider}"
        return f"site:{source}:{plan.lane.site}"

    @staticmethod
    def _source(plan: Plan) -> str:
        return plan.dialogue.source_address or plan.lane.pool

    # -- lanes -------------------------------------------------------------------------------

    @property
    def is_draining(self) -> bool:
        return self._lanes.is_draining

    def new_session_id(self) -> str:
        """What a connection is called in the log."""
        return f"{self.work.holder}:{next(self._sessions)}"

    def refused(self, plan: Plan, taken: Taken) -> Taken:
        """Note why a session may not begin; the answer is passed on."""
        if taken.word == "no":
            self.measures.refused(plan, taken.reason)
            if taken.key in self.windows(plan) and taken.limit < plan.shape.max_connections:
                self._narrow.add(taken.key)
        return taken

    def is_narrow(self, plan: Plan) -> bool:
        """Whether the feedback window, not a ceiling, keeps the plan from another session.

        For a while after a failure it is said no more: the window is about right then.
        """
        key = self._feedback_key(plan)
        return (
            key in self._narrow
            and self._failed_at.get(key, float("-inf")) + SOBER_S < time.monotonic()
        )

    def narrowed(self, plan: Plan) -> None:
        """A connection failed, so the feedback window shrinks."""
        if len(self._failed_at) > 10_000:
            self._failed_at.clear()
        self._failed_at[self._feedback_key(plan)] = time.monotonic()

    def widened(self, plan: Plan) -> None:
        """The feedback window has grown: there may be room for another session."""
        self._narrow.discard(self._feedback_key(plan))
        self._lanes.may_open(str(plan.lane))

    def noticed(self, lane: str, claim: Claim, plan: Plan) -> None:
        """Tell what a claim showed of the backlog, or what kept it from mail."""
        if claim.reason:
            self.measures.refused(plan, claim.reason)
            self.notes.waiting(lane, self._feedback_key(plan), claim)
        self._lanes.noticed(lane, claim)

    async def await_work(self, lane: str, claim: Claim) -> bool:
        """Wait, keeping the session warm, until the lane may have work; False: give up."""
        return await self._lanes.await_work(lane, claim)

    @asynccontextmanager
    async def opening(self, plan: Plan, endpoint: Endpoint) -> AsyncIterator[None]:
        """While a session opens; TimeoutError when it has to give up its place."""
        async with self._lanes.opening():
            with self.notes.opening(str(plan.lane), endpoint.host, endpoint.address):
                yield

    def may_leave(self, leaver: Leaver) -> None:
        """The running session may be cancelled when this says so."""
        self._lanes.may_leave(leaver)

    def gives_way(self) -> bool:
        """Whether it was."""
        return self._lanes.gives_way()

    async def rest(self, lane: str, refused: Unroutable) -> None:
        """No host of the lane has an address at present, or what it demands: let the site rest, or
        the lane alone."""
        verdict = refused.verdict
        if verdict.scope is not Scope.LOCAL and not refused.by_demand:
            key = f"site:{Lane.parse(lane).pool}:{Lane.parse(lane).site}"
            await self.work.report(Report((), ((key, False, verdict.reason, verdict.text),)))
        await self.work.park_lane(lane, refused.retry_after_s, verdict.reason, verdict.text)

    # -- what broke off ----------------------------------------------------------------------

    @property
    def uncertain_policies(self) -> dict[str, str]:
        """What happens to a recipient whose dot was sent, by letter of its class."""
        policies = self.retry_rules.uncertain
        return {letter: policies[name].value for name, letter in CLASS_LETTER.items()}

    # -- content budget ----------------------------------------------------------------------

    def content_room(self) -> int:
        """Octets that the next claim may take."""
        left = self.directory.settings.worker.max_content - self._octets
        return max(0, min(CLAIM_OCTETS, left))

    def hold(self, load: Load) -> None:
        """Count a load's content while it is held."""
        self._octets += len(load.message.content)

    def let_go(self, load: Load, again: Load | None = None) -> None:
        """It is held no longer, but for what of it is sent again."""
        if again is not None:
            self.hold(again)
        self._octets -= len(load.message.content)
        if self.revoked:
            kept = again.recipient_ids if again is not None else ()
            self.revoked.difference_update(set(load.recipient_ids).difference(kept))

    async def sign(self, loads: Sequence[Load]) -> None:
        """Put DKIM signatures on what is held and not sent yet, where there are keys."""
        signer = self.directory.signer
        if signer is None or not signer.has_keys or not loads:
            return
        messages = {load.message.queue_id: load.message for load in loads}
        signed = await signer.sign(list(messages.values()))
        self.measures.signed(len(signed), len(messages))
        for load in loads:
            message = signed.get(load.message.queue_id)
            if message is not None:
                self._carry(load, message, len(message.content) - len(load.message.content))

    async def convert(self, loads: Sequence[Load]) -> list[Load]:
        """Those of the loads that were 8-bit and are 7-bit now, without signatures of ours.

        Which are is decided by `delivery.without_8bitmime`; what cannot be is not tried again.
        """
        delivery = self.directory.settings.delivery
        waiting = [load for load in loads if load.is_convertible]
        if not waiting or not delivery.without_8bitmime.converts:
            return []
        known: dict[str, ClaimedMessage | None] = {}
        for load in waiting:
            message = load.unsigned
            if message.queue_id not in known:
                known[message.queue_id] = await in_7bit(message, delivery)
            made = known[message.queue_id]
            if made is not None:
                self._carry(load, made, 0)
            load.stays_8bit = made is None
        self.measures.converted(known.values())
        return [load for load in waiting if not load.stays_8bit]

    def _carry(self, load: Load, message: ClaimedMessage, signature_octets: int) -> None:
        self._octets += len(message.content) - len(load.message.content)
        load.carry(message, signature_octets)

    # -- before the dot ----------------------------------------------------------------------

    def is_revoked(self, load: Load) -> bool:
        """Whether a verb (cancel, hold) took recipients of the load from us."""
        return not self.revoked.isdisjoint(load.recipient_ids)

    async def may_send(self, load: Load, holder: str) -> bool:
        """The gate before each dot: lease fresh, nothing revoked, the mark on its way to Redis.

        `holder` is the incarnation that claimed the load.
        """
        if self.is_revoked(load) or not self.may_begin(holder):
            return False
        policy = self.retry_rules.uncertain[load.message.mail_class]
        confirmed = policy is not UncertainPolicy.RETRY
        marked = await self.settler.mark(load.marks, confirmed=confirmed)
        load.dotted = marked and self.may_begin(holder)
        return load.dotted

    def may_begin(self, holder: str) -> bool:
        """Whether the lease is still this incarnation's and fresh enough for another dot.

        After a pause of ours there may be a fresh one already, and what the old one held is gone.
        """
        return self.work.holder == holder and self._lease_age() < DOTS_UNTIL

    @property
    def is_losing_lease(self) -> bool:
        """Whether the lease is so old that what we hold may soon be another's."""
        return self._lease_age() >= SESSIONS_UNTIL

    def _lease_age(self) -> float:
        """As a share of its length."""
        return self._lease.age_s / self.directory.settings.worker.lease

    # -- facts -------------------------------------------------------------------------------

    def now(self) -> float:
        """The store's clock, epoch seconds."""
        return self.work.store.clock.now()

    def facts(self, plan: Plan, **dialogue: Any) -> Facts:
        """What events tell of an attempt of this plan."""
        return Facts(
            now=self.now(),
            rules=self.retry_rules,
            provider=plan.provider,
            site=plan.lane.site,
            source=self._source(plan),
            **dialogue,
        )

    async def settle(self, outcomes: list[Outcome], messages: Sequence[ClaimedMessage]) -> None:
        """Log and count outcomes; hand them, and the reports they call for, to the settler."""
        if not outcomes:
            return
        log_outcomes(outcomes)
        self.measures.ended(outcomes, messages, self.now())
        for part, reports in with_reports(outcomes, messages, self.directory):
            await self.settler.settle(part, reports)

    def without_session(self, claim: Claim, verdict: Verdict, state: State) -> list[Outcome]:
        """Outcomes of a claim for which no packet leaves."""
        if not claim.messages:
            return []
        facts = Facts(
            now=self.now(),
            rules=self.retry_rules,
            provider="",
            site="",
            source="",
            remote={},
            tls={},
            timings={},
            dialogue="",
            has_other_host=False,
        )
        return [
            outcome
            for message in claim.messages
            for outcome in unattempted(message, verdict, facts, state)
        ]


def _retry_rules(settings: Settings, random: Random) -> RetryRules:
    retry, worker = settings.retry, settings.worker
    return RetryRules(
        schedules={
            MailClass.TRANSACTIONAL.value: Schedule.parse(
                retry.transactional, key="retry.transactional"
            ),
            MailClass.BULK.value: Schedule.parse(retry.bulk, key="retry.bulk"),
        },
        retry=retry,
        uncertain={
            MailClass.TRANSACTIONAL.value: worker.uncertain_transactional,
            MailClass.BULK.value: worker.uncertain_bulk,
        },
        random=random,
        suppressing=Suppressing(settings),
    )
