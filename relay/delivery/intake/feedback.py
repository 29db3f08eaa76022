"""Complaints: abuse feedback reports (RFC 5965, 6591), and Microsoft's JMRP in its own form.

Only what a person complained of is a complaint: `not-spam` and the failures of DMARC
(`auth-failure`) are not.
"""

from relay.delivery.intake.parts import Fields, Part, fields_of
from relay.delivery.intake.report import Kind, ReportedRecipient
from relay.delivery.intake.status import address_of

_COMPLAINTS = frozenset({"abuse", "fraud", "virus", "opt-out", "opt-out-list", "miscategorized"})
_RECIPIENTS = 20


class Feedback(Fields):
    """The machine's part of a complaint."""

    def __init__(self, part: Part) -> None:
        super().__init__(fields_of(part.text.encode()).pairs)

    @property
    def type(self) -> str:
        """`abuse`, `fraud`, …; in lower case."""
        return self.get("feedback-type").strip().lower()[:40]

    @property
    def kind(self) -> Kind:
        return Kind.COMPLAINT if self.type in _COMPLAINTS else Kind.UNKNOWN

    @property
    def recipients(self) -> tuple[ReportedRecipient, ...]:
        """Who complained, where the provider says so; many leave it out."""
        named = [address_of(value) for value in self.all("original-rcpt-to")[:_RECIPIENTS]]
        return tuple(ReportedRecipient(address) for address in dict.fromkeys(named) if address)


def is_jmrp(fields: Fields) -> bool:
    """Whether this is a complaint of Outlook.com's Junk Mail Reporting Program."""
    subject = fields.get("subject").lower()
    sender = address_of(fields.get("from")).lower()
    return subject.startswith("complaint about message from ") and sender in (
        "staff@hotmail.com",
        "staff@outlook.com",
    )


def jmrp_recipients(returned: Fields) -> tuple[ReportedRecipient, ...]:
    """Who complained, from the returned message."""
    value = returned.get("x-hmxmroriginalrecipient") or returned.get("x-ms-exchange-recipient")
    address = address_of(value)
    return (ReportedRecipient(address),) if address else ()
