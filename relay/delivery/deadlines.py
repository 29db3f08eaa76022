"""Does what is due to a message, with the reports (DSNs) that its sender is promised.

The ticker does it when the time has come, a door right after an operator's bounce.
"""

import structlog

from relay.delivery.dsn import Reported, Subject
from relay.delivery.reports import Postmaster, report
from relay.model.dsn import DELAY, FAILURE, HEADERS, RecipientDsn
from relay.model.errors import NotFound
from relay.model.message import Submission
from relay.policy.classify import status_code
from relay.store.answer import unpack_answer
from relay.store.codec import RecipientRecord
from relay.store.deadlines import Deadlines, Due

#: Action and status (RFC 3464 §2.3) where no reply has one, and what is said where nothing was.
_SAID = {
    "bounce": ("failed", "5.0.0", ""),
    "notice": ("delayed", "4.0.0", "It has not been delivered yet."),
    "expiry": ("failed", "4.4.7", "It was not delivered in time."),
}

_log = structlog.get_logger("relay.deadlines")


async def do_what_is_due(deadlines: Deadlines, queue_id: str, postmaster: Postmaster) -> None:
    """Bounces, delay notice or expiry of one message, each with its report in one transition."""
    start = 1
    while start:
        due = await deadlines.due(queue_id, start)
        if due is None:
            return
        reports = await _reports(deadlines, due, postmaster)
        changed = await deadlines.act(due, reports)
        _log.info("message." + due.kind, queue_id=queue_id, recipients=changed)
        start = due.following


async def _reports(deadlines: Deadlines, due: Due, postmaster: Postmaster) -> list[Submission]:
    if not due.wants_report:
        return []
    letter = DELAY if due.kind == "notice" else FAILURE
    asked = [(record, RecipientDsn.unpacked(record.dsn)) for _, record in due.recipients]
    told = [(record, dsn) for record, dsn in asked if dsn.wants(letter, default=True)]
    if not told:
        return []
    try:
        content = await deadlines.store.content(due.queue_id)
    except NotFound:
        content = b""
    message = due.message
    subject = Subject(
        queue_id=due.queue_id,
        reverse_path=message.reverse_path,
        message_id=message.message_id,
        created=message.created_ms / 1000,
        content=content,
        ret=HEADERS if message.requires_tls else message.ret,
        envid=message.envid,
    )
    recipients = [_reported(record, dsn, due) for record, dsn in told]
    return report(subject, recipients, postmaster)


def _reported(record: RecipientRecord, dsn: RecipientDsn, due: Due) -> Reported:
    """A recipient as the report tells of it, with what the last server said, if any spoke."""
    action, status, text = _SAID[due.kind]
    remote, reply = unpack_answer(record.answer)
    if reply is not None and due.kind != "bounce":
        status = status_code(reply)
    return Reported(
        address=record.address,
        action=action,
        status=status,
        text=record.text or text,
        remote=remote.host if remote is not None else "",
        diagnostic=str(reply) if reply is not None else "",
        orcpt=dsn.orcpt,
        retry_until=due.message.expires_ms / 1000 if due.kind == "notice" else 0.0,
    )
