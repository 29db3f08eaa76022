"""Replies and breakages become verdicts: severity × scope × reason.

Rules of this file
- The first digit of the reply decides severity (RFC 5321 §4.2.1). Texts and enhanced codes only
  refine scope and reason, except where a rule says `soft`, and where a refusal can only mean our
  route or this host: AUTH, greeting, EHLO, STARTTLS and 530 never bounce mail.
- What was read wins over how the connection ended: a 550 that arrived before the peer hung up is
  a 550, not a lost connection.
- After the final dot nothing is certain without a reply: transient, flagged `uncertain`
  (RFC 1047).
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from relay.model.errors import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    DeadlineExpired,
    LeaseLost,
    LocalProtocolError,
    NoSuchDomain,
    NullMx,
    RemoteProtocolError,
    ResolutionError,
    TlsFailed,
    TransportError,
)
from relay.model.reply import Reply
from relay.model.verdict import Scope, Severity, Verdict
from relay.policy.hints import retry_hint_s
from relay.policy.reasons import verdict
from relay.policy.rules import NO_RULES, Rules
from relay.policy.statuses import COMMAND_SCOPES, generic_meaning, subject_detail

#: Answers to these never concern a message; RFC 7504: 521 and 556 are meant for good.
_OPENING = frozenset({"greeting", "EHLO", "HELO", "LHLO", "STARTTLS"})
_FOR_GOOD = frozenset({521, 556})
#: Refusals that a change of our configuration cures, whatever their first digit says.
_OUR_ROUTE = frozenset({530, 534, 535, 538})
_EARLY_PHASES = frozenset({"connect", "greeting", "hello", "tls", "auth"})
_HOST_REASONS = frozenset({"congested", "system_full", "system_unavailable", "service_unavailable"})
_ROUTE_REASONS = frozenset({"authentication_required", "account_limit"})
_OPENING_REASONS = {
    "greeting": "greeting_rejected",
    "EHLO": "hello_rejected",
    "HELO": "hello_rejected",
    "LHLO": "hello_rejected",
    "STARTTLS": "tls_failed",
}


class Answers(Protocol):
    """What was read of one mail transaction; `replies` are those to RCPT, in order.

    `finals`, empty but in LMTP, are the answers to the content for each recipient.
    """

    @property
    def mail(self) -> Reply | None: ...
    @property
    def replies(self) -> Sequence[Reply | None]: ...
    @property
    def data(self) -> Reply | None: ...
    @property
    def final(self) -> Reply | None: ...
    @property
    def broken(self) -> BaseException | None: ...
    @property
    def finals(self) -> Sequence[Reply | None]: ...
    @property
    def dot_sent(self) -> bool: ...
    @property
    def is_local(self) -> bool: ...


def status_code(reply: Reply) -> str:
    """The enhanced status code to report: X.0.0 where it is missing or of another class."""
    digit = str(reply.code)[:1]
    if reply.enhanced and reply.enhanced.startswith(digit):
        return reply.enhanced
    return f"{digit}.0.0"


def classify_reply(
    reply: Reply, *, provider: str | None = None, rules: Rules = NO_RULES
) -> Verdict:
    """The verdict of one reply to the command that `reply.command` names; total for any reply."""
    if _is_success(reply):
        return verdict(Severity.SUCCESS, _scope_of(reply.command), "delivered", reply)
    if not 400 <= reply.code < 600:
        return verdict(Severity.TRANSIENT, _unexpected_scope(reply), "protocol_error", reply)
    rule = rules.match(reply, provider)
    if rule is not None:
        reason, scope, soft = rule.table.reason, rule.table.scope, rule.table.soft
    else:
        meaning = generic_meaning(reply.code, reply.enhanced, reply.command)
        reason, scope, soft = meaning.reason, meaning.scope or _scope_of(reply.command), False
    severity = Severity.TRANSIENT if soft or reply.is_transient else Severity.PERMANENT
    if reply.command == "AUTH" or reply.code in _OUR_ROUTE:
        severity, scope, reason = _about_route(reply, scope, reason)
    elif reply.command in _OPENING:
        severity, scope, reason = _about_host(reply, scope, reason)
    elif scope is Scope.ROUTE:
        severity = Severity.TRANSIENT  # our account (X.7.8): what is about it bounces no mail
    elif reason == "too_many_recipients" and reply.command == "RCPT":
        # RFC 5321 §4.5.3.1.10: 552 as 452; fewer recipients make any of these succeed.
        severity, scope = Severity.TRANSIENT, Scope.TRANSACTION
    hint_s = retry_hint_s(reply.text) if severity is Severity.TRANSIENT else None
    return verdict(severity, scope, reason, reply, retry_after_s=hint_s)


def _about_route(reply: Reply, scope: Scope, reason: str) -> tuple[Severity, Scope, str]:
    """A refused account: the backlog waits for the operator, whatever the first digit says."""
    if reason == "tls_required":
        return Severity.TRANSIENT, scope, reason
    if reason not in _ROUTE_REASONS:
        reason = "authentication_deferred" if reply.is_transient else "authentication_failed"
    return Severity.TRANSIENT, Scope.ROUTE, reason


def _about_host(reply: Reply, scope: Scope, reason: str) -> tuple[Severity, Scope, str]:
    """A refusal before MAIL concerns no message: the next MX host, unless it is about us."""
    for_good = reply.code in _FOR_GOOD and reply.command != "STARTTLS"
    severity = Severity.PERMANENT if for_good else Severity.TRANSIENT
    if scope in (Scope.SOURCE, Scope.PROVIDER):
        return severity, scope, reason
    if for_good:
        reason = "host_refuses_mail"
    elif reason not in _HOST_REASONS:
        reason = _OPENING_REASONS[reply.command]
    return severity, Scope.HOST, reason


def _unexpected_scope(reply: Reply) -> Scope:
    return Scope.HOST if reply.command in _OPENING else Scope.CONNECTION


def _is_success(reply: Reply) -> bool:
    return reply.is_intermediate if reply.command == "DATA" else reply.is_positive


def _scope_of(command: str) -> Scope:
    return COMMAND_SCOPES.get(command, Scope.CONNECTION)


def classify_breakage(exc: BaseException | None, phase: str, *, dot_sent: bool = False) -> Verdict:
    """The verdict of a dialogue that ended without a reply in `phase`; never permanent.

    Phases: connect, greeting, hello, tls, auth, MAIL, RCPT, DATA, content, end-of-data.
    Only a domain that does not exist or refuses all mail is permanent.
    """
    if isinstance(exc, ResolutionError):
        return _classify_resolution(exc)
    if dot_sent and not isinstance(exc, LeaseLost):
        return verdict(Severity.TRANSIENT, Scope.MESSAGE, "uncertain", uncertain=True)
    scope, reason = _breakage(exc, phase)
    return verdict(Severity.TRANSIENT, scope, reason)


def _breakage(exc: BaseException | None, phase: str) -> tuple[Scope, str]:
    scope = Scope.HOST if phase in _EARLY_PHASES else Scope.CONNECTION
    match exc:
        case LeaseLost():
            return Scope.LOCAL, "lease_lost"
        case ConnectFailed():
            return Scope.HOST, "connect_failed"
        case DeadlineExpired(phase="attempt") if scope is not Scope.HOST:
            return Scope.MESSAGE, "timeout"  # it had its time: no other host is asked
        case DeadlineExpired():
            return scope, "connect_timeout" if phase == "connect" else "timeout"
        case TlsFailed():
            return Scope.HOST, "tls_failed"
        case ConnectionLost():
            return scope, "connection_lost"
        case RemoteProtocolError():
            return scope, "protocol_error"
        case LocalProtocolError():
            return Scope.LOCAL, "local_misuse"
        case TransportError() | OSError() | EOFError():
            return scope, "connect_failed" if phase == "connect" else "connection_lost"
        case _:
            return Scope.LOCAL, "internal_error"


def _classify_resolution(exc: ResolutionError) -> Verdict:
    match exc:
        case NoSuchDomain():
            return verdict(Severity.PERMANENT, Scope.DOMAIN, "no_such_domain")
        case NullMx():
            return verdict(Severity.PERMANENT, Scope.DOMAIN, "null_mx")
        case _:
            return verdict(Severity.TRANSIENT, Scope.DOMAIN, "dns_unavailable")


def classify_session_failure(
    phase: str,
    reply: Reply | None,
    cause: BaseException | None,
    *,
    provider: str | None = None,
    rules: Rules = NO_RULES,
) -> Verdict:
    """The verdict of a session that never came to MAIL; phase as in `classify_breakage`.

    Permanent only for 521 and 556 (RFC 7504), and then about this host: the next MX decides.
    """
    if reply is not None and not reply.is_positive:
        command = {"greeting": "greeting", "hello": "EHLO", "tls": "STARTTLS", "auth": "AUTH"}
        as_answered = reply.command or command.get(phase, "greeting")
        known = Reply(reply.code, reply.enhanced, reply.lines, as_answered)
        return classify_reply(known, provider=provider, rules=rules)
    if phase == "auth" and not isinstance(cause, TransportError | OSError):
        return verdict(Severity.TRANSIENT, Scope.ROUTE, _authentication_fault(cause))
    if phase == "tls" and not isinstance(cause, ConnectionLost | DeadlineExpired):
        return verdict(Severity.TRANSIENT, Scope.HOST, "tls_failed")
    return classify_breakage(cause, phase)


def _authentication_fault(cause: BaseException | None) -> str:
    """Whose fault it is that AUTH came to no answer."""
    match cause:
        case ConfigError():
            return "credentials_unreadable"
        case RemoteProtocolError():
            return "authentication_broken"
        case _:
            return "authentication_unavailable"


def classify_loop(host: str, name: str, *, is_by_smarthost: bool) -> Verdict:
    """The verdict of a host that gives itself our own name: mail would come back to us.

    RFC 5321 §5.1, §6.3: as MX host it fails the mail (5.4.6), for the domain's MX records are
    wrong or we should know the domain; as smarthost it is our configuration, and mail waits.
    """
    text = f"Mail loops back to myself: {host} calls itself {name}, as we do."
    if is_by_smarthost:
        return Verdict(Severity.TRANSIENT, Scope.ROUTE, "routing_loop", text)
    return Verdict(Severity.PERMANENT, Scope.HOST, "routing_loop", text)


def classify_transaction(
    answers: Answers, *, provider: str | None = None, rules: Rules = NO_RULES
) -> list[Verdict]:
    """One verdict per recipient, in the order of `answers.replies`.

    A refused MAIL concerns all; a refused RCPT its recipient; accepted recipients follow DATA
    and the answer to the final dot; who got no answer defers. "Too many recipients" means the
    next transaction at once (Scope.TRANSACTION), except for the first RCPT: that would loop.
    What we judged ourselves (`is_local`) is nobody's reply.
    """
    if answers.is_local and answers.mail is not None:
        return [_own_judgement(answers.mail)] * len(answers.replies)
    if answers.mail is None or not answers.mail.is_positive:
        shared = (
            classify_reply(_named(answers.mail, "MAIL"), provider=provider, rules=rules)
            if answers.mail is not None
            else classify_breakage(answers.broken, "MAIL")
        )
        return [shared] * len(answers.replies)
    verdicts: list[Verdict] = []
    content: Verdict | None = None
    closing: Verdict | None = None
    for index, reply in enumerate(answers.replies):
        if reply is None:
            verdicts.append(closing or classify_breakage(answers.broken, "RCPT"))
        elif reply.is_positive:
            if answers.finals:
                verdicts.append(_delivery_verdict(answers, index, provider, rules))
                continue
            content = content or _content_verdict(answers, provider, rules)
            verdicts.append(content)
        else:
            refused = classify_reply(_named(reply, "RCPT"), provider=provider, rules=rules)
            closing = refused if reply.code == 421 else closing
            verdicts.append(_first_deferred(refused) if index == 0 else refused)
    return verdicts


def _own_judgement(mail: Reply) -> Verdict:
    """The verdict where the server was not even asked: its words are ours, so it has no reply."""
    judged = classify_reply(mail)
    return msgspec.structs.replace(judged, reply=None, text=f"It was not sent: {mail.text}.")


def _first_deferred(refused: Verdict) -> Verdict:
    """A first RCPT refused as one too many is an ordinary refusal: deferred, or 5yz but 552."""
    if refused.scope is not Scope.TRANSACTION or refused.reply is None:
        return refused
    permanent = refused.reply.is_permanent and refused.reply.code != 552
    severity = Severity.PERMANENT if permanent else Severity.TRANSIENT
    return verdict(
        severity,
        Scope.RECIPIENT,
        refused.reason,
        refused.reply,
        retry_after_s=refused.retry_after_s,
    )


def _content_verdict(answers: Answers, provider: str | None, rules: Rules) -> Verdict:
    """What DATA and the final dot came to, for the recipients that RCPT accepted."""
    data, final = answers.data, answers.final
    if final is not None and (answers.dot_sent or not final.is_positive):
        return classify_reply(_named(final, "end-of-data"), provider=provider, rules=rules)
    if final is not None:  # a 250 before our dot cannot be about our message
        return verdict(Severity.TRANSIENT, Scope.CONNECTION, "protocol_error", final)
    if data is not None and not data.is_intermediate:
        return classify_reply(_named(data, "DATA"), provider=provider, rules=rules)
    phase = "DATA" if data is None else "end-of-data" if answers.dot_sent else "content"
    return classify_breakage(answers.broken, phase, dot_sent=answers.dot_sent)


def _delivery_verdict(answers: Answers, index: int, provider: str | None, rules: Rules) -> Verdict:
    """LMTP: what the content came to for one recipient; who was answered has that answer."""
    final = answers.finals[index]
    if final is None:
        return _content_verdict(answers, provider, rules)
    judged = classify_reply(_named(final, "end-of-data"), provider=provider, rules=rules)
    if judged.scope not in (Scope.MESSAGE, Scope.TRANSACTION):
        return judged
    return msgspec.structs.replace(judged, scope=Scope.RECIPIENT)


def _named(reply: Reply, command: str) -> Reply:
    """The reply with its command filled in, so that its scope is right."""
    return reply if reply.command else Reply(reply.code, reply.enhanced, reply.lines, command)


def is_about_rate(reply: Reply) -> bool:
    """Whether a reply asks for less speed: 421, or X.7.28 and Microsoft's X.7.5nn, X.7.65n."""
    detail = subject_detail(reply.enhanced)
    return reply.code == 421 or detail == "7.28" or detail.startswith(("7.50", "7.65"))
