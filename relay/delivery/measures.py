"""What sessions and attempts count and time on the process' meter (`telemetry/meter.py`)."""

from collections.abc import Iterable, Mapping

from relay.delivery.plan import Plan
from relay.delivery.values import SessionFailed, TransactionResult
from relay.model.message import ClaimedMessage, Outcome
from relay.model.reply import Reply
from relay.model.state import State
from relay.model.verdict import Verdict
from relay.policy.statuses import BY_STATUS, subject_detail
from relay.telemetry.meter import OTHER, Meter

_FINAL = {"data_done": "final"}


class Measures:
    """Methods are named after what happened."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def opened(self, plan: Plan, timings: Mapping[str, float], tls: Mapping[str, object]) -> None:
        """A session is ready for MAIL."""
        provider = plan.provider or OTHER
        self._phases(timings)
        verified = ("yes" if tls.get("verified") else "no") if tls else "clear"
        self._meter.count("session", provider)
        self._meter.count("tls", plan.dialogue.tls.value, verified)
        self._meter.change("connections", provider, 1)

    def closed(self, plan: Plan) -> None:
        """A session that had been opened is gone."""
        self._meter.change("connections", plan.provider or OTHER, -1)

    def not_opened(self, plan: Plan, failed: SessionFailed) -> None:
        """A host took no session."""
        provider = plan.provider or OTHER
        self._phases(failed.timings)
        self._meter.count("session_failed", failed.phase, provider)
        if failed.reply is not None:
            self._reply(failed.reply, provider)

    def transacted(self, result: TransactionResult) -> None:
        """A transaction ended, however."""
        self._phases(result.timings)

    def judged(self, plan: Plan, verdicts: Iterable[Verdict]) -> None:
        """Each recipient of a transaction got its verdict."""
        for verdict in verdicts:
            if verdict.reply is not None:
                self._reply(verdict.reply, plan.provider or OTHER)

    def signed(self, messages: int, of: int) -> None:
        """So many of the messages of a claim have a signature, the others have no key."""
        for number, label in ((messages, "yes"), (of - messages, "no")):
            for _ in range(number):
                self._meter.count("dkim", label)

    def converted(self, made: Iterable[ClaimedMessage | None]) -> None:
        """Messages were made 7-bit for a host without 8BITMIME, or (None) could not be."""
        for message in made:
            self._meter.count("conversion", "no" if message is None else "yes")

    def refused(self, plan: Plan, limit: str) -> None:
        """A limit of ours, or a breaker, kept a session from beginning or from mail."""
        self._meter.count("throttled", limit, plan.provider or OTHER)

    def ended(
        self, outcomes: Iterable[Outcome], messages: Iterable[ClaimedMessage], now: float
    ) -> None:
        """Outcomes are about to be recorded; `now` is the store's clock."""
        created = {message.queue_id: message.created for message in messages}
        for outcome in outcomes:
            if outcome.state is State.DELIVERED:
                delay_s = max(now - created[outcome.queue_id], 0.0)
                self._meter.observe("delay", delay_s, outcome.provider)

    def _phases(self, timings: Mapping[str, float]) -> None:
        for phase, seconds in timings.items():
            self._meter.observe("attempt", seconds, _FINAL.get(phase, phase))

    def _reply(self, reply: Reply, provider: str) -> None:
        detail = subject_detail(reply.enhanced) if reply.enhanced else ""
        enhanced = "none" if not detail else reply.enhanced if detail in BY_STATUS else OTHER
        self._meter.count("reply", reply.code, enhanced, provider)
