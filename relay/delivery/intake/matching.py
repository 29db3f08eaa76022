"""Whom an incoming report is about, and what it comes to: events, or nothing.

Rules of this file
- Only a signed token of ours counts (`policy/verp.py`): in the address that the report was sent
  to, else in what it returns of our message. Who has none may say what he likes.
- The token names the recipient; where it stands for the message as a whole the report's own words
  choose among the message's recipients.
- A delay, a success, an automatic answer change nothing.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from relay.delivery.intake.report import Kind, Report, ReportedRecipient
from relay.model.reply import Reply
from relay.model.verdict import Verdict
from relay.policy.classify import classify_reply
from relay.policy.rules import Rules
from relay.policy.verp import BounceToken, VerpCodec

EVENTS = {Kind.BOUNCE: "recipient.bounced", Kind.COMPLAINT: "recipient.complained"}
#: A diagnostic begins with the code of the last server's reply, each of its lines perhaps again.
_SAID = re.compile(r"([45]\d\d)(?:[ \-]{1,3}#?([245]\.\d{1,3}\.\d{1,3}))?[ :;\-]{0,3}")
_REPEATED = re.compile(r" [45]\d\d[ \-](?:[245]\.\d{1,3}\.\d{1,3} )?")
_TEXT_CHARACTERS = 1000


class Telling(msgspec.Struct, frozen=True):
    """One event to be told: of which recipient (number 0: the one with `address`), and what."""

    queue_id: str
    number: int
    event: str
    address: str
    data: dict[str, Any]


def token_of(
    report: Report, sent_to: Sequence[str], codec: VerpCodec, now: float
) -> BounceToken | None:
    """The first genuine token: of the addresses it was sent to, else of what it returns."""
    for address in (*sent_to, *report.clues):
        token = codec.decode(address, now)
        if token is not None:
            return token
    return None


def tellings_of(report: Report, token: BounceToken, rules: Rules) -> list[Telling]:
    """What is to be told of a report that bears this token; empty: nothing."""
    event = EVENTS.get(report.kind)
    if event is None:
        return []
    recipients = report.recipients or (ReportedRecipient(""),)
    if token.number:  # one recipient; the report may name him by another address, or others too
        recipients = recipients[:1]
    return [
        Telling(
            queue_id=token.queue_id,
            number=token.number,
            event=event,
            address=item.original or item.address,
            data=_data(report, item, rules),
        )
        for item in recipients
    ]


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
