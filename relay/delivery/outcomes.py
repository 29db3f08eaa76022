"""Verdicts become outcomes: who is delivered, who failed, who waits, and for how long.

DESIGN: recipient and message wait by the retry schedule; connection and host give way to the next
host of the same attempt; site, provider, domain, source, sender and route cost the recipient no
step: it goes back to ready and what is at fault rests (see `carrier.heed`).
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import msgspec

from relay.delivery.load import Load
from relay.model.message import ClaimedMessage, ClaimedRecipient, Outcome
from relay.model.state import State
from relay.model.verdict import Scope, Severity, Verdict
from relay.policy.retry import Schedule, delay
from relay.policy.suppress import Suppressing
from relay.settings.schema import Retry, UncertainPolicy

#: Scopes whose trouble is not the recipient's: an internal wait, no step (DESIGN §6).
NOT_THE_RECIPIENT = frozenset(
    {
        Scope.SITE,
        Scope.PROVIDER,
        Scope.DOMAIN,
        Scope.SOURCE,
        Scope.SENDER,
        Scope.ROUTE,
        Scope.LOCAL,
    }
)
#: Scopes whose trouble is the host's: another one is asked in the same attempt.
FAULT_OF_HOST = frozenset({Scope.CONNECTION, Scope.HOST})
#: What one host of a site may lack and another have: it fails the mail when all of them lack it.
_MAY_BE_ELSEWHERE = frozenset({"smtputf8_unsupported", "feature_unsupported", "tls_required"})
#: A permanent answer of these scopes is about us, not about the mail: never bounce the backlog.
_FAULT_OF_OURS = frozenset({Scope.SOURCE, Scope.SENDER, Scope.ROUTE, Scope.PROVIDER, Scope.SITE})

#: Our own faults would come again at once, without end: such mail waits by the schedule.
_FAULTS_OF_RELAY = frozenset({"local_misuse", "internal_error"})

_EVENT_OF = {
    State.DELIVERED: "recipient.delivered",
    State.FAILED: "recipient.failed",
    State.EXPIRED: "recipient.expired",
    State.DEFERRED: "recipient.deferred",
    State.HELD: "recipient.held",
}


class RetryRules(msgspec.Struct, frozen=True):
    """The schedules by class, the jitter, what to do where the last reply is unknown, and what a
    failure means for the suppression list.
    """

    schedules: dict[str, Schedule]
    retry: Retry
    uncertain: dict[str, UncertainPolicy]
    random: Random
    suppressing: Suppressing


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What an event tells besides the verdict; `has_other_host` decides fail-over.

    `timings`: seconds by phase of the transaction; `connect_s`: what opening its session took,
    where it was the first one on it; `session_id` names that session in the log.
    `success_action`: as in `Outcome`.
    """

    now: float
    rules: RetryRules
    provider: str
    site: str
    source: str
    remote: dict[str, Any]
    tls: dict[str, Any]
    timings: dict[str, float]
    dialogue: str
    has_other_host: bool
    success_action: str = "relayed"
    session_id: str = ""
    connect_s: float = 0.0
    clear_because: str = ""


def lacks_extension(verdict: Verdict) -> bool:
    """Whether we did not ask the host, because it offers no extension that the mail needs."""
    return verdict.reply is None and verdict.reason in _MAY_BE_ELSEWHERE


def conclude(
    load: Load, verdicts: Sequence[Verdict], facts: Facts
) -> tuple[list[ClaimedRecipient], list[Outcome]]:
    """Which recipients go into another transaction of this attempt, and the others' outcomes."""
    again: list[ClaimedRecipient] = []
    outcomes: list[Outcome] = []
    for recipient, verdict in zip(load.recipients, verdicts, strict=True):
        if _goes_on(verdict, facts):
            again.append(recipient)
        else:
            outcomes.append(_outcome(load.message, recipient, verdict, facts))
    return again, outcomes


def _goes_on(verdict: Verdict, facts: Facts) -> bool:
    if lacks_extension(verdict):
        return facts.has_other_host
    if verdict.severity is not Severity.TRANSIENT or verdict.uncertain:
        return False
    if verdict.scope is Scope.TRANSACTION:
        return True
    return verdict.scope in FAULT_OF_HOST and facts.has_other_host


def _outcome(
    message: ClaimedMessage, recipient: ClaimedRecipient, verdict: Verdict, facts: Facts
) -> Outcome:
    if verdict.uncertain:
        return _uncertain(message, recipient, verdict, facts)
    if verdict.severity is Severity.SUCCESS:
        return _make(message, recipient, verdict, facts, State.DELIVERED)
    if verdict.severity is Severity.PERMANENT and verdict.scope not in _FAULT_OF_OURS:
        return _make(message, recipient, verdict, facts, State.FAILED)
    if verdict.scope in NOT_THE_RECIPIENT and verdict.reason not in _FAULTS_OF_RELAY:
        return _make(message, recipient, verdict, facts, State.READY)
    return _deferred(message, recipient, verdict, facts)


