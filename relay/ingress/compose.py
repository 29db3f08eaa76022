"""From the fields of a `Message` to RFC 5322 octets, and to whom they go.

Injection is impossible by construction and checked again at the end: no value with a control
character passes, and the serialised header block must hold exactly the fields that were meant.
"""

import re
import secrets
from urllib.parse import urlsplit

import msgspec

from relay.ingress import field_value
from relay.ingress.message import MailboxValues, Message, NamedAddress, mailbox_list, parse_mailbox
from relay.ingress.mime import Part, file_part, multipart, text_part
from relay.ingress.trace import date_value
from relay.model.address import Address, parse_reverse_path
from relay.model.errors import Finding, RelayError, SubmissionRefused
from relay.smtp.header_block import scan

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,64}")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
#: RFC 5322 §2.1.1, without CRLF.
_LINE_LENGTH = 998

#: Fields that have an argument of their own, and the argument.
_OWN_ARGUMENT = {
    "from": "from",
    "to": "to",
    "cc": "cc",
    "bcc": "bcc",
    "reply-to": "reply_to",
    "subject": "subject",
}
#: Fields that only relay, or a receiver, may write.
_RESERVED = frozenset(
    {
        "content-disposition",
        "content-id",
        "content-transfer-encoding",
        "content-type",
        "delivered-to",
        "mime-version",
        "received",
        "return-path",
    }
)
#: Fields whose value is tokens, where an encoded word has no meaning: ASCII only.
_STRUCTURED = frozenset(
    {
        "auto-submitted",
        "date",
        "feedback-id",
        "importance",
        "in-reply-to",
        "list-archive",
        "list-help",
        "list-id",
        "list-post",
        "list-subscribe",
        "list-unsubscribe",
        "list-unsubscribe-post",
        "message-id",
        "precedence",
        "priority",
        "references",
        "sender",
        "x-priority",
    }
)


class Composed(msgspec.Struct, frozen=True):
    """A composed message: its octets, its Message-ID, and its envelope."""

    content: bytes
    message_id: str
    reverse_path: Address | None
    forward_paths: tuple[Address, ...]


def compose(message: Message, *, hostname: str, now: float) -> Composed:
    """Compose the message; SubmissionRefused carries every fault that was found."""
    work = _Composition(message, hostname)
    header = work.header(now)
    body = work.body()
    forward_paths = work.forward_paths()
    reverse_path = work.reverse_path()
    if work.findings:
        raise SubmissionRefused(*work.findings)
    block = "\r\n".join([*header, "MIME-Version: 1.0", body.fields, ""])
    content = block.encode() + body.body
    _verify(content, [line.partition(":")[0].lower() for line in header])
    return Composed(content, work.message_id, reverse_path, forward_paths)


def _verify(content: bytes, meant: list[str]) -> None:
    """Read the header block back: exactly the fields that were meant, in their order."""
    names = scan(content).names
    found = [name for name in names if not name.startswith("content-")]
    if found != [*meant, "mime-version"] or len(names) - len(found) > 4:
        raise RelayError(f"the composed header block is not as meant: {found}")


