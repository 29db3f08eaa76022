"""A session's connection: opened to the first host that answers, changed when a host breaks.

What connections teach (windows, breakers) is reported here: once per connection, per trouble, and
every few successes while the window of feedback is what keeps mail waiting.
"""

import time
from collections import deque

import structlog

from relay.delivery.context import Context
from relay.delivery.host_limits import HostLimits
from relay.delivery.lanes import SLOW_S
from relay.delivery.load import Load
from relay.delivery.outcomes import FAULT_OF_HOST, NOT_THE_RECIPIENT, lacks_extension
from relay.delivery.plan import Plan
from relay.delivery.refusals import verdict_of_failure, verdict_of_loop
from relay.delivery.session import Session, SessionFailed, open_session
from relay.delivery.trace import Trace
from relay.delivery.values import Endpoint, Transaction, TransactionResult
from relay.model.errors import DeadlineExpired, LeaseLost, RemoteProtocolError
from relay.model.units import rfc3339
from relay.model.verdict import Scope, Severity, Verdict
from relay.smtp.extensions import NO_EXTENSIONS
from relay.store.limits import Report
from relay.store.views import QueueMatch

#: A queue rests so long when the receiver blames our source or sender domain.
BLAMED_REST_S = 900.0
DOMAIN_REST_S = 300.0

#: A window that keeps mail waiting is told of a connection's successes so many at a time.
SUCCESSES_TOLD = 5

_BREAKING = frozenset({Scope.SITE, Scope.PROVIDER, Scope.ROUTE})

_log = structlog.get_logger("relay.session")


class Pace:
    """How fast the peer takes mail: a claim is about one second's worth, 1 to 50 recipients."""

    def __init__(self) -> None:
        self._seconds_each = 0.1

    @property
    def batch(self) -> int:
        return max(1, min(50, int(1.0 / self._seconds_each)))

    def observe(self, recipients: int, seconds: float) -> None:
        """Take one transaction into account."""
        each = max(seconds / max(recipients, 1), 0.001)
        self._seconds_each += 0.3 * (each - self._seconds_each)


