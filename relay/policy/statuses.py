"""What reply codes and enhanced status codes mean when no rule knows the text better.

RFC 3463, RFC 7372, RFC 7505 and the IANA registry of enhanced status codes; the class digit is
ignored here, because `421 5.7.32` exists and the reply's first digit alone decides severity.
A scope of None stands for the scope of the command that was answered.
"""

import msgspec

from relay.model.verdict import Scope


class Meaning(msgspec.Struct, frozen=True):
    """A reason and whom it concerns; None: whomever the command concerns."""

    reason: str
    scope: Scope | None = None


#: Whom a refusal of this command concerns. MAIL is refused for the message, not its recipients.
COMMAND_SCOPES: dict[str, Scope] = {
    "greeting": Scope.HOST,
    "EHLO": Scope.HOST,
    "HELO": Scope.HOST,
    "LHLO": Scope.HOST,
    "STARTTLS": Scope.HOST,
    "AUTH": Scope.ROUTE,
    "MAIL": Scope.MESSAGE,
    "RCPT": Scope.RECIPIENT,
    "DATA": Scope.MESSAGE,
    "BDAT": Scope.MESSAGE,
    "end-of-data": Scope.MESSAGE,
}

#: subject.detail of an enhanced status code → meaning.
BY_STATUS: dict[str, Meaning] = {
    "1.1": Meaning("no_such_mailbox", Scope.RECIPIENT),
    "1.2": Meaning("no_such_domain", Scope.RECIPIENT),
    "1.3": Meaning("address_invalid", Scope.RECIPIENT),
    "1.4": Meaning("address_invalid", Scope.RECIPIENT),
    "1.6": Meaning("mailbox_moved", Scope.RECIPIENT),
    "1.7": Meaning("sender_rejected", Scope.MESSAGE),
    "1.8": Meaning("sender_domain_unresolvable", Scope.SENDER),
    "1.9": Meaning("routing_failed", Scope.RECIPIENT),
    "1.10": Meaning("null_mx", Scope.RECIPIENT),
    "2.0": Meaning("mailbox_unavailable", Scope.RECIPIENT),
    "2.1": Meaning("mailbox_disabled", Scope.RECIPIENT),
    "2.2": Meaning("mailbox_full", Scope.RECIPIENT),
    "2.3": Meaning("message_too_large", Scope.RECIPIENT),
    "2.4": Meaning("routing_failed", Scope.RECIPIENT),
    "3.0": Meaning("local_error"),
    "3.1": Meaning("system_full", Scope.HOST),
    "3.2": Meaning("system_unavailable", Scope.HOST),
    "3.3": Meaning("feature_unsupported", Scope.MESSAGE),
    "3.4": Meaning("message_too_large", Scope.MESSAGE),
    "3.5": Meaning("local_error", Scope.HOST),
    "3.6": Meaning("feature_unsupported", Scope.MESSAGE),
    "4.0": Meaning("routing_failed"),
    "4.1": Meaning("routing_failed"),
    "4.2": Meaning("connection_lost", Scope.CONNECTION),
    "4.3": Meaning("routing_failed"),
    "4.4": Meaning("routing_failed"),
    "4.5": Meaning("congested", Scope.HOST),
    "4.6": Meaning("routing_loop", Scope.MESSAGE),
    "4.7": Meaning("routing_failed"),
    "5.0": Meaning("protocol_error"),
    "5.1": Meaning("protocol_error"),
    "5.2": Meaning("protocol_error"),
    "5.3": Meaning("too_many_recipients"),
    "5.4": Meaning("protocol_error"),
    "5.5": Meaning("protocol_error"),
    "6.0": Meaning("malformed_message", Scope.MESSAGE),
    "6.1": Meaning("content_rejected", Scope.MESSAGE),
    "6.2": Meaning("feature_unsupported", Scope.MESSAGE),
    "6.3": Meaning("feature_unsupported", Scope.MESSAGE),
    "6.5": Meaning("feature_unsupported", Scope.MESSAGE),
    "6.6": Meaning("feature_unsupported", Scope.MESSAGE),
    "6.7": Meaning("smtputf8_unsupported", Scope.MESSAGE),
    "6.8": Meaning("smtputf8_unsupported", Scope.MESSAGE),
    "6.9": Meaning("smtputf8_unsupported", Scope.MESSAGE),
    "7.0": Meaning("policy"),
    "7.1": Meaning("policy"),
    "7.2": Meaning("recipient_policy", Scope.RECIPIENT),
    "7.4": Meaning("tls_required", Scope.DOMAIN),
    "7.5": Meaning("tls_required", Scope.DOMAIN),
    "7.7": Meaning("malformed_message", Scope.MESSAGE),
    "7.8": Meaning("authentication_failed", Scope.ROUTE),
    "7.10": Meaning("tls_required", Scope.DOMAIN),
    "7.11": Meaning("authentication_failed", Scope.ROUTE),
    "7.12": Meaning("authentication_failed", Scope.ROUTE),
    "7.14": Meaning("authentication_required", Scope.ROUTE),
    "7.16": Meaning("message_too_large", Scope.MESSAGE),
    "7.17": Meaning("mailbox_changed_owner", Scope.RECIPIENT),
    "7.18": Meaning("mailbox_changed_owner", Scope.RECIPIENT),
    "7.19": Meaning("mailbox_changed_owner", Scope.RECIPIENT),
    "7.20": Meaning("dkim_failed", Scope.SENDER),
    "7.21": Meaning("dkim_failed", Scope.SENDER),
    "7.22": Meaning("dkim_failed", Scope.SENDER),
    "7.23": Meaning("spf_failed", Scope.SENDER),
    "7.24": Meaning("spf_failed", Scope.SENDER),
    "7.25": Meaning("reverse_dns", Scope.SOURCE),
    "7.26": Meaning("unauthenticated", Scope.SENDER),
    "7.27": Meaning("sender_domain_unresolvable", Scope.SENDER),
    "7.28": Meaning("rate_limited", Scope.SOURCE),
    "7.30": Meaning("tls_required", Scope.DOMAIN),
}

