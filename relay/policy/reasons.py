"""Every reason a verdict may have, with its one sentence for people.

The sentence is chosen here once and reused by log, API, console and DSN. A reason says what
happened, not how final it was: severity is another field of the verdict.
"""

from difflib import get_close_matches

from relay.model.reply import Reply
from relay.model.verdict import Scope, Severity, Verdict

SENTENCES: dict[str, str] = {
    "delivered": "The receiving server took responsibility for the message.",
    # the recipient
    "no_such_mailbox": "The mailbox does not exist.",
    "mailbox_unavailable": "The mailbox cannot take mail at present.",
    "mailbox_disabled": "The mailbox exists but is disabled or closed.",
    "mailbox_full": "The mailbox is full.",
    "mailbox_busy": "The mailbox is receiving mail faster than its provider allows.",
    "mailbox_moved": "The mailbox has moved elsewhere.",
    "mailbox_changed_owner": "The mailbox or its domain has changed owner.",
    "address_invalid": "The receiving server does not accept the form of the address.",
    "greylisted": "The receiving server asks unknown senders to come back later (greylisting).",
    "relay_denied": "The receiving server does not handle mail for this address.",
    "recipient_policy": "A rule of the recipient's organisation refuses this mail.",
    "recipient_rejected": "The receiving server refused the recipient.",
    # the domain of the recipient
    "no_such_domain": "The domain does not exist.",
    "null_mx": "The domain declares that it accepts no mail (null MX).",
    "domain_refuses_mail": "The domain does not accept mail.",
    "no_usable_host": "None of the domain's MX hosts can be resolved to a usable address.",
    "dns_unavailable": "The domain's DNS gave no usable answer.",
    "routing_failed": "The receiving system cannot route mail for this address.",
    "routing_loop": "The mail goes in circles between servers.",
    "dane_required": "A route demands DANE, and no MX host has TLSA records that can be used.",
    "mta_sts_failed": "The domain's MTA-STS policy admits none of its MX hosts.",
    "tls_required": "The receiving server demands an encrypted connection for this mail.",
    # the message
    "message_too_large": "The message is larger than the receiving server accepts.",
    "content_rejected": "The receiving server considers the content spam or unwanted.",
    "virus": "The receiving server considers the content malicious.",
    "malformed_message": "The receiving server considers the message malformed.",
    "message_id_repeated": "Too many messages carry the same Message-ID.",
    "feature_unsupported": "The receiving server lacks an extension that the message needs.",
    "smtputf8_unsupported": "The receiving server cannot take internationalised addresses.",
    "policy": "A policy of the receiving server refuses the message.",
    "message_rejected": "The receiving server refused the message.",
    # the transaction and the connection
    "too_many_recipients": "The receiving server takes no more recipients in one transaction.",
    "multiple_domains": "The receiving server takes only one recipient domain in a transaction.",
    "connection_limit": "The receiving server takes no more messages on this connection.",
    "connection_lost": "The connection ended in the middle of the dialogue.",
    "timeout": "The receiving server did not answer in time.",
    "protocol_error": "The receiving server and we disagree about the SMTP protocol.",
    "service_unavailable": "The receiving server is closing the connection.",
    "uncertain": "The message was sent completely, but the answer never came.",
    # the host and what stands behind it
    "connect_failed": "No connection to the receiving server came about.",
    "connect_timeout": "The receiving server did not answer the connection in time.",
    "greeting_rejected": "The receiving server greeted us with a refusal.",
    "hello_rejected": "The receiving server refused our EHLO.",
    "host_refuses_mail": "The receiving server declares that it accepts no mail.",
    "tls_failed": "No acceptable TLS connection to the receiving server came about.",
    "system_full": "The receiving server is out of storage.",
    "system_unavailable": "The receiving system accepts no mail at present.",
    "congested": "The receiving system is overloaded.",
    "local_error": "The receiving server had a problem of its own.",
    # who we are to the receiver
    "rate_limited": "The receiver limits how fast this source may send.",
    "too_many_connections": "The receiver allows fewer connections from this source.",
    "source_blocked": "The source address is on a block list of the receiver.",
    "source_reputation": "The receiver distrusts the source address.",
    "source_unauthorized": "The receiver takes no mail directly from this kind of address.",
    "reverse_dns": "The source address lacks a matching reverse DNS (PTR) record.",
    "unauthenticated": "The mail passes neither SPF nor DKIM.",
    "spf_failed": "SPF of the sender's domain does not authorise the source address.",
    "dkim_failed": "The mail carries no valid DKIM signature.",
    "dmarc_failed": "The mail fails the DMARC policy of the sender's domain.",
    "dmarc_missing": "The sender's domain publishes no DMARC policy.",
    "alignment_failed": "The From domain matches neither the SPF nor the DKIM domain.",
    "sender_domain_unresolvable": "The sender's domain cannot be resolved in DNS.",
    "sender_reputation": "The receiver distrusts the sender's domain.",
    "sender_rejected": "The receiving server refused the sender's address.",
    # the route
    "no_such_route": "The route that this mail was meant for is not configured any more.",
    "route_changed": "The route that this mail was meant for is configured differently now.",
    "authentication_failed": "The smarthost refused our credentials.",
    "authentication_deferred": "The smarthost cannot check our credentials at present.",
    "authentication_required": "The server demands credentials for this mail.",
    "authentication_broken": "The smarthost does not prove who it is, or breaks the login off.",
    "credentials_unreadable": "Our credentials for the smarthost cannot be read.",
    "authentication_unavailable": "The smarthost offers no authentication that we can use.",
    "account_limit": "The account at the smarthost has used up its allowance.",
    # ourselves
    "lease_lost": "Another worker may hold this mail; it was not sent.",
    "local_misuse": "We tried something that SMTP does not allow; this is a fault of relay.",
    "route_unreadable": "Another version of relay recorded the route of this mail.",
    "internal_error": "Something went wrong on our side; the mail was not sent.",
    # what remains
    "deferred": "The receiving server asks us to try again later.",
    "rejected": "The receiving server refused for good.",
}


def verdict(
    severity: Severity,
    scope: Scope,
    reason: str,
    reply: Reply | None = None,
    *,
    retry_after_s: float | None = None,
    uncertain: bool = False,
) -> Verdict:
    """A verdict with the sentence of its reason; KeyError where the reason is not in the table."""
    return Verdict(
        severity=severity,
        scope=scope,
        reason=reason,
        text=SENTENCES[reason],
        reply=reply,
        retry_after_s=retry_after_s,
        uncertain=uncertain,
    )


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?` for a misspelt word, or the empty string."""
    matches = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""