class Carrier:
    """The connection that carries a session's transactions; at most one at a time."""

    def __init__(self, plan: Plan, context: Context, token: str, *, probing: bool = False) -> None:
        """`token` is what the session's slots hang on."""
        self.plan = plan
        self._probing = probing
        self._is_vouched_for = False
        self._successes = 0
        self.pace = Pace()
        self.failure: Verdict | None = None
        #: Whether the queue of the present claim was told to rest: what is left of it is not sent.
        self.is_parked = False
        #: Of the present connection in the log, and what it took where it has carried one load.
        self.session_id = ""
        self.connect_s = 0.0
        #: Whether its host does not offer 8BITMIME.
        self.is_7bit_only = False
        self._context = context
        self._token = token
        self._holder = token.partition(":")[0]
        self._measures = context.measures
        self._results = context.tls_results
        self._told_of: set[str] = set()
        self._session: Session | None = None
        self._endpoint: Endpoint | None = None
        self._next = 0
        self._sent = 0
        self._limits = HostLimits(NO_EXTENSIONS, plan.shape.mails_per_connection)
        self._promised: Transaction | None = None
        self._is_spent = False
        self._load: Load | None = None

    @property
    def remote(self) -> dict[str, object]:
        """Host, ip and port of the present connection."""
        return dict(self._session.remote) if self._session is not None else {}

    @property
    def tls(self) -> dict[str, object]:
        return dict(self._session.tls) if self._session is not None else {}

    @property
    def clear_because(self) -> str:
        """Which failure of TLS made the present connection one in clear; mostly none."""
        return self._session.clear_because if self._session is not None else ""

    def is_promised(self, load: Load) -> bool:
        """Whether the peer has been told of this transaction already."""
        return self._promised is load.transaction

    def has_other_host(self, load: Load) -> bool:
        """Whether a host is left that this load has not been broken by."""
        return any(item.address not in load.tried for item in self.plan.endpoints)

    def cut_first(self, loads: deque[Load]) -> None:
        """Make the first load no larger than the host takes at once; the rest follows it."""
        self._limits.cut_first(loads)

    def takes(self, load: Load) -> bool:
        """Whether the host takes a load on this connection; else the next one is for it."""
        if self._limits.takes(load):
            return True
        self._is_spent = True
        return False

    async def is_ready(self) -> bool:
        """A usable connection, opening one where needed; False: none is to be had now."""
        if self.failure is not None or self._context.is_draining:
            return False
        if not self._context.may_begin(self._holder):
            return False  # our slots are gone, or soon are, with the lease that they hang on
        session = self._session
        if session is not None:
            full = self._sent >= self._limits.mails and self._promised is None
            alive = self._promised is not None or session.is_idle_alive()
            if session.is_usable and not full and alive and not self._is_spent:
                return True
            await self._drop(polite=session.is_usable)
        return await self._open()

    async def _open(self) -> bool:
        """Try the hosts in order, beginning with the one that worked or is next in line."""
        endpoints, verdicts = self.plan.endpoints, list[Verdict]()
        for step in range(len(endpoints)):
            position = (self._next + step) % len(endpoints)
            try:
                async with self._context.opening(self.plan, endpoints[position]):
                    self._session = await open_session(
                        endpoints[position], self.plan.dialogue, self._context.broken_tls
                    )
            except SessionFailed as failed:
                verdicts.append(self._refused(endpoints[position], failed))
                if verdicts[-1].scope is Scope.ROUTE:
                    break
                continue
            except TimeoutError:
                silence = DeadlineExpired("greeting", SLOW_S)
                verdicts.append(
                    self._refused(endpoints[position], SessionFailed("greeting", cause=silence))
                )
                break
            self._measures.opened(self.plan, self._session.timings, self._session.tls)
            looped = verdict_of_loop(self.plan, self._session)
            if looped is not None:
                verdicts.append(looped)
                await self._leave_ourselves(endpoints[position], looped)
                break  # all hosts that follow are no better than we are
            self._next, self._endpoint, self._sent = position, endpoints[position], 0
            mails = self.plan.shape.mails_per_connection
            self._limits = HostLimits(self._session.extensions, mails)
            self.is_7bit_only = not self._session.extensions.eight_bit_mime
            if self._session.extensions.chunking and self._is_bdat_forgone(endpoints[position]):
                self._session.forgo_chunking()
            self._is_vouched_for, self._successes, self._is_spent = False, 0, False
            self._told_of.clear()
            self.session_id = self._context.new_session_id()
            return True
        self.failure = _of_all(verdicts)
        if self.failure is not None and not self.is_refused_for_good:
            await self._report(good=False, verdict=self.failure)
        return False

    def _is_bdat_forgone(self, endpoint: Endpoint) -> bool:
        return not self.plan.dialogue.chunking or bool(self._context.broken_bdat.why(endpoint))

    @property
    def is_refused_for_good(self) -> bool:
        """Whether every host takes no mail at all (521, 556; RFC 7504), or is ourselves."""
        failure = self.failure
        return (
            failure is not None
            and failure.severity is Severity.PERMANENT
            and failure.scope is Scope.HOST
        )

    async def _leave_ourselves(self, endpoint: Endpoint, looped: Verdict) -> None:
        """A host with our own name takes no mail of ours: it would come back."""
        await self._drop(polite=True)
        _log.warning(
            "session.loop",
            mx_host=endpoint.host,
            mx_ip=endpoint.address,
            site=self.plan.lane.site,
            text=looped.text,
        )

    def _refused(self, endpoint: Endpoint, failed: SessionFailed) -> Verdict:
        self._measures.not_opened(self.plan, failed)
        if self._results is not None:
            self._results.failed(endpoint, failed, self.plan)
        verdict = verdict_of_failure(self.plan, endpoint, failed, self._context.rules)
        _log.info(
            "session.failed",
            mx_host=endpoint.host,
            mx_ip=endpoint.address,
            site=self.plan.lane.site,
            phase=failed.phase,
            reason=verdict.reason,
            detail=str(failed.reply or failed.cause or ""),
        )
        return verdict

    async def send(self, load: Load, following: Load | None) -> TransactionResult:
        """One transaction; the connection is given up when it broke."""
        assert self._session is not None and self._endpoint is not None
        context = self._context
        began = time.monotonic()
        self.connect_s = sum(self._session.timings.values()) if self._sent == 0 else 0.0
        self._load = load
        if self._results is not None:
            self._tell_tls(load.recipients[0].destination, self._session)
        announced = following.transaction if following and self._may_announce(following) else None
        trace: Trace | None = None
        if load.message.is_traced:
            trace = Trace(load, self._session, self.session_id, context.work)
        result = await self._session.transact(
            load.transaction,
            before_dot=lambda: context.may_send(load, self._holder),
            following=announced,
            watch=trace.watch if trace is not None else None,
        )
        if trace is not None:
            await trace.end(result)
        self._load = None
        self._sent += 1
        self._measures.transacted(result)
        self.pace.observe(len(load.recipients), time.monotonic() - began)
        self._promised = self._session.announced if result.broken is None else None
        if not self._session.is_usable and not isinstance(result.broken, LeaseLost):
            self._blame(load, result)
        return result

    def _tell_tls(self, domain: str, session: Session) -> None:
        """Count the session for a domain whose mail it carries, once."""
        if domain not in self._told_of and self._results is not None:
            self._told_of.add(domain)
            self._results.opened(domain, session, self.plan)

    def _may_announce(self, following: Load) -> bool:
        """Whether the next load may be told to the peer behind this one's dot."""
        if self.is_parked or self._sent + 2 > self._limits.mails:
            return False
        return self._limits.takes(following)

    def _blame(self, load: Load, result: TransactionResult) -> None:
        """A host that broke a load is not tried again for it.

        A connection that had carried mail and ended, with or without a 421, before it took this
        load is nobody's fault: the same host is asked again, once. So is one that failed at BDAT,
        by DATA then.
        """
        assert self._endpoint is not None
        if result.is_broken_in_chunks:
            self._context.broken_bdat.remember(self._endpoint, str(result.broken))
            is_unknown = isinstance(result.broken, RemoteProtocolError)
            if is_unknown and not load.reconnected and not result.dot_sent:
                load.reconnected = True
                return
        if result.final is not None and result.final.is_positive:
            return  # what ended the connection came after this load, about the next one
        untouched = result.mail is None or result.mail.code == 421
        if self._sent > 1 and untouched and not load.reconnected and not result.dot_sent:
            load.reconnected = True
            return
        self._pass_over(load)

    def weigh(self, load: Load, verdicts: list[Verdict]) -> None:
        """A host that says it cannot take mail now gets no more of it on this connection.

        Whoever it refused so goes to another host in this attempt, as if it had not answered; so
        does what needs an extension that the host does not offer.
        """
        if self._session is None or not self._session.is_usable:
            return  # it broke, and was blamed for that
        is_about_host = any(map(_is_about_host, verdicts))
        if is_about_host or any(map(lacks_extension, verdicts)):
            self._pass_over(load)
            if is_about_host or self.has_other_host(load):
                self._is_spent, self._promised = True, None

    def _pass_over(self, load: Load) -> None:
        """The load goes to another host; one that comes round to the same has had them all."""
        assert self._endpoint is not None
        comes_round = self._endpoint.address in load.tried
        passed = self.plan.endpoints if comes_round else (self._endpoint,)
        load.tried |= {endpoint.address for endpoint in passed}
        self._next = (self._next + 1) % len(self.plan.endpoints)

    def is_dispensable(self) -> bool:
        """Whether mail is being sent and could be given back: its dot was not sent."""
        return self._load is not None and not self._load.dotted

    def is_past_dot(self) -> bool:
        """Whether the peer has the final dot: its reply is worth waiting for."""
        session = self._session
        is_heard = session is not None and not session.is_unheard
        return self._load is not None and self._load.dotted and is_heard

    async def fail(self, verdict: Verdict) -> None:
        """End the session's work by a verdict from outside; what it has goes back to ready."""
        self.failure = verdict
        await self._report(good=False, verdict=verdict)

    async def heed(self, load: Load, verdicts: list[Verdict]) -> None:
        """Let rest what the verdicts blame beyond the recipients; else the connection is good."""
        self._measures.judged(self.plan, verdicts)
        for verdict in verdicts:
            if verdict.severity is Severity.SUCCESS or verdict.scope not in NOT_THE_RECIPIENT:
                continue
            if verdict.scope is Scope.LOCAL:
                return
            if verdict.scope in (Scope.SITE, Scope.PROVIDER, Scope.ROUTE):
                self.failure = verdict
                await self._report(good=False, verdict=verdict)
            elif verdict.severity is Severity.TRANSIENT or verdict.scope is not Scope.DOMAIN:
                await self._park(load, verdict)
            return
        if self._is_spent:
            if all(map(_is_about_host, verdicts)) and not self.has_other_host(load):
                await self.fail(verdicts[0])
            return
        self._successes = min(self._successes + 1, SUCCESSES_TOLD)
        is_told = self._successes == SUCCESSES_TOLD and self._context.is_narrow(self.plan)
        if is_told or not self._is_vouched_for:
            self._is_vouched_for = True
            await self._report(good=True)

    async def _park(self, load: Load, verdict: Verdict) -> None:
        domain = verdict.scope is Scope.DOMAIN
        rest_s = verdict.retry_after_s or (DOMAIN_REST_S if domain else BLAMED_REST_S)
        message = load.message
        match = QueueMatch(
            mail_class=message.mail_class,
            tenant=message.tenant,
            campaign=message.campaign,
            destination=load.recipients[0].destination,
        )
        self.is_parked = True
        _log.warning("queue.parked", reason=verdict.reason, text=verdict.text, rest_s=rest_s)
        await self._context.work.store.park(
            match, for_s=rest_s, reason=verdict.reason, text=verdict.text
        )

    async def _report(self, *, good: bool, verdict: Verdict | None = None) -> None:
        context, plan = self._context, self.plan
        is_of_site = verdict is None or self._breaker_of(verdict) == context.site_breaker(plan)
        is_route = verdict is not None and verdict.scope is Scope.ROUTE
        breakers: tuple[tuple[str, bool, str, str], ...] = ()
        if good and self._probing:
            self._probing = False
            breakers = tuple((key, True, "", "") for key in context.breakers(plan))
        elif verdict is not None:
            key = self._breaker_of(verdict)
            reply = f" ({verdict.reply})" if verdict.reply is not None else ""
            breakers = ((key, False, verdict.reason, verdict.text + reply),)
        windows = tuple(
            (key, self._successes if good else 0, plan.shape.max_connections, initial)
            for key, initial in context.windows(plan).items()
            if is_of_site and not is_route  # an account's fault, or that of a demand, is not theirs
        )
        text = verdict.text if verdict is not None else ""
        # What one session of several met says nothing of the site, unless it says so itself.
        is_said = verdict is not None and verdict.scope in _BREAKING
        lane = "" if is_said else str(plan.lane)
        is_silent = verdict is not None and verdict.reply is None
        report = Report(windows, breakers, lane, self._token, is_silent)
        self._successes = 0
        if not good and windows:
            context.narrowed(plan)
        for key, word, until in await context.work.report(report):
            if word == "wider":
                context.widened(plan)
                continue
            _log.warning("site.breaker", key=key, state=word, until=rfc3339(until), text=text)

    def _breaker_of(self, verdict: Verdict) -> str:
        if verdict.scope is Scope.ROUTE:
            return self._context.route_breaker(self.plan)
        if verdict.reason == "tls_failed":
            return self._context.tls_breaker(self.plan)
        return self._context.site_breaker(self.plan)

    async def _drop(self, *, polite: bool) -> None:
        session, self._session = self._session, None
        self._promised = None
        if session is None:
            return
        self._measures.closed(self.plan)
        if polite:
            await session.close()
        else:
            # Gone before another one is opened: the receiver is to count one.
            session.abort()
            await session.wait_closed()

    async def close(self) -> None:
        """End the connection."""
        session = self._session
        polite = session is not None and session.is_usable and self._promised is None
        await self._drop(polite=polite)


def _is_about_host(verdict: Verdict) -> bool:
    """Whether it is the host, or the connection to it, that takes no mail now."""
    return verdict.severity is Severity.TRANSIENT and verdict.scope in FAULT_OF_HOST


def _of_all(verdicts: list[Verdict]) -> Verdict | None:
    """What the hosts' refusals come to: one that may pass outweighs those that will not."""
    passing = [item for item in verdicts if item.severity is not Severity.PERMANENT]
    return next(reversed(passing or verdicts), None)
