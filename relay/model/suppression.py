"""The suppression list in values: who gets no mail, why, since when, and how he came onto it."""

from enum import StrEnum

import msgspec

from relay.model.address import normalize_domain, parse_address
from relay.model.errors import Finding, SubmissionRefused

_LOWER = {ord(letter): ord(letter.lower()) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


class SuppressionReason(StrEnum):
    """Why an address gets no mail; the words are those of Anymail's `RejectReason`."""

    INVALID = "invalid"
    BOUNCED = "bounced"
    BLOCKED = "blocked"
    SPAM = "spam"
    UNSUBSCRIBED = "unsubscribed"
    OTHER = "other"


class Origin(StrEnum):
    """How an entry came onto the list."""

    MANUAL = "manual"
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    IMPORT = "import"


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """One entry; times in epoch seconds.

    `name` is an address as `suppression_name` makes it, or `@domain` for everybody there. `until`
    None: for good. `evidence` is the id of the event that put it there, `note` a line about why.
    """

    name: str
    reason: SuppressionReason = SuppressionReason.OTHER
    origin: Origin = Origin.MANUAL
    since: float = 0.0
    until: float | None = None
    evidence: str = ""
    note: str = ""


class Consequence(msgspec.Struct, frozen=True):
    """What a bounce or a complaint means for the list: an entry for `keep_s` (0: for good).

    `most`: how many entries the list may have.
    """

    reason: SuppressionReason
    origin: Origin
    keep_s: float
    most: int


def suppression_name(text: str, *, field: str = "address") -> str:
    """The name under which an address or a domain stands on the list.

    An address keeps its local-part but for A to Z, which become lower case (as scripts do it with
    each recipient); its domain is lower-case A-labels. `example.org` and `@example.org` stand for
    everybody of the domain, not of its subdomains. SubmissionRefused names field, fault and fix.
    """
    local, _, domain = text.strip().rpartition("@")
    if local:
        return str(parse_address(text.strip(), field=field)).translate(_LOWER)
    try:
        return "@" + normalize_domain(domain)
    except ValueError as error:
        what = f"'{text[:80]}'" if text.isprintable() else "it"
        fault = f"{what} is neither an address nor a domain: as a domain it {error}"
        fix = "write local@domain, or a domain"
        raise SubmissionRefused(Finding(field, "address_invalid", fault, fix)) from None
