"""Entries of the suppression list as people, programs and files give them."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

import msgspec

from relay.model.errors import Finding, SubmissionRefused
from relay.model.suppression import Origin, Suppression, SuppressionReason, suppression_name

Word = TypeVar("Word", bound=StrEnum)

#: Characters of a note, and of an event's id.
LINE_CHARACTERS = 200


class SuppressionEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry as it is given; `since` null is now, `until` null for good.

    `reason` is one of `SuppressionReason`, `origin` of `Origin`.
    """

    address: str
    reason: str = SuppressionReason.OTHER.value
    origin: str = Origin.IMPORT.value
    since: datetime | None = None
    until: datetime | None = None
    evidence: str = ""
    note: str = ""


def suppression_of(given: SuppressionEntry, *, place: str = "") -> Suppression:
    """The entry; SubmissionRefused names the field, behind `place`, fault and fix."""
    for name, line in (("evidence", given.evidence), ("note", given.note)):
        if not line.isprintable() or len(line) > LINE_CHARACTERS:
            fix = f"give up to {LINE_CHARACTERS} printable characters"
            fault = Finding(place + name, "invalid_value", "is no line of text", fix)
            raise SubmissionRefused(fault)
    return Suppression(
        name=suppression_name(given.address, field=place + "address"),
        reason=_word(SuppressionReason, given.reason, place + "reason"),
        origin=_word(Origin, given.origin, place + "origin"),
        since=_epoch_s(given.since) or 0.0,
        until=_epoch_s(given.until),
        evidence=given.evidence,
        note=given.note,
    )


def _word(words: type[Word], text: str, field: str) -> Word:
    try:
        return words(text)
    except ValueError:
        fault = f"{text[:80]!r} is no {field.rpartition('.')[2]}"
        fix = f"one of {', '.join(words)}"
        raise SubmissionRefused(Finding(field, "invalid_value", fault, fix)) from None


def _epoch_s(moment: datetime | None) -> float | None:
    """Epoch seconds; what names no zone is meant in UTC."""
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
