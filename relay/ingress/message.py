"""What a program says when it sends one message: the public `Message` and its parts.

The JSON form (HTTP, `relay send`) and the Python form are the same struct; in JSON the field
`from_` is written `from`, `mail_class` is `class`, and an attachment's content is base64.
"""

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from relay.model.address import Address, parse_address
from relay.model.errors import Finding, SubmissionRefused

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_QUOTED_PAIR = re.compile(r"\\(.)")


class Mailbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address with a display name, as it stands in a header field."""

    email: str
    name: str = ""


class Attachment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file beside the text; with a `content_id` it is shown inline, by `cid:` in the HTML.

    Without a `content_type` that of the file name is taken.
    """

    filename: str
    content: bytes
    content_type: str = ""
    content_id: str = ""

    @classmethod
    def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        filename: str = "",
        content_type: str = "",
        content_id: str = "",
    ) -> "Attachment":
        """Read a file; `filename` is what the recipient sees, otherwise the file's own name.

        OSError where it cannot be read.
        """
        place = Path(path)
        return cls(
            filename=filename or place.name,
            content=place.read_bytes(),
            content_type=content_type,
            content_id=content_id,
        )


MailboxValue = str | Mailbox
MailboxValues = str | Mailbox | list[str | Mailbox]


class Message(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """One message to be composed (RFC 5322) and sent to all of `to`, `cc` and `bcc`.

    Addresses are `"Ann <ann@example.org>"`, `"ann@example.org"` or `Mailbox`. `reverse_path` is
    where bounces go (default: the address of `from_`; `""`: nowhere). `expires_at` has a time zone;
    what is not delivered by then is given up. `notify`: which reports (DSNs) the reverse-path gets;
    `report_content`: what comes back with one of failure; `envelope_id` comes back in all of them.
    `trace`: the dialogues of its deliveries are told as events (`session.dialogue`).
    """

    from_: MailboxValue = msgspec.field(name="from")
    to: MailboxValues = []
    cc: MailboxValues | None = None
    bcc: MailboxValues | None = None
    reply_to: MailboxValues | None = None
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = {}
    attachments: list[Attachment] = []
    reverse_path: str | None = None
    mail_class: Literal["transactional", "bulk"] | None = msgspec.field(name="class", default=None)
    campaign: str = ""
    tags: list[str] = []
    metadata: dict[str, str] = {}
    expires_at: datetime | None = None
    one_click_unsubscribe: str | None = None
    notify: list[Literal["never", "success", "failure", "delay"]] = []
    report_content: Literal["full", "headers"] | None = None
    envelope_id: str = ""
    trace: bool = False


class NamedAddress(msgspec.Struct, frozen=True):
    """A parsed mailbox: the display name and the address."""

    name: str
    address: Address


def parse_mailbox(value: str | Mailbox, *, field: str) -> NamedAddress:
    """Parse one mailbox (RFC 5322 §3.4); SubmissionRefused names field, fault and fix."""
    if isinstance(value, Mailbox):
        name, address = value.name, value.email
    else:
        name, address = _split_mailbox(value, field)
    if _CONTROL.search(name):
        raise SubmissionRefused(
            Finding(
                field,
                "control_character",
                "the display name contains a control character",
                "remove line breaks and other control characters",
            )
        )
    return NamedAddress(name, parse_address(address, field=field))


def mailbox_list(value: str | Mailbox | list[str | Mailbox] | None) -> list[str | Mailbox]:
    """One mailbox, several or none, as a list."""
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _split_mailbox(text: str, field: str) -> tuple[str, str]:
    stripped = text.strip(" ")
    start = stripped.rfind("<")
    if start < 0 or not stripped.endswith(">"):
        return "", text
    name = stripped[:start].strip(" ")
    if len(name) >= 2 and name[0] == name[-1] == '"':
        return _QUOTED_PAIR.sub(r"\1", name[1:-1]), stripped[start:]
    if "@" in name and ("," in name or "<" in name):
        raise SubmissionRefused(
            Finding(
                field,
                "address_list_in_string",
                "has several addresses in one string",
                "give a list with one address in each string",
            )
        )
    return name, stripped[start:]
