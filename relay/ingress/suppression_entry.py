"""Entries of other suppression lists, as programs and files give them, become entries of ours."""

from datetime import UTC, datetime

import msgspec

from relay.model.errors import Finding, SubmissionRefused
from relay.model.suppression import Origin, Suppression, SuppressionReason, suppression_name

#: Characters of a note, and of an event's id.
LINE_CHARACTERS = 200


class SuppressionEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of another list; `since` null is now, `until` null for good."""

    address: str
    reason: SuppressionReason = SuppressionReason.OTHER
    origin: Origin = Origin.IMPORT
    since: datetime | None = None
    until: datetime | None = None
    evidence: str = ""
    note: str = ""


def entry_in_words(address: str, reason: str, note: str) -> SuppressionEntry:
    """What a person says; SubmissionRefused where the reason is none."""
    try:
        word = SuppressionReason(reason)
    except ValueError:
        known = ", ".join(SuppressionReason)
        fault = Finding("reason", "invalid_value", f"{reason[:80]!r} is none", f"one of {known}")
        raise SubmissionRefused(fault) from None
    return SuppressionEntry(address=address, reason=word, origin=Origin.MANUAL, note=note)


def suppression_of(given: SuppressionEntry, *, place: str = "") -> Suppression:
    """The entry; SubmissionRefused names the field, behind `place`, fault and fix."""
    for name, line in (("evidence", given.evidence), ("note", given.note)):
        if not line.isprintable() or len(line) > LINE_CHARACTERS:
            fix = f"give up to {LINE_CHARACTERS} printable characters"
            fault = Finding(place + name, "invalid_value", "is no line of text", fix)
            raise SubmissionRefused(fault)
    return Suppression(
        name=suppression_name(given.address, field=place + "address"),
        reason=given.reason,
        origin=given.origin,
        since=_epoch_s(given.since) or 0.0,
        until=_epoch_s(given.until),
        evidence=given.evidence,
        note=given.note,
    )


def _epoch_s(moment: datetime | None) -> float | None:
    """Epoch seconds; what names no zone is meant in UTC."""
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
