"""Query parameters of lists, and the bodies of verbs on queues, suppressions and of probes."""

import math
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from relay.ingress.http.problem import Problem
from relay.ingress.suppression_entry import SuppressionEntry, suppression_of
from relay.model.address import normalize_domain
from relay.model.destination import domain_of, in_spite_of_tls, is_in_spite_of_tls
from relay.model.errors import Finding, SubmissionRefused
from relay.model.state import State
from relay.model.suppression import Origin, Suppression, SuppressionReason
from relay.model.units import parse_duration_s
from relay.store.suppressions import SuppressionFilter
from relay.store.views import MessageFilter, QueueMatch

_Class = Literal["transactional", "bulk"]
_REASON_LENGTH = 200
_STATES = tuple(str(state) for state in State)


class Query(BaseModel):
    """Query parameters; an unknown one is an error, not a filter silently left out."""

    model_config = ConfigDict(extra="forbid")


class MessageQuery(Query):
    """Which messages."""

    domain: Annotated[str, Field(description="domain of a recipient")] = ""
    state: Annotated[str, Field(description="state of a recipient")] = ""
    campaign: str = ""
    tenant: str = ""
    sender: Annotated[str, Field(alias="from", description="reverse-path, or @domain")] = ""
    recipient: Annotated[str, Field(alias="to", description="address, or @domain")] = ""
    older_than: Annotated[str, Field(description="age such as 2h")] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    cursor: Annotated[str, Field(pattern=r"^((deadlines|finished):\d{1,15})?$")] = ""

    def filter(self) -> MessageFilter:
        """As the store takes it."""
        if self.state not in ("", *_STATES):
            raise invalid("state", f"{self.state!r} is no state", f"one of {', '.join(_STATES)}")
        return MessageFilter(
            domain=_domain("domain", self.domain),
            state=self.state,
            campaign=self.campaign,
            tenant=self.tenant,
            sender=self.sender,
            recipient=self.recipient,
            older_than_s=duration_s("older_than", self.older_than) if self.older_than else 0.0,
        )


class QueueQuery(Query):
    """Which queues."""

    mail_class: Annotated[_Class | Literal[""], Field(alias="class")] = ""
    tenant: str = ""
    campaign: str = ""
    destination: Annotated[str, Field(description="domain, ~domain or [route]")] = ""
    limit: Annotated[int, Field(ge=1, le=10000)] = 1000

    def match(self) -> QueueMatch:
        """As the store takes it."""
        return QueueMatch(
            mail_class=self.mail_class,
            tenant=self.tenant,
            campaign=self.campaign,
            destination=_domain("destination", self.destination),
        )


class QueueSelection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which queues a verb is for; without a filter `all` must be true."""

    mail_class: _Class | Literal[""] = msgspec.field(name="class", default="")
    tenant: str = ""
    campaign: str = ""
    destination: str = ""
    all: bool = False


class SuspensionRequest(QueueSelection, frozen=True, kw_only=True):
    """What to suspend, why, and for how long (`"1h"` or seconds)."""

    reason: str = "suspended by an operator"
    duration: str | float = "1h"


class ProbeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which domain to probe; `verify`: an address that a host is asked of, in the name of `from`
    (empty: the null reverse-path).
    """

    domain: str
    verify: str = ""
    reverse_path: str = msgspec.field(name="from", default="")


class SuppressionQuery(Query):
    """Which entries of the suppression list."""

    reason: Annotated[SuppressionReason | Literal[""], Field(description="why")] = ""
    origin: Annotated[Origin | Literal[""], Field(description="how it came there")] = ""
    domain: Annotated[str, Field(description="domain of the address, or the entry")] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str, Field(pattern=r"^(\d{1,15}:.{0,400})?$")] = ""

    def filter(self) -> SuppressionFilter:
        """As the store takes it."""
        domain = _domain("domain", self.domain)
        return SuppressionFilter(reason=self.reason, origin=self.origin, domain=domain)


class SuppressionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who is to get no mail (an address, or a domain), why, and for how long (`"30d"` or seconds;
    empty: for good).
    """

    address: str
    reason: str = SuppressionReason.OTHER.value
    note: str = ""
    duration: str | float = ""

    def entry(self) -> Suppression:
        """As the store takes it; SubmissionRefused names field, fault and fix."""
        return suppression_of(
            SuppressionEntry(
                address=self.address, reason=self.reason, origin="manual", note=self.note
            )
        )


class SuppressionImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Entries of another list, at most 1,000."""

    suppressions: Annotated[list[SuppressionEntry], msgspec.Meta(min_length=1, max_length=1000)]


class VerbRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a verb is used; shown with the recipient."""

    reason: str = ""


def match_of(selection: QueueSelection) -> QueueMatch:
    """The match of a verb; a missing filter is an error unless all are meant."""
    match = QueueMatch(
        mail_class=selection.mail_class,
        tenant=selection.tenant,
        campaign=selection.campaign,
        destination=_domain("destination", selection.destination),
    )
    if match == QueueMatch() and not selection.all:
        raise invalid("all", "no filter is given", "give a filter, or all: true for every queue")
    return match


def entries_of(given: SuppressionImport) -> list[Suppression]:
    """The entries of an import; SubmissionRefused with every fault by its place."""
    entries: list[Suppression] = []
    findings: list[Finding] = []
    for position, item in enumerate(given.suppressions):
        try:
            entries.append(suppression_of(item, place=f"suppressions[{position}]."))
        except SubmissionRefused as refused:
            findings += refused.findings
    if findings:
        raise SubmissionRefused(*findings)
    return entries


def reason_of(given: str) -> str:
    """An operator's reason: one line, for it stands in lists, logs and reports to senders."""
    if not given.isprintable() or len(given) > _REASON_LENGTH:
        raise invalid("reason", "is no line of text", "give up to 200 printable characters")
    return given


def duration_s(field: str, given: str | float) -> float:
    """Seconds of `"5m"` or a number, above 0."""
    try:
        seconds = parse_duration_s(given) if isinstance(given, str) else float(given)
    except ValueError as error:
        raise invalid(field, str(error), 'write for example "5m"') from None
    if not (0 < seconds < 366 * 86400 and math.isfinite(seconds)):
        raise invalid(field, "is not between 0 and a year", 'write for example "5m"')
    return seconds


def _domain(field: str, given: str) -> str:
    """A domain as it is stored, `~` before it or not; `[route]` stays as it is."""
    if not given or given.startswith("["):
        return given
    try:
        domain = normalize_domain(domain_of(given).removeprefix("@"))
        return in_spite_of_tls(domain) if is_in_spite_of_tls(given) else domain
    except ValueError as error:
        raise invalid(field, f"{given[:80]!r} {error}", "give a domain name") from None


def invalid(field: str, message: str, fix: str) -> Problem:
    """The problem of one wrong value."""
    finding = Finding(field, "invalid_value", message, fix)
    return Problem(422, finding.code, str(finding), findings=[finding])


def shown(value: Any) -> str:
    """A value of a request as it may stand in an error."""
    return repr(value)[:80]
