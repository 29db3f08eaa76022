"""Which outcomes call for a report (DSN) to the sender, as submissions of the same settle.

Reports are written for mail whose door promises them and for recipients whose NOTIFY asks for one
(RFC 3461 §5.2); never for a null reverse-path (RFC 5321 §6.1). Success is reported by us only
where the next hop offers no DSN, mostly as `relayed`: who knows DSN owes it himself (§5.2.1).
"""

import time
from collections.abc import Sequence
from typing import Protocol

from relay.delivery.dsn import Reported, Subject, compose_report
from relay.model.address import Address, parse_reverse_path
from relay.model.dsn import FAILURE, HEADERS, SUCCESS, RecipientDsn
from relay.model.errors import SubmissionRefused
from relay.model.ids import new_queue_id
from relay.model.message import ClaimedMessage, Outcome, Submission
from relay.model.state import State
from relay.model.verdict import Severity
from relay.policy.classify import status_code
from relay.policy.statuses import BY_REASON
from relay.settings.schema import Settings

#: A report that cannot be delivered is given up after this (Postfix: bounce_queue_lifetime 5 d).
REPORT_LIFETIME_S = 2 * 86400.0


class Destinations(Protocol):
    """What reports need of the route table."""

    def destination_for(self, domain: str) -> str:
        """Where recipients of the domain are grouped."""
        ...


class Postmaster(Protocol):
    """In whose name reports are written, how, and where they are grouped."""

    @property
    def hello_name(self) -> str: ...
    @property
    def routes(self) -> Destinations: ...
    @property
    def settings(self) -> Settings: ...


def with_reports(
    outcomes: Sequence[Outcome], messages: Sequence[ClaimedMessage], postmaster: Postmaster
) -> list[tuple[Sequence[Outcome], list[Submission]]]:
    """The outcomes with the reports to be queued with them, failures apart from successes."""
    failed: list[Submission] = []
    relayed: list[Submission] = []
    for message in messages:
        if not message.wants_dsn or not message.reverse_path:
            continue
        own = [item for item in outcomes if item.queue_id == message.queue_id]
        failed += _report(message, _failed(own, message), postmaster)
        relayed += _report(message, _relayed(own, message), postmaster)
    if not relayed:
        return [(outcomes, failed)]
    done = [item for item in outcomes if item.state is State.DELIVERED]
    rest = [item for item in outcomes if item.state is not State.DELIVERED]
    return [(done, relayed), (rest, failed)] if rest else [(done, relayed)]


def _failed(outcomes: Sequence[Outcome], message: ClaimedMessage) -> list[Reported]:
    ended = [item for item in outcomes if item.state in (State.FAILED, State.EXPIRED)]
    if not ended:
        return []
    asked = {item.number: item.dsn for item in message.recipients}
    return [
        _reported(outcome, asked[outcome.number], "failed")
        for outcome in ended
        if asked[outcome.number].wants(FAILURE, default=True)
    ]


def _relayed(outcomes: Sequence[Outcome], message: ClaimedMessage) -> list[Reported]:
    """Whom the next hop certainly took: what is assumed delivered is not told as a success."""
    if not any(SUCCESS in item.dsn.notify for item in message.recipients):
        return []
    asked = {item.number: item.dsn for item in message.recipients}
    return [
        _reported(outcome, asked[outcome.number], outcome.success_action)
        for outcome in outcomes
        if outcome.state is State.DELIVERED
        and asked[outcome.number].wants(SUCCESS, default=False)
        and outcome.verdict.severity is Severity.SUCCESS
        and outcome.success_action
    ]


def _report(
    message: ClaimedMessage, recipients: Sequence[Reported], postmaster: Postmaster
) -> list[Submission]:
    if not recipients:
        return []
    subject = Subject(
        queue_id=message.queue_id,
        reverse_path=message.reverse_path,
        message_id=message.message_id,
        created=message.created,
        content=message.content,
        # What was to travel under TLS all the way does not come back without (RFC 8689 §5).
        ret=HEADERS if message.requires_tls else message.ret,
        envid=message.envid,
    )
    return report(subject, recipients, postmaster)


def report(
    subject: Subject, recipients: Sequence[Reported], postmaster: Postmaster
) -> list[Submission]:
    """The report as a submission with a null reverse-path; none where there is nobody to tell."""
    if not recipients:
        return []
    try:
        address: Address | None = parse_reverse_path(subject.reverse_path)
    except SubmissionRefused:
        return []
    if address is None:
        return []
    settings = postmaster.settings.reports
    message_id, content = compose_report(
        postmaster.hello_name,
        subject,
        recipients,
        now=time.time(),
        full_octets=settings.full_message,
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
            reports_on=subject.queue_id,
            hourly_limit=settings.per_sender,
        )
    ]


def _reported(outcome: Outcome, asked: RecipientDsn, action: str) -> Reported:
    verdict, reply = outcome.verdict, outcome.verdict.reply
    status = "4.4.7"
    if outcome.state is State.FAILED:
        status = BY_REASON.get(verdict.reason, "5.0.0")
    if reply is not None:
        status = status_code(reply)
    return Reported(
        address=outcome.event["address"],
        action=action,
        status=status,
        text=verdict.text,
        remote=outcome.event["remote"].get("host", "") if reply is not None else "",
        diagnostic=str(reply) if reply is not None else "",
        orcpt=asked.orcpt,
        last_attempt=time.time() if reply is not None else 0.0,
    )
