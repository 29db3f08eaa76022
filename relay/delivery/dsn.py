"""Delivery status notifications (RFC 3464): what we write to the sender about a recipient.

Only for mail that asked for reports by its door, and never for a null reverse-path (RFC 5321
§6.1). The report is multipart/report (RFC 6522): a sentence for people, the machine's part, and
the header fields of the message.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec

from relay.model.ids import new_queue_id

_HEADERS_KEPT = 16 * 1024


class Reported(msgspec.Struct, frozen=True):
    """One recipient of a report: action is failed or delayed; status an enhanced code.

    `diagnostic` is what the server said, empty where none spoke: then `text` is all there is.
    """

    address: str
    action: str
    status: str
    text: str
    remote: str = ""
    diagnostic: str = ""


class Subject(msgspec.Struct, frozen=True):
    """The message that a report is about."""

    reverse_path: str
    message_id: str
    created: float
    content: bytes


def _field(name: str, value: str) -> str:
    clean = "".join(c if " " <= c <= "~" else "?" for c in value)
    return f"{name}: {clean}"


def _lead(recipients: Sequence[Reported]) -> list[str]:
    delayed = all(item.action == "delayed" for item in recipients)
    intro = (
        "Your message has not been delivered yet. No action is needed: it will be tried again."
        if delayed
        else "Your message could not be delivered to the recipients below and is given up."
    )
    lines = [intro, ""]
    for item in recipients:
        lines += [f"<{item.address}>", f"    {_line(item.text)}"]
        if item.diagnostic:
            lines.append(f"    The receiving server said: {_line(item.diagnostic)}")
    return lines


def _line(text: str) -> str:
    """Foreign words as one line: nothing in them ends it, or a part of the report."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _machine_part(hostname: str, subject: Subject, recipients: Sequence[Reported]) -> list[str]:
    arrival = format_datetime(datetime.fromtimestamp(subject.created, UTC))
    lines = [f"Reporting-MTA: dns; {hostname}", f"Arrival-Date: {arrival}"]
    for item in recipients:
        lines += [
            "",
            _field("Final-Recipient", f"rfc822; {item.address}"),
            f"Action: {item.action}",
            f"Status: {item.status}",
        ]
        if item.remote:
            lines.append(_field("Remote-MTA", f"dns; {item.remote}"))
        said = f"smtp; {item.diagnostic}" if item.diagnostic else f"X-Relay; {item.text}"
        lines.append(_field("Diagnostic-Code", said))
    return lines


def _original_headers(content: bytes) -> bytes:
    head, _, _ = content.partition(b"\r\n\r\n")
    if len(head) > _HEADERS_KEPT:
        head = head[: head.rfind(b"\r\n", 0, _HEADERS_KEPT)]
    return head + b"\r\n"


def compose_report(
    hostname: str, subject: Subject, recipients: Sequence[Reported], *, now: float
) -> tuple[str, bytes]:
    """Message-ID and content (CRLF) of a report."""
    unique = new_queue_id(now)
    boundary = f"=_{unique}"
    message_id = f"<{unique}@{hostname}>"
    delayed = all(item.action == "delayed" for item in recipients)
    title = (
        "Delayed Mail (still being retried)" if delayed else "Undelivered Mail Returned to Sender"
    )
    original = _original_headers(subject.content)
    encoding = "8bit" if not original.isascii() else "7bit"
    lines = [
        f"From: Mail Delivery System <mailer-daemon@{hostname}>",
        _field("To", subject.reverse_path),
        f"Subject: {title}",
        f"Date: {format_datetime(datetime.fromtimestamp(now, UTC))}",
        f"Message-ID: {message_id}",
        _field("References", subject.message_id) if subject.message_id else "Precedence: junk",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        f"This is the mail system at {hostname}.",
        "",
        *_lead(recipients),
        "",
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "",
        *_machine_part(hostname, subject, recipients),
        "",
        f"--{boundary}",
        "Content-Type: text/rfc822-headers",
        f"Content-Transfer-Encoding: {encoding}",
        "",
    ]
    head = "\r\n".join(lines).encode() + b"\r\n"
    return message_id, head + original + f"\r\n--{boundary}--\r\n".encode()