def _deferred(
    message: ClaimedMessage, recipient: ClaimedRecipient, verdict: Verdict, facts: Facts
) -> Outcome:
    rules = facts.rules
    delay_s = delay(
        recipient.step,
        verdict,
        schedule=rules.schedules[message.mail_class],
        first_after_rcpt_s=rules.retry.first_after_rcpt,
        jitter=rules.retry.jitter,
        random=rules.random,
    )
    if delay_s is None or message.expires <= facts.now:
        return _make(message, recipient, verdict, facts, State.EXPIRED)
    return _make(message, recipient, verdict, facts, State.DEFERRED, delay_s=delay_s)


def _uncertain(
    message: ClaimedMessage, recipient: ClaimedRecipient, verdict: Verdict, facts: Facts
) -> Outcome:
    policy = facts.rules.uncertain[message.mail_class]
    if policy is UncertainPolicy.ASSUME_DELIVERED:
        outcome = _make(message, recipient, verdict, facts, State.DELIVERED)
    elif policy is UncertainPolicy.HOLD:
        outcome = _make(message, recipient, verdict, facts, State.HELD)
    else:
        outcome = _deferred(message, recipient, verdict, facts)
    events = ("recipient.uncertain", *outcome.events)
    outcome.event["policy"] = str(policy)
    return msgspec.structs.replace(outcome, events=events[:2])


def _make(
    message: ClaimedMessage,
    recipient: ClaimedRecipient,
    verdict: Verdict,
    facts: Facts,
    state: State,
    *,
    delay_s: float = 0.0,
) -> Outcome:
    is_event, consequence = state is not State.READY, None
    if state is State.FAILED:
        consequence = facts.rules.suppressing.after_failure(verdict.reason)
    return Outcome(
        queue_id=message.queue_id,
        number=recipient.number,
        attempt=recipient.attempt,
        state=state,
        verdict=verdict,
        delay_s=delay_s,
        advance=state is State.DEFERRED,
        provider=facts.provider or "other",
        events=(_EVENT_OF[state],) if is_event else (),
        event=_event(message, recipient, verdict, facts, state, delay_s) if is_event else {},
        told=_told(message, recipient, facts) if is_event else {},
        success_action=facts.success_action,
        consequence=consequence,
    )


def _event(
    message: ClaimedMessage,
    recipient: ClaimedRecipient,
    verdict: Verdict,
    facts: Facts,
    state: State,
    delay_s: float,
) -> dict[str, Any]:
    """The event's data as in the contract (operators' notes §2.1)."""
    reply = verdict.reply
    data: dict[str, Any] = {
        "recipient_id": f"{message.queue_id}.{recipient.number}",
        "queue_id": message.queue_id,
        "message_id": message.message_id,
        "address": recipient.address,
        "reverse_path": message.reverse_path,
        "class": message.mail_class,
        "tenant": message.tenant,
        "campaign": message.campaign,
        "tags": list(message.tags),
        "metadata": message.metadata,
        "attempt": recipient.attempt,
        "severity": str(verdict.severity),
        "scope": str(verdict.scope),
        "reason": verdict.reason,
        "text": verdict.text,
        "provider": facts.provider or "other",
        "remote": facts.remote | {"site": facts.site},
        "source": facts.source,
        "tls": facts.tls,
        "delays": facts.timings | {"in_queue": round(_in_queue_s(message, facts), 3)},
        "queued_at": message.created,
    }
    if reply is not None:
        data["reply"] = {
            "code": reply.code,
            "enhanced": reply.enhanced,
            "text": reply.text[:400],
            "command": reply.command,
        }
    if facts.clear_because:
        data["clear_because"] = facts.clear_because[:200]
    if state is State.DEFERRED:
        data["next_attempt_at"] = round(facts.now + delay_s, 3)
    if state is not State.DELIVERED:
        data["dialogue"] = facts.dialogue
    return data


def _in_queue_s(message: ClaimedMessage, facts: Facts) -> float:
    """Seconds from its acceptance until this attempt began, earlier attempts included."""
    spent_s = facts.connect_s + sum(facts.timings.values())
    return max(0.0, facts.now - message.created - spent_s)


def _told(message: ClaimedMessage, recipient: ClaimedRecipient, facts: Facts) -> dict[str, Any]:
    """The log's own fields (operators' notes §2.4), times in seconds."""
    return {
        "domain": recipient.address.rpartition("@")[2],
        "size_octets": message.size,
        "session_id": facts.session_id,
        "delay_s": round(facts.now - message.created, 3),
        "delays": {
            "in_queue": round(_in_queue_s(message, facts), 3),
            "connect": round(facts.connect_s, 4),
            "transmit": round(sum(facts.timings.values()), 4),
        },
    }


def ready_again(loads: Iterable[Load], verdict: Verdict) -> list[Outcome]:
    """Outcomes that give loads back unattempted: no step, no event."""
    return [
        Outcome(
            queue_id=load.message.queue_id,
            number=recipient.number,
            attempt=recipient.attempt,
            state=State.READY,
            verdict=verdict,
        )
        for load in loads
        for recipient in load.recipients
    ]


def unattempted(
    message: ClaimedMessage, verdict: Verdict, facts: Facts, state: State
) -> list[Outcome]:
    """Outcomes for all of a message without any packet: refused by DNS, or past its expiry."""
    return [_make(message, recipient, verdict, facts, state) for recipient in message.recipients]
