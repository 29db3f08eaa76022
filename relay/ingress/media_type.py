"""Which media type a file has, by its name: one table for all machines, not that of the system."""

import mimetypes
from typing import Final

UNKNOWN: Final = "application/octet-stream"

#: What the standard library's own table leaves out, and mail often carries.
_MORE = {
    ".7z": "application/x-7z-compressed",
    ".avif": "image/avif",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".ics": "text/calendar",
    ".jpg": "image/jpeg",
    ".m4a": "audio/mp4",
    ".markdown": "text/markdown",
    ".md": "text/markdown",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".ogg": "audio/ogg",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".rtf": "application/rtf",
    ".vcf": "text/vcard",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".yaml": "application/yaml",
}
_PACKED = {
    "br": UNKNOWN,
    "bzip2": "application/x-bzip2",
    "compress": UNKNOWN,
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}


def _table() -> mimetypes.MimeTypes:
    table = mimetypes.MimeTypes()
    for suffix, media_type in _MORE.items():
        table.add_type(media_type, suffix)
    return table


_TYPES = _table()


def guess_media_type(filename: str, content: bytes) -> str:
    """The media type of a file; text that is UTF-8 beyond ASCII says so.

    A message or multipart, which may not be attached in base64 (RFC 2046 §5), is octets.
    """
    # The path before it keeps a name with a colon from being taken for a URL.
    guessed, packing = _TYPES.guess_type(f"./{filename}")
    if packing is not None:
        return _PACKED.get(packing, UNKNOWN)
    if guessed is None or guessed.startswith(("message/", "multipart/")):
        return UNKNOWN
    if guessed.startswith("text/") and not content.isascii() and _is_utf8(content):
        return f"{guessed}; charset=utf-8"
    return guessed


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
