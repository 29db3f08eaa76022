"""An incoming report as a value, and the reading of one: `read_report(content)`.

Reports that machines wrote for machines go first (RFC 3464, 6533, 5965); then what is no report at
all (vacation notices); then bounces in prose, of which there are many dialects. What cannot be
told is UNKNOWN: it is counted and changes nothing.
"""

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What a report says; only BOUNCE and COMPLAINT change anything."""

    BOUNCE = "bounce"
    DELAY = "delay"
    SUCCESS = "success"
    COMPLAINT = "complaint"
    AUTOMATIC = "automatic"
    UNKNOWN = "unknown"


class ReportedRecipient(msgspec.Struct, frozen=True):
    """One recipient of a report; what is not said is empty.

    `original` is the address as we had sent to it, where that is said besides `address`.
    `status` is an enhanced code, `diagnostic` what the last server said, `remote` who that was.
    """

    address: str
    original: str = ""
    status: str = ""
    diagnostic: str = ""
    remote: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an incoming message reports.

    `form`: dsn, arf, jmrp, prose, auto, mdn or empty. `reporter` is who wrote it. `clues` are
    addresses in which our token may stand (Return-Path of the returned message, …).
    `message_ids` are those of the returned message, `addressees` whom its header names.
    """

    kind: Kind
    form: str = ""
    recipients: tuple[ReportedRecipient, ...] = ()
    reporter: str = ""
    feedback_type: str = ""
    envelope_id: str = ""
    clues: tuple[str, ...] = ()
    message_ids: tuple[str, ...] = ()
    addressees: tuple[str, ...] = ()
