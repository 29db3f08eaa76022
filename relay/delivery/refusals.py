"""What it means that a host gave us no session: one judgement for deliveries and for probes."""

import msgspec

from relay.delivery.plan import Plan
from relay.delivery.session import Session
from relay.delivery.values import Endpoint, SessionFailed
from relay.model.verdict import Scope, Severity, Verdict
from relay.policy.classify import classify_loop, classify_session_failure
from relay.policy.mx import host_name
from relay.policy.reasons import verdict as verdict_of
from relay.policy.rules import Rules

#: What a recipient domain publishes of TLS, as it is called where it is told of.
_PUBLISHED = {
    "mta-sts": "the domain's MTA-STS policy demands it",
    "dane": "its TLSA records demand it",
}


def verdict_of_failure(
    plan: Plan, endpoint: Endpoint, failed: SessionFailed, rules: Rules
) -> Verdict:
    """The verdict of a session that did not come about; its sentence names host and cause."""
    published = _why_tls(plan, endpoint, failed)
    if published is not None:
        return published
    verdict = classify_session_failure(
        failed.phase,
        failed.reply,
        failed.cause,
        provider=plan.provider or None,
        rules=rules,
    )
    if failed.reply is None and failed.cause is not None:
        return _with(verdict, f"{endpoint.host} [{endpoint.address}]: {failed.cause}"[:200])
    return verdict


def _why_tls(plan: Plan, endpoint: Endpoint, failed: SessionFailed) -> Verdict | None:
    """The verdict where TLS did not come about that the recipient domain itself demands."""
    demanded_by = endpoint.demanded_by or plan.dialogue.demanded_by
    if failed.phase != "tls" or not demanded_by:
        return None
    failure = verdict_of(Severity.TRANSIENT, Scope.HOST, "tls_failed", failed.reply)
    what = str(failed.reply or failed.cause or "it did not come about")[:200]
    who = f"{endpoint.host} [{endpoint.address}]: {what}; {_PUBLISHED[demanded_by]}"
    return _with(failure, who)


def _with(verdict: Verdict, who: str) -> Verdict:
    text = f"{verdict.text.removesuffix('.')} ({who})."
    return msgspec.structs.replace(verdict, text=text)


def verdict_of_loop(plan: Plan, session: Session) -> Verdict | None:
    """The verdict of a host that calls itself what we are called (RFC 5321 §5.1); None: none."""
    name, own = session.server_name, plan.own_name
    if not name or host_name(name) != host_name(own):
        return None
    return classify_loop(session.endpoint.host, own, is_by_smarthost=plan.is_by_smarthost)
