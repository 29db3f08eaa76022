"""Drafts from the two forms in which programs bring mail: fields, and a finished message."""

import hashlib
import time
from datetime import datetime
from email.utils import getaddresses

import msgspec

from relay.ingress.compose import compose
from relay.ingress.labels import Labels
from relay.ingress.message import Message
from relay.ingress.report_fields import ReportFields, dsn_of
from relay.ingress.submit import Draft
from relay.ingress.trace import Origin
from relay.model.address import Address, parse_address, parse_reverse_path
from relay.model.errors import Finding, SubmissionRefused
from relay.smtp.content import normalize
from relay.smtp.header_block import HeaderBlock, scan

#: RFC 5321 §4.5.4.1 speaks of 4 to 5 days; more than 30 helps nobody.
_LONGEST_LIFE_S = 30 * 86400.0
#: The header block is looked for in so many octets at the beginning.
_HEADER_SEARCH = 1 << 20


class RawMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A finished message with its envelope as text; `sender` None: from the header.

    `recipients_from_header` adds those of To, Cc and Bcc, as `sendmail -t` does.
    """

    content: bytes
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    recipients_from_header: bool = False
    labels: Labels = Labels()
    reports: ReportFields = ReportFields()


def draft_of_message(
    message: Message, *, ingress: str, hostname: str, idempotency_key: str = ""
) -> Draft:
    """Compose the message; SubmissionRefused carries every fault that was found."""
    now = time.time()
    reports = ReportFields(tuple(message.notify), message.report_content, message.envelope_id)
    composed = compose(message, hostname=hostname, now=now)
    labels = Labels(
        mail_class=message.mail_class,
        campaign=message.campaign,
        tags=tuple(message.tags),
        metadata=message.metadata,
        idempotency_key=idempotency_key,
        trace=message.trace,
    )
    return Draft(
        reverse_path=composed.reverse_path,
        forward_paths=composed.forward_paths,
        content=composed.content,
        ingress=ingress,
        origin=Origin(ingress),
        labels=labels,
        dsn=dsn_of(reports, len(composed.forward_paths)),
        expires_after_s=_life_s(message.expires_at, now),
        # Date, Message-ID and boundaries are new each time: what was asked is the message itself.
        digest=hashlib.sha256(msgspec.json.encode(message)).hexdigest() if idempotency_key else "",
    )


def draft_of_raw(raw: RawMessage, *, ingress: str) -> Draft:
    """The draft of a finished message; SubmissionRefused carries every fault of its envelope."""
    content = without_mbox_line(raw.content)
    block = scan(normalize(content[:_HEADER_SEARCH]))
    if block.is_cut or not block.fields:
        raise SubmissionRefused(_no_message(content))
    findings: list[Finding] = []
    texts = [(f"to[{index}]", text) for index, text in enumerate(raw.recipients)]
    if raw.recipients_from_header:
        texts += [("header", text) for text in recipients_of(block)]
    forward_paths = []
    for field, text in texts:
        try:
            forward_paths.append(parse_address(text, field=field))
        except SubmissionRefused as refused:
            findings += refused.findings
    reverse_path = None
    try:
        reverse_path = _reverse_path(raw, block)
    except SubmissionRefused as refused:
        findings += refused.findings
    dsn = None
    try:
        dsn = dsn_of(raw.reports, len(forward_paths))
    except SubmissionRefused as refused:
        findings += refused.findings
    if findings:
        raise SubmissionRefused(*findings)
    return Draft(
        reverse_path=reverse_path,
        forward_paths=forward_paths,
        content=content,
        ingress=ingress,
        origin=Origin(ingress),
        labels=raw.labels,
        dsn=dsn,
    )


def recipients_of(block: HeaderBlock) -> list[str]:
    """The addresses of To, Cc and Bcc, in order."""
    values = [field.value for field in block.fields if field.name in ("to", "cc", "bcc")]
    return [address for _, address in getaddresses(values) if address]


def without_mbox_line(content: bytes) -> bytes:
    """The content without the `From ` line that mailbox files put before a message."""
    return content.partition(b"\n")[2] if content.startswith(b"From ") else content


def _no_message(content: bytes) -> Finding:
    fix = "begin it with header fields, then an empty line"
    if not content.strip():
        return Finding("content", "header.malformed", "is no RFC 5322 message: it is empty", fix)
    lines = normalize(content[:2000]).split(b"\r\n")
    at = next((line for line in lines if b":" not in line and line[:1] not in b" \t"), b"")
    shown = "".join(chr(octet) if 32 <= octet < 127 else "?" for octet in at[:40])
    return Finding(
        "content",
        "header.malformed",
        f"is no RFC 5322 message: '{shown}' stands where a header field 'Name: value' should",
        fix,
    )


def _reverse_path(raw: RawMessage, block: HeaderBlock) -> Address | None:
    if raw.sender is not None:
        return parse_reverse_path(raw.sender)
    for name in ("return-path", "sender", "from"):
        value = block.first(name)
        if value:
            return parse_reverse_path(getaddresses([value])[0][1] or value)
    raise SubmissionRefused(
        Finding("from", "from_missing", "the message has no From field", "give the sender")
    )


def _life_s(expires_at: datetime | None, now: float) -> float | None:
    if expires_at is None:
        return None
    if expires_at.tzinfo is None:
        raise SubmissionRefused(
            Finding("expires_at", "time_without_zone", "has no time zone", "end it in Z or +00:00")
        )
    life_s = expires_at.timestamp() - now
    if not 0 < life_s <= _LONGEST_LIFE_S:
        raise SubmissionRefused(
            Finding(
                "expires_at",
                "time_out_of_range",
                "is past or over 30 days ahead",
                "give a time within the next 30 days, or leave it out",
            )
        )
    return life_s
