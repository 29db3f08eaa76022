"""The single door behind all doors: a draft becomes a Submission, or is refused as a whole.

Every door parses its own form into a `Draft`; what is demanded of mail, which trace fields it
gets, its class, its expiry and where its recipients are grouped is decided here and only here.
The body is never parsed: the header block is scanned once, the rest is copied.
"""

import hashlib
import re
import socket
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import msgspec

from relay.delivery.reports import Destinations
from relay.ingress.labels import PREFIX, Labels, check_labels, labels_of
from relay.ingress.suppressed import Sender, report_of_suppressed
from relay.ingress.trace import Origin, date_value, received_field
from relay.model.address import Address
from relay.model.destination import in_spite_of_tls
from relay.model.dsn import Dsn
from relay.model.errors import Finding, MessageTooLarge, StoreError, SubmissionRefused
from relay.model.ids import new_queue_id
from relay.model.message import Receipt, Submission
from relay.policy.lint import lint
from relay.policy.senders import Senders
from relay.settings.schema import MailClass, Settings
from relay.smtp.content import normalize
from relay.smtp.header_block import HeaderBlock, rewrite, scan
from relay.telemetry.log import get_logger
from relay.telemetry.meter import Meter

#: Doors whose senders expect a DSN by mail; the others read events.
_DSN_DOORS = frozenset({"smtp", "sendmail"})
#: Doors where a header is completed rather than refused, as every submission server does.
_LENIENT_DOORS = frozenset({"smtp", "sendmail"})
#: What never leaves, as in Postfix's `message_drop_headers`.
_DROPPED = frozenset({"bcc", "resent-bcc", "return-path", "content-length"})
_log = get_logger()
_MESSAGE_ID = re.compile(r"<[^<>\s]+>")


