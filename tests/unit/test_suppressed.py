"""Who is promised reports is told of recipients on the suppression list, and nobody else."""

from typing import Any

import msgspec
import pytest

from relay.ingress.submit import Submitter
from relay.ingress.suppressed import Sender, report_of_suppressed
from relay.model.address import parse_address
from relay.model.dsn import Dsn, RecipientDsn
from relay.model.errors import StoreUnavailable
from relay.model.message import Receipt, ReceiptRecipient, Submission
from relay.policy.route import RouteTable
from relay.settings.schema import Delivery, Settings
from tests.store import mail
from tests.support.acceptor import MemoryAcceptor

SETTINGS = Settings(delivery=Delivery(hostname="relay.example"))
SENDER = Sender("relay.example", RouteTable(), SETTINGS)
TO = ("ann@one.test", "bob@one.test", "eve@one.test")


class Suppressing(MemoryAcceptor):
    """Has the second and third recipient on the list; `lost`: takes one message and no report."""

    lost = False

    async def accept(self, submission: Submission) -> Receipt:
        if self.lost and submission.ingress == "dsn":
            raise StoreUnavailable("away")
        receipt = await super().accept(submission)
        return receipt if submission.ingress == "dsn" else ended(receipt)


def ended(receipt: Receipt) -> Receipt:
    first, *others = receipt.recipients
    gone = [ReceiptRecipient(item.id, item.address, "suppressed") for item in others]
    return msgspec.structs.replace(receipt, recipients=(first, *gone), suppressed=len(gone))


def submission(**more: Any) -> Submission:
    return mail.submission(*TO, **{"wants_dsn": True, "ingress": "smtp"} | more)


def told(item: Submission) -> list[str]:
    """Whom the report names, by his report."""
    recipients = tuple(ReceiptRecipient(f"Q.{n}", to, "ready") for n, to in enumerate(TO, 1))
    receipt = ended(Receipt(id="Q", message_id="", recipients=recipients))
    reports = report_of_suppressed(item, receipt, SENDER)
    return [to for to in TO for report in reports if f"; {to}\r\n".encode() in report.content]


def test_report_names_those_on_the_list_and_goes_to_the_reverse_path() -> None:
    assert told(submission()) == list(TO[1:])


@pytest.mark.parametrize(
    ("notify", "expected"),
    [(("F", "F", "S"), TO[1:2]), (("N", "N", "N"), ()), (("", "", "D"), TO[1:2])],
)
def test_report_leaves_out_who_is_not_to_be_told_of(
    notify: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    asked = tuple(RecipientDsn(letters) for letters in notify)
    assert told(submission(dsn=Dsn(recipients=asked))) == list(expected)


def test_null_reverse_path_is_told_nothing() -> None:
    assert told(submission(reverse_path=None)) == []


async def test_door_queues_the_report_after_the_message() -> None:
    acceptor = Suppressing()
    receipt = await Submitter(SETTINGS, acceptor, RouteTable()).accept(submission())
    message, report = acceptor.submissions
    assert receipt.id == message.queue_id == report.reports_on
    assert report.forward_paths == (parse_address("news@example.org"),)
    assert report.reverse_path is None


async def test_mail_without_a_promise_of_reports_has_none() -> None:
    acceptor = Suppressing()
    await Submitter(SETTINGS, acceptor, RouteTable()).accept(submission(wants_dsn=False))
    assert len(acceptor.submissions) == 1


async def test_report_that_is_not_taken_leaves_the_message_accepted() -> None:
    acceptor = Suppressing()
    acceptor.lost = True
    receipt = await Submitter(SETTINGS, acceptor, RouteTable()).accept(submission())
    assert receipt.suppressed == 2
