"""What a sender who is promised reports is told of recipients that the suppression list ended."""

import time
from typing import NamedTuple

from relay.delivery.dsn import Reported, Subject
from relay.delivery.reports import Destinations, report
from relay.model.dsn import FAILURE, HEADERS, NOTHING_ASKED, Dsn
from relay.model.message import Receipt, Submission
from relay.model.state import State
from relay.settings.schema import Settings

#: RFC 3463 §3.8: delivery not authorized, message refused.
_STATUS = "5.7.1"
_TEXT = "It was not sent: the address is on the suppression list."


class Sender(NamedTuple):
    """In whose name reports are written (`delivery.reports.Postmaster`)."""

    hello_name: str
    routes: Destinations
    settings: Settings


def report_of_suppressed(
    submission: Submission, receipt: Receipt, sender: Sender
) -> list[Submission]:
    """The report; none where nobody is to be told (NOTIFY, null reverse-path)."""
    dsn = submission.dsn or Dsn()
    asked = dsn.recipients or (NOTHING_ASKED,) * len(receipt.recipients)
    told = [
        Reported(
            address=item.address,
            action="failed",
            status=_STATUS,
            text=_TEXT,
            orcpt=wish.orcpt,
        )
        for item, wish in zip(receipt.recipients, asked, strict=True)
        if item.status == State.SUPPRESSED and wish.wants(FAILURE, default=True)
    ]
    subject = Subject(
        queue_id=receipt.id,
        reverse_path=str(submission.reverse_path or ""),
        message_id=submission.message_id,
        created=time.time(),
        content=submission.content,
        # What was to travel under TLS all the way does not come back without (RFC 8689 §5).
        ret=HEADERS if submission.requires_tls else dsn.ret,
        envid=dsn.envid,
    )
    return report(subject, told, sender)