class _Composition:
    """One composition under way: the parsed mailboxes and the findings so far."""

    def __init__(self, message: Message, hostname: str) -> None:
        self.findings: list[Finding] = []
        self._message = message
        self._from = self._mailboxes("from", message.from_)
        self._to = self._mailboxes("to", message.to)
        self._cc = self._mailboxes("cc", message.cc)
        self._bcc = self._mailboxes("bcc", message.bcc)
        self._reply_to = self._mailboxes("reply_to", message.reply_to)
        self._given = {name.lower() for name in message.headers}
        domain = self._from[0].address.domain if self._from else hostname
        given = [value for name, value in message.headers.items() if name.lower() == "message-id"]
        self.message_id = given[0].strip(" ") if given else f"<{secrets.token_hex(16)}@{domain}>"

    def header(self, now: float) -> list[str]:
        """The fields above the MIME ones, each without its last CRLF."""
        lines = [field_value.mailboxes("From", self._from)]
        if self._to:
            lines.append(field_value.mailboxes("To", self._to))
        if self._cc:
            lines.append(field_value.mailboxes("Cc", self._cc))
        if not self._to and not self._cc:
            lines.append("To: undisclosed-recipients:;")
        if self._reply_to:
            lines.append(field_value.mailboxes("Reply-To", self._reply_to))
        if self._is_clean("subject", self._message.subject):
            lines.append(field_value.unstructured("Subject", self._message.subject))
        if "date" not in self._given:
            lines.append(f"Date: {date_value(now)}")
        if "message-id" not in self._given:
            lines.append(f"Message-ID: {self.message_id}")
        lines += self._unsubscribe_fields()
        for name, value in self._message.headers.items():
            lines += self._given_field(name, value)
        return lines

    def body(self) -> Part:
        """The MIME structure: mixed(alternative(text, related(html, inline…)), files…)."""
        message = self._message
        inline, files = self._files()
        texts = []
        if message.text is not None:
            texts.append(self._text("plain", "text", message.text))
        if message.html is not None:
            html = self._text("html", "html", message.html)
            texts.append(multipart("related", [html, *inline]))
        if not texts and not files and not self.findings:
            self._find("text", "content_missing", "the message has no content", "give text or html")
            return Part("", b"")
        alternatives = [multipart("alternative", texts)] if texts else []
        return multipart("mixed", [*alternatives, *files])

    def forward_paths(self) -> tuple[Address, ...]:
        """All recipients in the order given."""
        everyone = [*self._to, *self._cc, *self._bcc]
        if not everyone and not self.findings:
            self._find("to", "recipients_missing", "nobody is to get it", "give to, cc or bcc")
        return tuple(recipient.address for recipient in everyone)

    def reverse_path(self) -> Address | None:
        """Where bounces go: as said, else the address of From."""
        if self._message.reverse_path is None:
            return self._from[0].address if self._from else None
        try:
            return parse_reverse_path(self._message.reverse_path, field="reverse_path")
        except SubmissionRefused as refused:
            self.findings += refused.findings
            return None

    def _find(self, field: str, code: str, message: str, fix: str) -> None:
        self.findings.append(Finding(field, code, message, fix))

    def _mailboxes(self, field: str, given: MailboxValues | None) -> list[NamedAddress]:
        parsed = []
        values = mailbox_list(given)
        is_list = isinstance(given, list)
        for index, value in enumerate(values):
            try:
                parsed.append(parse_mailbox(value, field=f"{field}[{index}]" if is_list else field))
            except SubmissionRefused as refused:
                self.findings += refused.findings
        if field == "from" and not values:
            self._find("from", "from_missing", "is empty", "write it as local@domain")
        return parsed

    def _text(self, subtype: str, field: str, text: str) -> Part:
        try:
            return text_part(subtype, text, field=field)
        except SubmissionRefused as refused:
            self.findings += refused.findings
            return Part("", b"")

    def _files(self) -> tuple[list[Part], list[Part]]:
        """The attachments as parts: those shown inside the HTML, and the others."""
        inline: list[Part] = []
        files: list[Part] = []
        seen: set[str] = set()
        for index, attachment in enumerate(self._message.attachments):
            is_inline = attachment.content_id != "" and self._message.html is not None
            if attachment.content_id in seen:
                field = f"attachments[{index}].content_id"
                fault = f"{attachment.content_id[:80]!r} is given twice"
                self._find(field, "content_id_twice", fault, "each file needs its own")
            seen |= {attachment.content_id} - {""}
            try:
                part = file_part(attachment, field=f"attachments[{index}]")
            except SubmissionRefused as refused:
                self.findings += refused.findings
            else:
                (inline if is_inline else files).append(part)
        return inline, files

    def _is_clean(self, field: str, value: str) -> bool:
        if _CONTROL.search(value) is None:
            return True
        self._find(
            field,
            "control_character",
            "contains a line break or another control character",
            "remove it; long values are folded for you",
        )
        return False

    def _unsubscribe_fields(self) -> list[str]:
        """List-Unsubscribe and its one-click twin (RFC 8058)."""
        url = self._message.one_click_unsubscribe
        field = "one_click_unsubscribe"
        if url is None or not self._is_clean(field, url):
            return []
        if not url.isascii() or set(" <>,") & set(url) or not _is_https(url):
            self._find(field, "url_invalid", "is not an https URL", "RFC 8058 asks for https://…")
            return []
        return [
            *self._structured(field, "List-Unsubscribe", f"<{url}>"),
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        ]

    def _given_field(self, name: str, value: str) -> list[str]:
        """A field of `headers`, or nothing and a finding."""
        field = f"headers.{name[:64]}" if _CONTROL.search(name) is None else "headers"
        lower = name.lower()
        fault = self._name_fault(lower)
        if fault is not None:
            self._find(field, *fault)
            return []
        if not self._is_clean(field, value):
            return []
        value = value.strip(" ")
        if lower not in _STRUCTURED:
            return [field_value.unstructured(name, value)]
        if not value.isascii() or not value:
            self._find(field, "header_not_ascii", "must be ASCII and not empty", "see RFC 5322")
            return []
        if lower == "message-id" and _MESSAGE_ID.fullmatch(value) is None:
            self._find(field, "message_id_invalid", f"{value[:80]!r}", "write it as <left@right>")
            return []
        return self._structured(field, name, value)

    def _structured(self, field: str, name: str, value: str) -> list[str]:
        """A field of tokens, or nothing and a finding where it has one that fits on no line."""
        folded = field_value.structured(name, value)
        if len(folded) <= _LINE_LENGTH or max(map(len, folded.split("\r\n"))) <= _LINE_LENGTH:
            return [folded]
        fault = f"has a word that makes a line of over {_LINE_LENGTH} octets"
        self._find(field, "line_too_long", fault, "shorten it (RFC 5322 §2.1.1)")
        return []

    def _name_fault(self, name: str) -> tuple[str, str, str] | None:
        if _FIELD_NAME.fullmatch(name) is None:
            return (
                "header_name_invalid",
                "is not the name of a header field",
                "use printable ASCII without blanks and colons",
            )
        if name in _OWN_ARGUMENT:
            argument = _OWN_ARGUMENT[name]
            return "header_has_field", "may not be given in headers", f"use {argument}"
        if name in _RESERVED or name.startswith("x-relay-"):
            return "header_reserved", "is written by relay itself", "leave it out"
        unsubscribes = self._message.one_click_unsubscribe is not None
        if unsubscribes and name in ("list-unsubscribe", "list-unsubscribe-post"):
            return "header_twice", "follows from one_click_unsubscribe", "leave one of them out"
        if sum(other.lower() == name for other in self._message.headers) > 1:
            return "header_twice", "is given twice, in other letter case", "leave one of them out"
        return None


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname)
