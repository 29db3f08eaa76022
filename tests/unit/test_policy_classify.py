"""Replies and breakages become verdicts (RFC 5321 §4.2.1, RFC 3463, RFC 1047)."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    ResolverUnavailable,
    TlsFailed,
)
from relay.model.reply import Reply
from relay.model.verdict import Scope, Severity, Verdict
from relay.policy.classify import (
    classify_breakage,
    classify_loop,
    classify_reply,
    classify_session_failure,
    classify_transaction,
    is_about_rate,
    status_code,
)
from relay.policy.reasons import SENTENCES
from relay.policy.rules import Rules, load_rules
from relay.settings.files import default_rules

RULES = load_rules(default_rules())


def reply(text: str, command: str = "RCPT") -> Reply:
    """A reply of `550 5.1.1 text`."""
    code, _, rest = text.partition(" ")
    first, _, remainder = rest.partition(" ")
    is_status = first.count(".") == 2 and first.replace(".", "").isdigit()
    return Reply(
        int(code), first if is_status else None, (remainder if is_status else rest,), command
    )


class Answers(msgspec.Struct):
    """What was read of one transaction; the defaults are those of a delivery to one recipient."""

    mail: Reply | None = reply("250 ok", "MAIL")
    replies: tuple[Reply | None, ...] = (reply("250 ok"),)
    data: Reply | None = reply("354 go ahead", "DATA")
    final: Reply | None = reply("250 queued", "end-of-data")
    broken: Exception | None = None
    dot_sent: bool = True
    is_local: bool = False
    finals: tuple[Reply | None, ...] = ()


def summary(verdict: Verdict) -> tuple[str, str, str]:
    return verdict.severity.value, verdict.scope.value, verdict.reason


# ── single replies


@pytest.mark.parametrize(
    ("text", "command", "severity", "scope", "reason"),
    [
        ("250 2.1.5 ok", "RCPT", "success", "recipient", "delivered"),
        ("251 will forward", "RCPT", "success", "recipient", "delivered"),
        ("550 5.1.1 x", "RCPT", "permanent", "recipient", "no_such_mailbox"),
        ("550 x", "RCPT", "permanent", "recipient", "recipient_rejected"),
        ("551 user not local", "RCPT", "permanent", "recipient", "mailbox_moved"),
        ("550 x", "MAIL", "permanent", "message", "sender_rejected"),
        ("451 x", "MAIL", "transient", "message", "local_error"),
        ("450 x", "RCPT", "transient", "recipient", "mailbox_unavailable"),
        ("599 x", "RCPT", "permanent", "recipient", "rejected"),
        ("499 x", "end-of-data", "transient", "message", "deferred"),
        ("554 x", "end-of-data", "permanent", "message", "message_rejected"),
        ("421 shutting down", "RCPT", "transient", "connection", "service_unavailable"),
        ("452 4.3.1 x", "MAIL", "transient", "host", "system_full"),
        ("452 x", "end-of-data", "transient", "host", "system_full"),
        ("452 4.2.2 x", "RCPT", "transient", "recipient", "mailbox_full"),
        ("552 5.2.2 x", "RCPT", "permanent", "recipient", "mailbox_full"),
        ("552 5.3.4 x", "MAIL", "permanent", "message", "message_too_large"),
        ("552 x", "end-of-data", "permanent", "message", "message_too_large"),
        ("554 5.4.6 x", "end-of-data", "permanent", "message", "routing_loop"),
        ("550 5.7.26 x", "end-of-data", "permanent", "sender", "unauthenticated"),
        ("550 5.7.25 x", "end-of-data", "permanent", "source", "reverse_dns"),
        ("421 4.7.28 x", "end-of-data", "transient", "source", "rate_limited"),
        ("556 5.1.10 x", "RCPT", "permanent", "recipient", "null_mx"),
        ("571 5.7.1 x", "RCPT", "permanent", "recipient", "policy"),
    ],
)
def test_reply_is_judged_without_any_rule(
    text: str, command: str, severity: str, scope: str, reason: str
) -> None:
    assert summary(classify_reply(reply(text, command))) == (severity, scope, reason)


@pytest.mark.parametrize("code", [452, 552])
@pytest.mark.parametrize("status", ["", "4.5.3 "])
def test_too_many_recipients_concerns_the_transaction(code: int, status: str) -> None:
    verdict = classify_reply(reply(f"{code} {status}x"))
    assert summary(verdict) == ("transient", "transaction", "too_many_recipients")


@pytest.mark.parametrize("command", ["MAIL", "DATA", "end-of-data"])
def test_too_many_recipients_after_rcpt_does_not_loop_at_once(command: str) -> None:
    assert classify_reply(reply("452 4.5.3 x", command)).scope is Scope.MESSAGE


@pytest.mark.parametrize("code", [100, 0, 850, 600, 354, 334])
@pytest.mark.client_row("C21")
def test_reply_that_is_none_defers_and_drops_the_connection(code: int) -> None:
    verdict = classify_reply(Reply(code, None, ("?",), "RCPT"))
    assert summary(verdict) == ("transient", "connection", "protocol_error")


@pytest.mark.client_row("C22")
def test_positive_reply_to_data_is_a_protocol_error() -> None:
    assert classify_reply(reply("250 ok", "DATA")).reason == "protocol_error"
    assert classify_reply(reply("354 go", "DATA")).severity is Severity.SUCCESS


@pytest.mark.parametrize("code", [421, 450, 454, 501, 530, 534, 535, 550, 554])
def test_refused_auth_pauses_the_route_and_never_bounces(code: int) -> None:
    verdict = classify_reply(reply(f"{code} 5.7.8 no", "AUTH"), rules=RULES)
    assert (verdict.severity, verdict.scope) == (Severity.TRANSIENT, Scope.ROUTE)


@pytest.mark.parametrize("code", [530, 534, 535])
def test_demand_for_credentials_at_mail_pauses_the_route(code: int) -> None:
    verdict = classify_reply(reply(f"{code} no", "MAIL"))
    assert (verdict.severity, verdict.scope) == (Severity.TRANSIENT, Scope.ROUTE)


@pytest.mark.parametrize(
    "text", ["530 5.7.0 Must issue a STARTTLS command first", "451 TLS required"]
)
def test_demand_for_tls_is_cured_by_tls_and_never_bounces(text: str) -> None:
    verdict = classify_reply(reply(text, "MAIL"), rules=RULES)
    assert summary(verdict) == ("transient", "domain", "tls_required")


@pytest.mark.parametrize("command", ["greeting", "EHLO", "HELO", "STARTTLS"])
@pytest.mark.parametrize("code", [421, 450, 500, 550, 554])
def test_refusal_before_mail_concerns_the_host_and_never_bounces(command: str, code: int) -> None:
    verdict = classify_reply(reply(f"{code} spam go away", command), rules=RULES)
    assert (verdict.severity, verdict.scope) == (Severity.TRANSIENT, Scope.HOST)


@pytest.mark.parametrize("code", [521, 556])
@pytest.mark.client_row("C3")
def test_greeting_of_a_host_without_mail_is_permanent_for_that_host(code: int) -> None:
    verdict = classify_reply(reply(f"{code} no mail here", "greeting"))
    assert summary(verdict) == ("permanent", "host", "host_refuses_mail")


def test_greeting_that_blames_our_address_concerns_the_source() -> None:
    text = "554 No SMTP service IP address is block listed."
    verdict = classify_reply(reply(text, "greeting"), rules=RULES)
    assert summary(verdict) == ("transient", "source", "source_blocked")


# ── the known traps


@pytest.mark.parametrize(
    ("provider", "text", "severity", "scope", "reason"),
    [
        (
            "google",
            "550 5.2.1 The user you are trying to contact is receiving mail at a rate that "
            "prevents additional messages from being delivered.",
            "transient",
            "recipient",
            "mailbox_busy",
        ),
        (
            "google",
            "550 5.2.1 The email account that you tried to reach is inactive.",
            "permanent",
            "recipient",
            "mailbox_disabled",
        ),
        ("google", "421 5.7.32 not aligned", "transient", "sender", "alignment_failed"),
        ("google", "550 5.7.26 x", "permanent", "sender", "unauthenticated"),
        ("google", "550 5.7.27 x", "permanent", "sender", "spf_failed"),
        ("google", "550 5.7.30 x", "permanent", "sender", "dkim_failed"),
        ("google", "421 4.7.28 x", "transient", "provider", "rate_limited"),
        (
            "google",
            "421 4.7.28 Gmail has detected an unusual rate of email originating from your IP "
            "address 192.0.2.1.",
            "transient",
            "source",
            "rate_limited",
        ),
        ("google", "421 4.7.0 TLS required for RCPT domain", "transient", "domain", "tls_required"),
        ("google", "452 4.2.2 inbox is out of storage", "transient", "recipient", "mailbox_full"),
        (
            "google",
            "452 4.5.3 Your message has too many recipients.",
            "transient",
            "transaction",
            "too_many_recipients",
        ),
        ("microsoft", "550 5.7.515 Access denied", "permanent", "sender", "unauthenticated"),
        ("microsoft", "550 5.1.10 RecipientNotFound", "permanent", "recipient", "no_such_mailbox"),
        ("microsoft", "451 4.7.500 Server busy", "transient", "source", "rate_limited"),
        (
            "yahoo",
            "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred",
            "transient",
            "source",
            "rate_limited",
        ),
        ("yahoo", "554 5.7.9 Message not accepted", "permanent", "sender", "dmarc_failed"),
    ],
)
def test_known_trap_is_judged_by_its_meaning(
    provider: str, text: str, severity: str, scope: str, reason: str
) -> None:
    verdict = classify_reply(reply(text), provider=provider, rules=RULES)
    assert summary(verdict) == (severity, scope, reason)


def test_address_in_a_reply_is_not_read_as_its_meaning() -> None:
    verdict = classify_reply(reply("550 <spam@virus.example>: refused"), rules=RULES)
    assert verdict.reason == "recipient_rejected"


@pytest.mark.parametrize(
    "text",
    [
        "550 5.7.1 You are on the personal blacklist of this recipient",
        "550 5.7.1 sender blocklisted by user",
        "550 refused, see https://help.example/dkim-dmarc-spf",
        "450 4.7.1 not now, see https://help.example/dkim",
    ],
)
def test_matter_of_one_recipient_does_not_stop_the_source_or_the_sender(text: str) -> None:
    assert classify_reply(reply(text), rules=RULES).scope is Scope.RECIPIENT


def test_exact_enhanced_code_beats_a_text_for_everyone() -> None:
    verdict = classify_reply(reply("550 5.1.1 see our spam policy"), rules=RULES)
    assert verdict.reason == "no_such_mailbox"


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "end-of-data"])
def test_answer_about_our_account_bounces_no_mail_wherever_it_comes(command: str) -> None:
    verdict = classify_reply(Reply(500, "5.7.8", ("credentials invalid",), command))
    assert (verdict.severity, verdict.scope) == (Severity.TRANSIENT, Scope.ROUTE)


_CODES = st.integers(min_value=200, max_value=599)
_STATUSES = st.none() | st.from_regex(r"[245]\.[0-9]{1,2}\.[0-9]{1,3}", fullmatch=True)
_WORDS = ["spam", "user unknown", "quota", "full", "greylisted", "TLS required", "4.7.28", "rate"]
_TEXTS = st.text(max_size=60) | st.lists(st.sampled_from(_WORDS), max_size=8).map(" ".join)
_PROVIDERS = st.sampled_from([None, "google", "microsoft", "yahoo", "apple", "elsewhere"])


@given(_CODES, _STATUSES, _TEXTS, st.sampled_from(["MAIL", "RCPT", "end-of-data"]), _PROVIDERS)
@pytest.mark.client_row("C20")
def test_severity_follows_the_first_digit_unless_a_rule_is_soft(
    code: int, status: str | None, text: str, command: str, provider: str | None
) -> None:
    answer = Reply(code, status, (text,), command)
    verdict = classify_reply(answer, provider=provider, rules=RULES)
    rule = RULES.match(answer, provider)
    if code < 300:
        assert verdict.severity is Severity.SUCCESS
    elif code < 500:
        assert verdict.severity is Severity.TRANSIENT
    else:
        waits = (
            (rule is not None and rule.table.soft)
            or verdict.scope is Scope.TRANSACTION
            or verdict.scope is Scope.ROUTE
            or code in (530, 534, 535, 538)
        )
        assert verdict.severity is (Severity.TRANSIENT if waits else Severity.PERMANENT)
    assert verdict.text == SENTENCES[verdict.reason]
    assert verdict.reply is answer


@given(_CODES, _TEXTS, st.sampled_from(["greeting", "EHLO", "HELO", "STARTTLS", "AUTH"]))
def test_session_refusal_is_never_permanent_but_for_521_and_556(
    code: int, text: str, command: str
) -> None:
    verdict = classify_reply(Reply(code, None, (text,), command), rules=RULES)
    if verdict.severity is Severity.PERMANENT:
        assert code in (521, 556)
        assert command in ("greeting", "EHLO", "HELO")


# ── hints and statuses


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("450 4.2.0 Greylisted, try again in 300 seconds", 300),
        ("451 Greylisting in action, please come back in 00:04:31", 271),
        ("450 Greylisted for 5 minutes", 300),
        ("451 please retry after 10 min", 600),
        ("421 deferred for 1 hour", 3600),
        ("451 4.7.1 Retry-After: 120", 120),
        ("451 try again later", None),
        ("451 wait for 3 apples", None),
        ("451 see rfc 5321 section 4.2 and try again", None),
    ],
)
def test_hint_of_the_receiver_is_read(text: str, seconds: float | None) -> None:
    assert classify_reply(reply(text), rules=RULES).retry_after_s == seconds


def test_hint_in_a_permanent_reply_is_ignored() -> None:
    assert classify_reply(reply("550 try again in 300 seconds")).retry_after_s is None


@pytest.mark.parametrize(
    ("text", "status"),
    [("550 5.1.1 x", "5.1.1"), ("421 5.7.32 x", "4.0.0"), ("450 x", "4.0.0"), ("250 x", "2.0.0")],
)
def test_reported_status_has_the_class_of_the_reply(text: str, status: str) -> None:
    assert status_code(reply(text)) == status


def test_rate_is_recognised() -> None:
    assert is_about_rate(reply("421 x"))
    assert is_about_rate(reply("450 4.7.28 x"))
    assert is_about_rate(reply("451 4.7.650 x"))
    assert not is_about_rate(reply("450 4.2.1 x"))


# ── breakages


@pytest.mark.parametrize(
    ("exc", "phase", "scope", "reason"),
    [
        (ConnectFailed("refused"), "connect", "host", "connect_failed"),
        (OSError("unreachable"), "connect", "host", "connect_failed"),
        (DeadlineExpired("connect", 30), "connect", "host", "connect_timeout"),
        (DeadlineExpired("greeting", 300), "greeting", "host", "timeout"),
        (ConnectionLost("eof"), "greeting", "host", "connection_lost"),
        (ConnectionLost("eof"), "hello", "host", "connection_lost"),
        (TlsFailed("expired"), "tls", "host", "tls_failed"),
        (RemoteProtocolError("bogus"), "greeting", "host", "protocol_error"),
        (ConnectionLost("eof"), "MAIL", "connection", "connection_lost"),
        (ConnectionLost("eof"), "content", "connection", "connection_lost"),
        (DeadlineExpired("RCPT", 300), "RCPT", "connection", "timeout"),
        (DeadlineExpired("attempt", 1800), "RCPT", "message", "timeout"),
        (DeadlineExpired("attempt", 1800), "greeting", "host", "timeout"),
        (RemoteProtocolError("garbage"), "RCPT", "connection", "protocol_error"),
        (LeaseLost("late"), "content", "local", "lease_lost"),
        (LocalProtocolError("CR"), "RCPT", "local", "local_misuse"),
        (None, "DATA", "local", "internal_error"),
        (KeyError("bug"), "DATA", "local", "internal_error"),
    ],
)
def test_breakage_defers_with_the_scope_of_its_phase(
    exc: Exception | None, phase: str, scope: str, reason: str
) -> None:
    verdict = classify_breakage(exc, phase, dot_sent=False)
    assert summary(verdict) == ("transient", scope, reason)
    assert not verdict.uncertain


@pytest.mark.parametrize(
    "exc",
    [ConnectionLost("eof"), DeadlineExpired("data_done", 600), RemoteProtocolError("x"), None],
)
def test_breakage_after_the_dot_is_uncertain_and_stays_with_this_message(
    exc: Exception | None,
) -> None:
    verdict = classify_breakage(exc, "end-of-data", dot_sent=True)
    assert summary(verdict) == ("transient", "message", "uncertain")
    assert verdict.uncertain


@pytest.mark.parametrize(
    ("exc", "severity", "reason"),
    [
        (NoSuchDomain("x"), "permanent", "no_such_domain"),
        (NullMx("x"), "permanent", "null_mx"),
        (ResolverUnavailable("x"), "transient", "dns_unavailable"),
    ],
)
def test_resolution_failure_concerns_the_domain(exc: Exception, severity: str, reason: str) -> None:
    assert summary(classify_breakage(exc, "connect")) == (severity, "domain", reason)


@pytest.mark.parametrize(
    ("phase", "text", "cause", "scope", "reason"),
    [
        ("connect", None, ConnectFailed("refused"), "host", "connect_failed"),
        ("greeting", "554 go away", None, "host", "greeting_rejected"),
        ("greeting", "421 too busy", None, "host", "congested"),
        ("greeting", None, ConnectionLost("eof"), "host", "connection_lost"),
        ("hello", "550 bad name", None, "host", "hello_rejected"),
        ("tls", "454 not now", None, "host", "tls_failed"),
        ("tls", None, TlsFailed("expired"), "host", "tls_failed"),
        ("tls", None, None, "host", "tls_failed"),
        ("tls", None, DeadlineExpired("tls", 60), "host", "timeout"),
        ("auth", "535 5.7.8 bad", None, "route", "authentication_failed"),
        ("auth", "454 4.7.0 later", None, "route", "authentication_deferred"),
        ("auth", None, LocalProtocolError("no AUTH"), "route", "authentication_unavailable"),
        ("auth", None, RemoteProtocolError("bad 334"), "route", "authentication_broken"),
        ("auth", None, ConfigError("no such file"), "route", "credentials_unreadable"),
        ("auth", "534 5.7.9 too weak", None, "route", "authentication_failed"),
        ("auth", "538 5.7.11 needs TLS", None, "route", "authentication_failed"),
        ("auth", "504 5.5.4 unknown", None, "route", "authentication_failed"),
        ("auth", "432 4.7.12 change it", None, "route", "authentication_deferred"),
        ("auth", None, ConnectionLost("eof"), "host", "connection_lost"),
    ],
)
@pytest.mark.client_row("C2", "C8", "C24")
def test_session_failure_is_never_about_a_message(
    phase: str, text: str | None, cause: Exception | None, scope: str, reason: str
) -> None:
    answer = reply(text, "") if text else None
    verdict = classify_session_failure(phase, answer, cause, rules=RULES)
    assert summary(verdict) == ("transient", scope, reason)


# ── transactions


def test_delivery_follows_the_answer_to_the_dot() -> None:
    [verdict] = classify_transaction(Answers())
    assert verdict.severity is Severity.SUCCESS
    assert verdict.reply == Answers().final


@pytest.mark.client_row("C64")
def test_refused_mail_concerns_every_recipient() -> None:
    answers = Answers(mail=reply("550 no", "MAIL"), replies=(None, None), data=None, final=None)
    verdicts = classify_transaction(answers)
    assert [v.severity for v in verdicts] == [Severity.PERMANENT] * 2


@pytest.mark.client_row("C65")
def test_refused_mail_that_was_read_wins_over_a_lost_connection() -> None:
    answers = Answers(
        mail=reply("550 no", "MAIL"),
        replies=(None,),
        data=None,
        final=None,
        broken=ConnectionLost("eof"),
        dot_sent=False,
    )
    assert classify_transaction(answers)[0].severity is Severity.PERMANENT


@pytest.mark.client_row("C66")
def test_refused_rcpt_that_was_read_wins_over_a_lost_connection() -> None:
    answers = Answers(
        replies=(reply("554 no"), None),
        data=None,
        final=None,
        broken=ConnectionLost("eof"),
        dot_sent=False,
    )
    first, second = classify_transaction(answers)
    assert first.severity is Severity.PERMANENT
    assert summary(second) == ("transient", "connection", "connection_lost")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("552 5.3.4 message of 9 octets exceeds the limit of 5", "message_too_large"),
        ("553 5.6.7 message needs SMTPUTF8", "smtputf8_unsupported"),
        ("554 5.6.0 message contains NUL", "malformed_message"),
    ],
)
def test_what_we_judged_ourselves_is_nobodys_reply(text: str, reason: str) -> None:
    answers = Answers(mail=reply(text, "MAIL"), replies=(None, None), is_local=True)
    first, second = classify_transaction(answers, rules=RULES)
    assert first == second
    assert summary(first) == ("permanent", "message", reason)
    assert first.reply is None
    assert first.text == f"It was not sent: {text[10:]}."


@pytest.mark.client_row("C67")
def test_each_recipient_follows_its_own_reply() -> None:
    replies = (reply("250 ok"), reply("451 x"), reply("550 x"), reply("250 ok"))
    verdicts = classify_transaction(Answers(replies=replies))
    assert [v.severity.value for v in verdicts] == ["success", "transient", "permanent", "success"]


@pytest.mark.client_row("C68", "C70")
def test_all_refused_recipients_keep_their_replies_whatever_data_says() -> None:
    refused = (reply("550 x"), reply("450 x"))
    for data, final in [("503 no", None), ("554 no", None), ("354 go", "250 ok")]:
        answers = Answers(
            replies=refused,
            data=reply(data, "DATA"),
            final=reply(final, "end-of-data") if final else None,
        )
        verdicts = classify_transaction(answers)
        assert [v.severity.value for v in verdicts] == ["permanent", "transient"]


@pytest.mark.client_row("C71", "C73")
def test_one_recipient_too_many_goes_into_the_next_transaction() -> None:
    replies = (reply("250 ok"), reply("452 4.5.3 x"), reply("552 x"), reply("250 ok"))
    verdicts = classify_transaction(Answers(replies=replies))
    assert [v.scope.value for v in verdicts] == ["message", "transaction", "transaction", "message"]


@pytest.mark.parametrize(
    ("text", "severity"), [("452 4.5.3 x", "transient"), ("552 x", "transient")]
)
@pytest.mark.client_row("C72")
def test_first_recipient_too_many_is_deferred_not_repeated_at_once(
    text: str, severity: str
) -> None:
    answers = Answers(replies=(reply(text),), data=None, final=None, dot_sent=False)
    assert summary(classify_transaction(answers)[0]) == (
        severity,
        "recipient",
        "too_many_recipients",
    )


@pytest.mark.client_row("C76")
def test_421_at_rcpt_speaks_for_the_recipients_after_it() -> None:
    answers = Answers(
        replies=(reply("250 ok"), reply("421 closing"), None),
        data=None,
        final=None,
        broken=ConnectionLost("eof"),
        dot_sent=False,
    )
    verdicts = classify_transaction(answers)
    assert [v.reason for v in verdicts] == [
        "connection_lost",
        "service_unavailable",
        "service_unavailable",
    ]


@pytest.mark.client_row("C77")
def test_garbage_among_the_replies_delivers_to_nobody() -> None:
    answers = Answers(
        replies=(reply("250 ok"), None),
        data=None,
        final=None,
        broken=RemoteProtocolError("garbage"),
        dot_sent=False,
    )
    verdicts = classify_transaction(answers)
    assert {summary(v) for v in verdicts} == {("transient", "connection", "protocol_error")}


@pytest.mark.parametrize(("text", "severity"), [("451 x", "transient"), ("550 x", "permanent")])
@pytest.mark.client_row("C79")
def test_refused_data_concerns_the_accepted_recipients(text: str, severity: str) -> None:
    answers = Answers(
        replies=(reply("250 ok"), reply("450 x")),
        data=reply(text, "DATA"),
        final=None,
        dot_sent=False,
    )
    accepted, refused = classify_transaction(answers)
    assert (accepted.severity.value, accepted.scope) == (severity, Scope.MESSAGE)
    assert refused.scope is Scope.RECIPIENT


def test_refusal_during_the_content_is_read_not_a_lost_connection() -> None:
    answers = Answers(
        final=reply("550 spam", "end-of-data"), broken=ConnectionLost("eof"), dot_sent=False
    )
    assert classify_transaction(answers)[0].severity is Severity.PERMANENT


def test_acceptance_before_our_dot_is_not_believed() -> None:
    answers = Answers(dot_sent=False)
    assert summary(classify_transaction(answers)[0]) == (
        "transient",
        "connection",
        "protocol_error",
    )


def test_acceptance_stands_when_the_connection_ends_after_it() -> None:
    answers = Answers(broken=ConnectionLost("eof"))
    assert classify_transaction(answers)[0].severity is Severity.SUCCESS


@pytest.mark.client_row("C83")
def test_silence_after_the_dot_is_uncertain_for_accepted_recipients_only() -> None:
    answers = Answers(
        replies=(reply("250 ok"), reply("550 x")), final=None, broken=ConnectionLost("eof")
    )
    accepted, refused = classify_transaction(answers)
    assert accepted.uncertain
    assert accepted.severity is Severity.TRANSIENT
    assert not refused.uncertain


def test_lost_lease_before_the_dot_costs_nothing_remote() -> None:
    answers = Answers(final=None, broken=LeaseLost("late"), dot_sent=False)
    assert summary(classify_transaction(answers)[0]) == ("transient", "local", "lease_lost")


_MAYBE = st.none() | _CODES.map(lambda code: Reply(code, None, ("x",), ""))
_BROKEN = st.sampled_from([None, ConnectionLost("x"), LeaseLost("x"), RemoteProtocolError("x")])


@given(_MAYBE, st.lists(_MAYBE, max_size=5), _MAYBE, _MAYBE, _BROKEN, st.booleans())
def test_every_recipient_gets_one_verdict_and_success_needs_a_250_after_the_dot(
    mail: Reply | None,
    replies: list[Reply | None],
    data: Reply | None,
    final: Reply | None,
    broken: Exception | None,
    dot_sent: bool,
) -> None:
    answers = Answers(mail, tuple(replies), data, final, broken, dot_sent)
    verdicts = classify_transaction(answers, rules=Rules())
    assert len(verdicts) == len(replies)
    for answer, verdict in zip(replies, verdicts, strict=True):
        if verdict.severity is Severity.SUCCESS:
            assert dot_sent
            assert mail is not None and mail.is_positive
            assert answer is not None and answer.is_positive
            assert final is not None and final.is_positive


def test_mx_host_with_our_own_name_fails_the_mail_and_a_smarthost_pauses() -> None:
    by_mx = classify_loop("mx.a.test", "relay.test", is_by_smarthost=False)
    assert (by_mx.severity, by_mx.scope) == (Severity.PERMANENT, Scope.HOST)
    by_smarthost = classify_loop("out.test", "relay.test", is_by_smarthost=True)
    assert (by_smarthost.severity, by_smarthost.scope) == (Severity.TRANSIENT, Scope.ROUTE)
    assert by_mx.reason == by_smarthost.reason == "routing_loop"
    assert "mx.a.test calls itself relay.test" in by_mx.text
