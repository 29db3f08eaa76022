"""Reads an incoming report of any form: `read_report(content)`, total for any octets."""

from collections.abc import Sequence

from relay.delivery.intake.automatic import is_automatic
from relay.delivery.intake.feedback import Feedback, is_jmrp, jmrp_recipients
from relay.delivery.intake.parts import Fields, Part, header_of, leaves_of
from relay.delivery.intake.prose import Prose
from relay.delivery.intake.report import Kind, Report
from relay.delivery.intake.status import Status, address_of

_STATUS = frozenset({"message/delivery-status", "message/global-delivery-status"})
_RETURNED = frozenset(
    {
        "message/rfc822",
        "message/global",
        "message/global-headers",
        "message/rfc822-headers",
        "text/rfc822-headers",
    }
)
#: Fields of the returned message in which receivers keep the reverse-path.
_PATHS = ("return-path", "x-original-return-path", "x-envelope-from", "sender", "errors-to")
#: Fields of it that name its recipient.
_ADDRESSEES = ("to", "delivered-to", "x-original-to", "cc")
_CLUES = 10


def read_report(content: bytes) -> Report:
    """What the message reports; UNKNOWN where it is none that we can read."""
    fields, parts = leaves_of(content)
    returned = _returned(parts)
    message_ids = tuple(value[:998] for value in returned.all("message-id")[:3] if value)
    status = next((part for part in parts if part.kind in _STATUS), None)
    if status is not None:
        report = _from_status(Status(status))
    elif (part := _of_kind(parts, "message/feedback-report")) is not None:
        report = _from_feedback(Feedback(part))
    elif is_jmrp(fields):
        named = jmrp_recipients(returned)
        report = Report(kind=Kind.COMPLAINT, form="jmrp", recipients=named, feedback_type="abuse")
    elif _of_kind(parts, "message/disposition-notification") is not None:
        report = Report(kind=Kind.AUTOMATIC, form="mdn")
    else:
        report = _from_prose(fields, parts)
    return Report(
        kind=report.kind,
        form=report.form,
        recipients=report.recipients,
        reporter=report.reporter or fields.get("from")[:255],
        feedback_type=report.feedback_type,
        envelope_id=report.envelope_id,
        clues=(*report.clues, *_addresses(returned, _PATHS))[:_CLUES],
        message_ids=message_ids,
        addressees=_addresses(returned, _ADDRESSEES)[:_CLUES],
    )


def _from_status(status: Status) -> Report:
    return Report(
        kind=status.kind,
        form="dsn",
        recipients=status.of(status.kind),
        reporter=status.get("reporting-mta").rpartition(";")[2].strip()[:255],
        envelope_id=status.get("original-envelope-id")[:200],
    )


def _from_feedback(feedback: Feedback) -> Report:
    sender = address_of(feedback.get("original-mail-from"))
    return Report(
        kind=feedback.kind,
        form="arf",
        recipients=feedback.recipients,
        reporter=feedback.get("user-agent")[:255],
        feedback_type=feedback.type,
        envelope_id=feedback.get("original-envelope-id")[:200],
        clues=(sender,) if sender else (),
    )


def _from_prose(fields: Fields, parts: list[Part]) -> Report:
    texts = [part for part in parts if part.kind in ("text/plain", "text/html")]
    plain = [part for part in texts if part.kind == "text/plain"]
    text = "\n".join(_words(part) for part in (plain or texts)[:3])
    prose = Prose(fields, text)
    if is_automatic(fields) and not prose.is_from_daemon:
        return Report(kind=Kind.AUTOMATIC, form="auto")
    kind = prose.kind
    if kind is Kind.UNKNOWN:
        return Report(kind=kind)
    return Report(kind=kind, form="prose", recipients=prose.recipients(), clues=prose.clues)


def _words(part: Part) -> str:
    """The text of a part; of HTML what stands between its tags."""
    if part.kind != "text/html":
        return part.text
    pieces = [piece.rpartition(">")[2] for piece in part.text.split("<")]
    words = "\n".join(piece for piece in pieces if piece.strip())
    return words.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _of_kind(parts: list[Part], kind: str) -> Part | None:
    return next((part for part in parts if part.kind == kind), None)


def _returned(parts: list[Part]) -> Fields:
    """The fields of the message that came back, where it did."""
    part = next((part for part in parts if part.kind in _RETURNED), None)
    if part is None:
        return Fields([])
    return header_of(part.body.lstrip(b"\r\n"))[0]


def _addresses(returned: Fields, names: Sequence[str]) -> tuple[str, ...]:
    """The first address of each of these fields."""
    found = [address_of(value) for name in names for value in returned.all(name)]
    return tuple(dict.fromkeys(address for address in found if address))
