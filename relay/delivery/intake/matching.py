"""Whom an incoming report is about, and what it comes to: events, or nothing.

Rules of this file
- Only a signed token of ours counts (`policy/verp.py`): in the address that the report was sent
  to, else in what it returns of our message. Who has none may say what he likes.
- The token names the recipient; where it stands for the message as a whole the report's own words
  choose among the message's recipients.
- A delay, a success, an automatic answer change nothing.
- A recipient comes onto the suppression list by his own token only: as long as his message is known
  its record says who he is, afterwards the tag of the token must fit the address.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from relay.delivery.intake.report import Kind, Report, ReportedRecipient
from relay.model.reply import Reply
from relay.model.suppression import Consequence
from relay.model.verdict import Verdict
from relay.policy.classify import classify_reply
from relay.policy.rules import Rules
from relay.policy.suppress import Suppressing
from relay.policy.verp import BounceToken, VerpCodec

EVENTS = {Kind.BOUNCE: "recipient.bounced", Kind.COMPLAINT: "recipient.complained"}
#: A diagnostic begins with the code of the last server's reply, each of its lines perhaps again.
_SAID = re.compile(r"([45]\d\d)(?:[ \-]{1,3}#?([245]\.\d{1,3}\.\d{1,3}))?[ :;\-]{0,3}")
_REPEATED = re.compile(r" [45]\d\d[ \-](?:[245]\.\d{1,3}\.\d{1,3} )?")
_TEXT_CHARACTERS = 1000


class Telling(msgspec.Struct, frozen=True):
    """One event to be told: of which recipient (number 0: the one with `address`), and what.

    `consequence`: what it means for the suppression list; `is_vouched`: whether the token says that
    `address` is the recipient's, so that it counts where his message is forgotten.
    """

    queue_id: str
    number: int
    event: str
    address: str
    data: dict[str, Any]
    consequence: Consequence | None = None
    is_vouched: bool = False


def token_of(
    report: Report, sent_to: Sequence[str], codec: VerpCodec, now: float
) -> BounceToken | None:
    """The first genuine token: of the addresses it was sent to, else of what it returns."""
    for address in (*sent_to, *report.clues):
        token = codec.decode(address, now)
        if token is not None:
            return token
    return None


def tellings_of(
    report: Report, token: BounceToken, rules: Rules, codec: VerpCodec, suppressing: Suppressing
) -> list[Telling]:
    """What is to be told of a report that bears this token; empty: nothing."""
    if report.kind not in EVENTS:
        return []
    recipients = report.recipients or (ReportedRecipient(""),)
    if token.number:  # one recipient; the report may name him by another address, or others too
        recipients = recipients[:1]
    return [_telling(report, item, token, rules, codec, suppressing) for item in recipients]


def _telling(
    report: Report,
    item: ReportedRecipient,
    token: BounceToken,
    rules: Rules,
    codec: VerpCodec,
    suppressing: Suppressing,
) -> Telling:
    data = _data(report, item, rules)
    if report.kind is Kind.COMPLAINT:
        consequence: Consequence | None = suppressing.after_complaint(report.feedback_type)
    else:
        consequence = suppressing.after_failure(data["reason"])
    named = (item.original, item.address, *report.addressees)
    vouched = next((address for address in named if codec.vouches(token, address)), "")
    return Telling(
        queue_id=token.queue_id,
        number=token.number,
        event=EVENTS[report.kind],
        address=vouched or item.original or item.address,
        data=data,
        consequence=consequence,
        is_vouched=vouched != "",
    )


def _data(report: Report, item: ReportedRecipient, rules: Rules) -> dict[str, Any]:
    """What the event says besides whom it is about."""
    common = {"form": report.form, "reporter": report.reporter, "reported_address": item.address}
    if report.kind is Kind.COMPLAINT:
        kind = report.feedback_type
        text = "The recipient complained about the message."
        return {**common, "reason": "complaint", "text": text, "feedback_type": kind}
    reply, verdict = judge(item, rules)
    return {
        **common,
        "reason": verdict.reason,
        "text": verdict.text,
        # A report of failure is final whatever code stands in it (RFC 3464 §2.3.3).
        "severity": "permanent",
        "scope": str(verdict.scope),
        "status": item.status,
        "reply": {
            "code": reply.code,
            "enhanced": reply.enhanced,
            "text": reply.text,
            "command": "",
        }
        if item.diagnostic
        else None,
    }


def judge(item: ReportedRecipient, rules: Rules) -> tuple[Reply, Verdict]:
    """The last server's words as a reply, and why they mean that the mail did not arrive."""
    text = item.diagnostic[:_TEXT_CHARACTERS]
    match = _SAID.match(text)
    status = item.status or None
    if match is None:
        code = {"4": 450, "5": 550}.get(item.status[:1], 550)
        reply = Reply(code, status, (text,), "RCPT")
    else:
        words = _REPEATED.sub(" ", text[match.end() :])
        reply = Reply(int(match[1]), match[2] or status, (words,), "RCPT")
    return reply, classify_reply(reply, rules=rules)