class Acceptor(Protocol):
    """What submit needs of the store."""

    async def accept(self, submission: Submission) -> Receipt:
        """Make the submission durable."""
        ...


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message as a door hands it over: the envelope parsed, the content as it came.

    `accepts_smtputf8` is what the SMTP client declared; None: decide by the header (RFC 6532).
    `requires_tls`: it may leave only under TLS that is verified, all the way (RFC 8689).
    `dsn` has what is said of reports, in the order of `forward_paths`.
    `digest` stands for the whole request where the content is made anew each time.
    """

    reverse_path: Address | None
    forward_paths: Sequence[Address]
    content: bytes
    ingress: str
    origin: Origin
    labels: Labels = Labels()
    tenant: str = "default"
    accepts_smtputf8: bool | None = None
    requires_tls: bool = False
    dsn: Dsn | None = None
    expires_after_s: float | None = None
    max_recipients: int | None = None
    digest: str = ""


class Prepared(msgspec.Struct, frozen=True):
    """A submission ready for the store, and what is doubtful about it."""

    submission: Submission
    warnings: tuple[Finding, ...] = ()


class Submitter:
    """Turns drafts into submissions and hands them to the store; one for a process."""

    def __init__(
        self,
        settings: Settings,
        acceptor: Acceptor,
        routes: Destinations,
        *,
        meter: Meter | None = None,
    ) -> None:
        self.hostname = own_hostname(settings)
        self._settings = settings
        self._acceptor = acceptor
        senders = Senders(settings)
        self._senders = senders if senders.use_feedback_id else None
        self._meter = meter if meter is not None else Meter()
        self._routes = routes
        self._destination_for = lru_cache(maxsize=65536)(routes.destination_for)

    async def submit(self, draft: Draft) -> Receipt:
        """Prepare and accept; the message is durable when this returns."""
        return await self.accept(self.prepare(draft).submission)

    async def accept(self, submission: Submission) -> Receipt:
        """Hand a prepared submission to the store."""
        receipt = await self._acceptor.accept(submission)
        if receipt.suppressed and submission.wants_dsn:
            await self._tell_of_suppressed(submission, receipt)
        return receipt

    async def _tell_of_suppressed(self, submission: Submission, receipt: Receipt) -> None:
        """Queue the report: after the mail, whose acceptance it must not undo by failing."""
        sender = Sender(self.hostname, self._routes, self._settings)
        for report in report_of_suppressed(submission, receipt, sender):
            try:
                await self._acceptor.accept(report)
            except (StoreError, SubmissionRefused) as error:
                _log.warning("report.lost", queue_id=receipt.id, reason=str(error))

    def prepare(self, draft: Draft, *, now: float | None = None) -> Prepared:
        """Check the draft and make its submission; SubmissionRefused, MessageTooLarge say why not.

        Nothing is queued yet, so a refusal leaves no trace.
        """
        now = time.time() if now is None else now
        self._check_limits(draft)
        content = normalize(draft.content)
        if not content.endswith(b"\r\n"):
            content += b"\r\n"
        block = scan(content)
        if block.is_cut and draft.ingress in _LENIENT_DOORS:
            content = rewrite(content, block, top=b"", drop=())
            block = scan(content)
        if block.body_at == len(content):
            content += b"\r\n"  # a header alone: some readers find no signature without its end
        labels = labels_of(block, draft.labels)
        errors, warnings = _sort(lint(content), block, draft.ingress)
        errors += check_labels(labels)
        for finding in (*errors, *warnings):
            self._meter.count("lint", finding.code)
        if errors:
            raise SubmissionRefused(*errors)
        return Prepared(self._submission(draft, content, block, labels, now), tuple(warnings))

    def _check_limits(self, draft: Draft) -> None:
        limits = self._settings.limits
        if len(draft.content) > limits.message_size:
            raise MessageTooLarge(
                Finding(
                    "content",
                    "message_too_large",
                    f"has {len(draft.content)} octets, more than {limits.message_size}",
                    "send a link instead of a large attachment, or raise limits.message_size",
                )
            )
        most = draft.max_recipients or limits.recipients
        if not draft.forward_paths:
            raise SubmissionRefused(
                Finding("to", "recipients_missing", "nobody is to get it", "name a recipient")
            )
        if len(draft.forward_paths) > most:
            raise SubmissionRefused(
                Finding(
                    "to",
                    "too_many_recipients",
                    f"has {len(draft.forward_paths)} recipients, more than {most}",
                    "send it in several messages",
                )
            )

    def _submission(
        self, draft: Draft, content: bytes, block: HeaderBlock, labels: Labels, now: float
    ) -> Submission:
        queue_id = new_queue_id(now)
        mail_class = labels.mail_class or class_of(block)
        message_id, top = self._trace_fields(draft, block, queue_id, now)
        if self._senders is not None:
            top += self._feedback_id(draft, block, labels.campaign, mail_class)
        names = block.names
        drop = _DROPPED | {name for name in names if name.startswith(PREFIX)}
        final = rewrite(content, block, top=top, drop=drop)
        forward_paths = tuple(dict.fromkeys(draft.forward_paths))
        dsn = _dsn_of(draft, forward_paths)
        wants_dsn = draft.ingress in _DSN_DOORS or (dsn is not None and dsn.asks_for_reports)
        retry = self._settings.retry
        expiry_s = draft.expires_after_s
        if expiry_s is None:
            is_bulk = mail_class == MailClass.BULK
            expiry_s = retry.expire_bulk if is_bulk else retry.expire_transactional
        eight_bit = not final.isascii()
        return Submission(
            queue_id=queue_id,
            reverse_path=draft.reverse_path,
            forward_paths=forward_paths,
            destinations=self._destinations(draft, block, names, forward_paths),
            content=final,
            message_id=message_id,
            mail_class=mail_class,
            tenant=draft.tenant,
            campaign=labels.campaign,
            tags=labels.tags,
            metadata=labels.metadata,
            ingress=draft.ingress,
            is_8bit=eight_bit,
            needs_smtputf8=_needs_smtputf8(draft, content, block, is_8bit=eight_bit),
            requires_tls=draft.requires_tls,
            wants_dsn=wants_dsn,
            dsn=dsn,
            expires_after_s=expiry_s,
            delay_notice_after_s=retry.delay_notice if wants_dsn else 0.0,
            is_traced=labels.trace,
            idempotency_key=labels.idempotency_key,
            digest=(draft.digest or _digest(draft)) if labels.idempotency_key else "",
        )

    def _destinations(
        self,
        draft: Draft,
        block: HeaderBlock,
        names: list[str],
        forward_paths: tuple[Address, ...],
    ) -> tuple[str, ...]:
        """Where each recipient is grouped: apart from others if it is to go in spite of TLS
        failures, as `TLS-Required: No` says where nobody asks for REQUIRETLS (RFC 8689 §4.1)."""
        found = tuple(self._destination_for(path.domain) for path in forward_paths)
        if "tls-required" not in names or draft.requires_tls:
            return found
        said = (block.first("tls-required") or "").strip().lower()
        return tuple(map(in_spite_of_tls, found)) if said == "no" else found

    def _feedback_id(
        self, draft: Draft, block: HeaderBlock, campaign: str, mail_class: str
    ) -> bytes:
        """The field by which receivers count complaints, where it is asked for and missing."""
        assert self._senders is not None
        if draft.reverse_path is None or "feedback-id" in block.names:
            return b""
        domain = draft.reverse_path.domain
        value = self._senders.feedback_id(domain, draft.tenant, mail_class, campaign)
        return f"Feedback-ID: {value}\r\n".encode() if value else b""

    def _trace_fields(
        self, draft: Draft, block: HeaderBlock, queue_id: str, now: float
    ) -> tuple[str, bytes]:
        """The Message-ID, and the fields to stand on top: Received and what is missing."""
        top = received_field(draft.origin, hostname=self.hostname, queue_id=queue_id, now=now)
        names = block.names
        if "from" not in names and draft.reverse_path is not None:
            top += f"From: {draft.reverse_path}\r\n".encode()
        if "date" not in names:
            top += f"Date: {date_value(now)}\r\n".encode()
        given = block.first("message-id")
        if given is not None:
            match = _MESSAGE_ID.search(given)
            return (match[0] if match else given)[:998], top
        message_id = f"<{queue_id}@{self.hostname}>"
        return message_id, top + f"Message-ID: {message_id}\r\n".encode()


def own_hostname(settings: Settings) -> str:
    """The name by which we call ourselves in greetings and trace fields."""
    return settings.delivery.hostname or socket.getfqdn() or "localhost"


def class_of(block: HeaderBlock) -> str:
    """The class that the header suggests: bulk with List-Unsubscribe or Precedence: bulk."""
    if block.first("list-unsubscribe") is not None:
        return MailClass.BULK
    precedence = (block.first("precedence") or "").lower()
    return MailClass.BULK if precedence == "bulk" else MailClass.TRANSACTIONAL


def _sort(
    findings: list[Finding], block: HeaderBlock, ingress: str
) -> tuple[list[Finding], list[Finding]]:
    """Findings that refuse the message, and those that this door lets pass as warnings."""
    errors: list[Finding] = []
    warnings: list[Finding] = []
    for finding in findings:
        is_let_pass = finding.code == "line.too_long" or (
            # Mail clients and scripts leave From out; it is put in from the reverse-path.
            finding.code == "from.count" and ingress in _LENIENT_DOORS and "from" not in block.names
        )
        (warnings if is_let_pass else errors).append(finding)
    return errors, warnings


def _dsn_of(draft: Draft, forward_paths: tuple[Address, ...]) -> Dsn | None:
    """What is said of reports, in the order of the paths; of one given twice the first counts."""
    dsn = draft.dsn
    if dsn is None or not dsn.recipients or len(forward_paths) == len(draft.forward_paths):
        return dsn
    first = dict(reversed(list(zip(draft.forward_paths, dsn.recipients, strict=True))))
    return Dsn(dsn.ret, dsn.envid, tuple(first[path] for path in forward_paths))


def _needs_smtputf8(draft: Draft, content: bytes, block: HeaderBlock, *, is_8bit: bool) -> bool:
    if any(path.needs_smtputf8 for path in draft.forward_paths):
        return True
    if draft.reverse_path is not None and draft.reverse_path.needs_smtputf8:
        return True
    if not is_8bit or draft.accepts_smtputf8 is False:
        return False
    return not content[: block.body_at].isascii()


def _digest(draft: Draft) -> str:
    """Stands for what was asked: the same key with another digest is a conflict."""
    paths = "\n".join(map(str, (draft.reverse_path or "", *draft.forward_paths)))
    digest = hashlib.sha256(paths.encode())
    digest.update(b"\0")
    digest.update(draft.content)
    return digest.hexdigest()
