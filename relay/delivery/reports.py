"""Which outcomes call for a report (DSN) to the sender, as submissions of the same settle."""

import time
from collections.abc import Sequence
from typing import Protocol

from relay.delivery.dsn import Reported, Subject, compose_report
from relay.model.address import Address, parse_reverse_path
from relay.model.errors import SubmissionRefused
from relay.model.ids import new_queue_id
from relay.model.message import ClaimedMessage, Outcome, Submission
from relay.model.state import State
from relay.policy.classify import status_code
from relay.policy.route import RouteTable
from relay.policy.statuses import BY_REASON

#: A report that cannot be delivered is given up after this (Postfix: bounce_queue_lifetime 5 d).
REPORT_LIFETIME_S = 2 * 86400.0


class Postmaster(Protocol):
    """In whose name reports are written, and where they are grouped."""

    @property
    def hello_name(self) -> str: ...
    @property
    def routes(self) -> RouteTable: ...


def reports_for(
    outcomes: Sequence[Outcome], messages: Sequence[ClaimedMessage], postmaster: Postmaster
) -> list[Submission]:
    """One report a message for its recipients that failed or expired."""
    reports = []
    for message in messages:
        if not message.wants_dsn or not message.reverse_path:
            continue
        ended = [
            _reported(outcome)
            for outcome in outcomes
            if outcome.queue_id == message.queue_id
            and outcome.state in (State.FAILED, State.EXPIRED)
        ]
        if ended:
            subject = Subject(
                message.reverse_path, message.message_id, message.created, message.content
            )
            reports.extend(report(subject, ended, postmaster))
    return reports


def report(
    subject: Subject, recipients: Sequence[Reported], postmaster: Postmaster
) -> list[Submission]:
    """The report as a submission with a null reverse-path; none where there is nobody to tell."""
    try:
        address: Address | None = parse_reverse_path(subject.reverse_path)
    except SubmissionRefused:
        return []
    if address is None:
        return []
    message_id, content = compose_report(
        postmaster.hello_name, subject, recipients, now=time.time()
    )
    return [
        Submission(
            queue_id=new_queue_id(),
            reverse_path=None,
            forward_paths=(address,),
            destinations=(postmaster.routes.destination_for(address.domain),),
            content=content,
            message_id=message_id,
            ingress="dsn",
            is_8bit=not content.isascii(),
            needs_smtputf8=address.needs_smtputf8,
            expires_after_s=REPORT_LIFETIME_S,
        )
    ]


def _reported(outcome: Outcome) -> Reported:
    verdict, reply = outcome.verdict, outcome.verdict.reply
    status = "4.4.7"
    if outcome.state is State.FAILED:
        status = BY_REASON.get(verdict.reason, "5.0.0")
    if reply is not None:
        status = status_code(reply)
    return Reported(
        address=outcome.event["address"],
        action="failed",
        status=status,
        text=verdict.text,
        remote=outcome.event["remote"].get("host", "") if reply is not None else "",
        diagnostic=str(reply) if reply is not None else "",
    )