#: subject.detail that says nothing that a text could not say better: texts are asked first.
UNSPECIFIC = frozenset({"0.0", "1.0", "2.0", "3.0", "4.0", "5.0", "6.0", "7.0", "7.1"})

#: (code, command) and code → meaning, where neither a rule nor an enhanced code spoke.
BY_CODE: dict[tuple[int, str] | int, Meaning] = {
    421: Meaning("service_unavailable", Scope.CONNECTION),
    432: Meaning("mailbox_busy", Scope.RECIPIENT),
    (450, "RCPT"): Meaning("mailbox_unavailable"),
    451: Meaning("local_error"),
    (452, "RCPT"): Meaning("too_many_recipients"),
    452: Meaning("system_full", Scope.HOST),
    454: Meaning("local_error"),
    455: Meaning("feature_unsupported", Scope.MESSAGE),
    500: Meaning("protocol_error"),
    501: Meaning("protocol_error"),
    (501, "RCPT"): Meaning("address_invalid"),
    502: Meaning("protocol_error"),
    503: Meaning("protocol_error"),
    504: Meaning("protocol_error"),
    (521, "MAIL"): Meaning("host_refuses_mail", Scope.HOST),
    (521, "RCPT"): Meaning("domain_refuses_mail"),
    530: Meaning("authentication_required", Scope.ROUTE),
    534: Meaning("authentication_failed", Scope.ROUTE),
    535: Meaning("authentication_failed", Scope.ROUTE),
    538: Meaning("tls_required", Scope.ROUTE),
    (550, "MAIL"): Meaning("sender_rejected"),
    (550, "RCPT"): Meaning("recipient_rejected"),
    550: Meaning("message_rejected"),
    551: Meaning("mailbox_moved"),
    (552, "RCPT"): Meaning("too_many_recipients"),
    552: Meaning("message_too_large", Scope.MESSAGE),
    (553, "MAIL"): Meaning("sender_rejected"),
    (553, "RCPT"): Meaning("address_invalid"),
    554: Meaning("message_rejected"),
    (554, "RCPT"): Meaning("recipient_rejected"),
    555: Meaning("protocol_error"),
    (556, "RCPT"): Meaning("null_mx"),
}

#: The enhanced code to report where our own judgement, no reply, was the end (RFC 3463 §3).
BY_REASON = {
    "no_such_domain": "5.1.2",
    "null_mx": "5.1.10",
    "no_usable_host": "5.4.4",
    "routing_loop": "5.4.6",
    "message_too_large": "5.3.4",
    "smtputf8_unsupported": "5.6.7",
    "malformed_message": "5.6.0",
    "feature_unsupported": "5.6.3",
    "tls_required": "5.7.30",
}


def subject_detail(enhanced: str | None) -> str:
    """`7.26` of `5.7.26`; `0.0` where there is no code."""
    return enhanced.partition(".")[2] if enhanced else "0.0"


def is_specific(enhanced: str | None) -> bool:
    """Whether an enhanced code says more than a text could."""
    status = subject_detail(enhanced)
    return status in BY_STATUS and status not in UNSPECIFIC


def generic_meaning(code: int, enhanced: str | None, command: str) -> Meaning:
    """The meaning by enhanced code, else by reply code and command, else by class alone."""
    status = subject_detail(enhanced)
    if is_specific(enhanced):
        return BY_STATUS[status]
    by_code = BY_CODE.get((code, command)) or BY_CODE.get(code)
    if status in BY_STATUS and (by_code is None or by_code.reason in _VAGUE):
        return BY_STATUS[status]
    return by_code or Meaning("deferred" if code < 500 else "rejected")


#: Reasons by code that an unspecific enhanced code (`5.7.1`: policy) still improves upon.
_VAGUE = frozenset({"local_error", "message_rejected", "recipient_rejected", "sender_rejected"})
