"""Parts of a message body (RFC 2045, 2046) as octets: text, files, and how they are nested.

Everything made here is 7-bit with lines of at most 998 octets, so it passes every server.
"""

import re
import secrets

import msgspec

from relay.ingress.field_value import parameter
from relay.ingress.media_type import guess_media_type
from relay.ingress.message import Attachment
from relay.model.errors import Finding, SubmissionRefused
from relay.smtp.transfer_encoding import base64_lines, is_mostly_8bit, quoted_printable

#: RFC 5321 §4.5.3.1.6 without CRLF, and without the dot that stuffing may add.
_LINE_LENGTH = 997
_BARE_END = re.compile(r"\r\n?|\n")
_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+\-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+\-]{0,126}"
    r"(?:[ \t]*;[ \t]*[A-Za-z0-9!#$&^_.+\-]+=(?:[A-Za-z0-9!#$&^_.+\-]+|\"[ !#-\[\]-~]*\"))*"
)
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,200}")


class Part(msgspec.Struct, frozen=True):
    """A MIME entity: its Content-* fields, each with CRLF, and its encoded body."""

    fields: str
    body: bytes


def text_part(subtype: str, text: str, *, field: str) -> Part:
    """A text/plain or text/html part; the transfer encoding is the shortest that fits."""
    if "\x00" in text:
        raise SubmissionRefused(
            Finding(field, "control_character", "contains a NUL character", "remove it")
        )
    if "\r" in text:
        text = _BARE_END.sub("\n", text)
    if not text.endswith("\n"):
        text += "\n"
    try:
        octets = text.replace("\n", "\r\n").encode()
    except UnicodeEncodeError:
        raise SubmissionRefused(
            Finding(field, "not_unicode", "contains half of a surrogate pair", "send valid UTF-8")
        ) from None
    encoding, body = _encode_text(text, octets)
    fields = (
        f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n"
    )
    return Part(fields, body)


def _encode_text(text: str, octets: bytes) -> tuple[str, bytes]:
    if text.isascii() and max(map(len, text.split("\n"))) <= _LINE_LENGTH:
        return "7bit", octets
    if is_mostly_8bit(octets):
        return "base64", _base64(octets)
    return "quoted-printable", b"".join(quoted_printable(octets))


def _base64(octets: bytes) -> bytes:
    return b"".join(base64_lines(octets))


def file_part(attachment: Attachment, *, field: str) -> Part:
    """An attachment in base64, or inline where it has a Content-ID."""
    _check_file(attachment, field)
    kind = "inline" if attachment.content_id else "attachment"
    given = attachment.content_type or guess_media_type(attachment.filename, attachment.content)
    media_type = re.sub(r"[ \t]*;[ \t]*", ";\r\n ", given)
    named = parameter("filename", attachment.filename) if attachment.filename else ""
    fields = [
        f"Content-Type: {media_type}\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        f"Content-Disposition: {kind}{named}\r\n",
    ]
    if attachment.content_id:
        fields.append(f"Content-ID: <{attachment.content_id}>\r\n")
    return Part("".join(fields), _base64(attachment.content))


def _check_file(attachment: Attachment, field: str) -> None:
    findings = []
    media_type = attachment.content_type
    if media_type and (_MEDIA_TYPE.fullmatch(media_type) is None or len(media_type) > 500):
        findings.append(
            Finding(
                f"{field}.content_type",
                "content_type_invalid",
                f"{media_type[:80]!r} is not a media type",
                "write it as type/subtype, such as application/pdf",
            )
        )
    elif media_type.lower().startswith(("multipart/", "message/")):
        findings.append(
            Finding(
                f"{field}.content_type",
                "content_type_composite",
                f"{media_type[:80]!r} may not be attached in base64 (RFC 2046 §5)",
                "use application/octet-stream",
            )
        )
    name = attachment.filename
    if not name.isprintable() or any("\ud800" <= character <= "\udfff" for character in name):
        findings.append(
            Finding(
                f"{field}.filename",
                "control_character",
                "the file name contains a control character",
                "remove line breaks and other control characters",
            )
        )
    if attachment.content_id and _CONTENT_ID.fullmatch(attachment.content_id) is None:
        findings.append(
            Finding(
                f"{field}.content_id",
                "content_id_invalid",
                f"{attachment.content_id[:80]!r} is not a Content-ID",
                "use printable ASCII without blanks and without < and >",
            )
        )
    if findings:
        raise SubmissionRefused(*findings)


def multipart(subtype: str, parts: list[Part]) -> Part:
    """A multipart entity of the parts; a single part stays what it is."""
    if len(parts) == 1:
        return parts[0]
    boundary = _boundary(parts)
    delimiter = f"--{boundary}\r\n"
    pieces: list[bytes] = []
    for part in parts:
        # The CRLF before a delimiter belongs to it (RFC 2046 §5.1.1), so each body keeps its own.
        pieces += (f"{delimiter}{part.fields}\r\n".encode(), part.body, b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    fields = f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"\r\n'
    return Part(fields, b"".join(pieces))


def _boundary(parts: list[Part]) -> str:
    """A boundary that no part contains (RFC 2046 §5.1.1).

    Neither base64 nor quoted-printable can make its `=_`, and 120 random bits do the rest: that it
    is looked for all the same makes it certain, for a microsecond.
    """
    while True:
        boundary = f"=_{secrets.token_hex(15)}"
        needle = boundary.encode()
        if not any(needle in part.body for part in parts):
            return boundary
