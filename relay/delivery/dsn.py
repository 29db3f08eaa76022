"""Delivery status notifications (RFC 3464): what we write to the sender about a recipient.

The report is multipart/report (RFC 6522): a sentence for people, the machine's part, and the
message that it is about: whole where RET=FULL asks for that and it is not too large, else its
header. Addresses beyond ASCII are told in the forms of RFC 6533. Who gets a report, and of what,
is decided in `reports`.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec

from relay.model.dsn import FULL, decode_xtext, original_recipient
from relay.model.ids import new_queue_id

_HEADERS_KEPT = 16 * 1024
#: Characters of a line: 998 octets (RFC 5322 §2.1.1) even where each takes four.
_LINE_LENGTH = 240

_INTRODUCTIONS = {
    "failed": "Your message could not be delivered to the recipients below and is given up.",
    "delayed": "Your message has not been delivered yet. No action is needed: it will be tried"
    " again.",
    "relayed": "Your message was handed to the mail system of the recipients below. That system"
    " sends no notifications of delivery: this is the last that you hear of it.",
    "delivered": "Your message was delivered to the recipients below.",
}
_TITLES = {
    "failed": "Undelivered Mail Returned to Sender",
    "delayed": "Delayed Mail (still being retried)",
    "relayed": "Successful Mail Delivery Report",
    "delivered": "Successful Mail Delivery Report",
}


class Reported(msgspec.Struct, frozen=True):
    """One recipient of a report: action as in RFC 3464 §2.3.3, status an enhanced code.

    `diagnostic` is what the server said, empty where none spoke: then `text` is all there is.
    `remote` is that server's name, or the path of its socket, which is told to nobody. `orcpt` as
    it was given (xtext); times in epoch seconds, 0: not told.
    """

    address: str
    action: str
    status: str
    text: str
    remote: str = ""
    diagnostic: str = ""
    orcpt: str = ""
    last_attempt: float = 0.0
    retry_until: float = 0.0


class Subject(msgspec.Struct, frozen=True):
    """The message that a report is about; `ret` and `envid` as they were given (xtext)."""

    queue_id: str
    reverse_path: str
    message_id: str
    created: float
    content: bytes
    ret: str = ""
    envid: str = ""


def compose_report(
    hostname: str,
    subject: Subject,
    recipients: Sequence[Reported],
    *,
    now: float,
    full_octets: int = 50 * 1024,
) -> tuple[str, bytes]:
    """Message-ID and content (CRLF) of a report; all recipients have the same action.

    A message of more than `full_octets` is never returned whole.
    """
    unique = new_queue_id(now)
    boundary = f"=_{unique}"
    message_id = f"<{unique}@{hostname}>"
    parts = [
        _text_part(hostname, recipients),
        _machine_part(hostname, subject, recipients),
        _original(subject, recipients, full_octets),
    ]
    encoding = "7bit" if all(part.isascii() for part in parts) else "8bit"
    head = [
        f"From: Mail Delivery System <mailer-daemon@{hostname}>",
        _field("To", subject.reverse_path, is_utf8=True),
        f"Subject: {_TITLES[recipients[0].action]}",
        f"Date: {_date(now)}",
        f"Message-ID: {message_id}",
        _field("References", subject.message_id) if subject.message_id else "Precedence: junk",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "",
    ]
    separator = f"--{boundary}\r\n".encode()
    body = b"".join(separator + part + b"\r\n" for part in parts)
    return message_id, "\r\n".join(head).encode() + body + f"--{boundary}--\r\n".encode()


def _part(kind: str, body: bytes, *, parameter: str = "") -> bytes:
    """A part of the report; its encoding says what is in it."""
    encoding = "7bit" if body.isascii() else "8bit"
    head = f"Content-Type: {kind}{parameter}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + body


def _text_part(hostname: str, recipients: Sequence[Reported]) -> bytes:
    lines = [f"This is the mail system at {hostname}.", "", _INTRODUCTIONS[recipients[0].action]]
    for item in recipients:
        lines += ["", f"<{item.address}>", *_lines("    ", item.text)]
        if item.diagnostic:
            lines += _lines("    ", f"The receiving server said: {item.diagnostic}")
    return _part("text/plain", _joined(lines), parameter="; charset=utf-8")


def _machine_part(hostname: str, subject: Subject, recipients: Sequence[Reported]) -> bytes:
    originals = [original_recipient(item.orcpt) if item.orcpt else None for item in recipients]
    is_utf8 = any(not item.address.isascii() for item in recipients) or any(
        not original[1].isascii() for original in originals if original is not None
    )
    lines = [f"Reporting-MTA: dns; {hostname}"]
    if subject.envid:
        lines.append(_field("Original-Envelope-Id", decode_xtext(subject.envid)))
    lines.append(f"Arrival-Date: {_date(subject.created)}")
    for item, original in zip(recipients, originals, strict=True):
        lines.append("")
        if original is not None:
            kind, address = original
            lines.append(_field("Original-Recipient", f"{kind}; {address}", is_utf8=is_utf8))
        lines += _about(item, is_utf8=is_utf8)
    kind = "message/global-delivery-status" if is_utf8 else "message/delivery-status"
    return _part(kind, _joined(lines))


def _about(item: Reported, *, is_utf8: bool) -> Iterator[str]:
    """The fields of one recipient (RFC 3464 §2.3), Original-Recipient aside."""
    kind = "rfc822" if item.address.isascii() else "utf-8"
    yield _field("Final-Recipient", f"{kind}; {item.address}", is_utf8=is_utf8)
    yield f"Action: {item.action}"
    yield f"Status: {item.status}"
    if item.remote and not item.remote.startswith("/"):
        yield _field("Remote-MTA", f"dns; {item.remote}")
    said = f"smtp; {item.diagnostic}" if item.diagnostic else f"X-Relay; {item.text}"
    yield _field("Diagnostic-Code", said)
    if item.last_attempt:
        yield f"Last-Attempt-Date: {_date(item.last_attempt)}"
    if item.retry_until:
        yield f"Will-Retry-Until: {_date(item.retry_until)}"


def _original(subject: Subject, recipients: Sequence[Reported], full_octets: int) -> bytes:
    """The message, whole only in a report of failure (RFC 3461 §4.3), else its header."""
    head, _, _ = subject.content.partition(b"\r\n\r\n")
    is_global = not head.isascii() and _is_utf8(head)
    is_failure = recipients[0].action == "failed"
    if is_failure and subject.ret == FULL and len(subject.content) <= full_octets:
        return _part("message/global" if is_global else "message/rfc822", subject.content)
    if len(head) > _HEADERS_KEPT:
        head = head[: head.rfind(b"\r\n", 0, _HEADERS_KEPT)]
    kind = "message/global-headers" if is_global else "text/rfc822-headers"
    return _part(kind, head + b"\r\n")


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _date(epoch_s: float) -> str:
    return format_datetime(datetime.fromtimestamp(epoch_s, UTC))


def _joined(lines: Sequence[str]) -> bytes:
    return "\r\n".join([*lines, ""]).encode()


def _field(name: str, value: str, *, is_utf8: bool = False) -> str:
    """A field: foreign words end neither it nor its line; long ones are folded."""
    clean = "".join(
        c if " " <= c <= "~" or (is_utf8 and not c.isascii() and c.isprintable()) else "?"
        for c in value
    )
    first, *more = _cut(f"{name}: {clean}")
    return "\r\n ".join([first, *(line.lstrip(" ") for line in more)])


def _lines(indent: str, text: str) -> list[str]:
    """Foreign words as lines of a text: nothing in them ends a line, or a part of the report."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return [indent + line.lstrip(" ") for line in _cut(clean)]


def _cut(text: str) -> list[str]:
    """Pieces of a line's length, cut before a blank where there is one."""
    pieces = []
    while len(text) > _LINE_LENGTH:
        at = text.rfind(" ", _LINE_LENGTH // 2, _LINE_LENGTH)
        at = at if at > 0 else _LINE_LENGTH
        pieces.append(text[:at])
        text = text[at:]
    return [*pieces, text]
