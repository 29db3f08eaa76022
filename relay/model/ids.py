"""Identifiers: sortable queue-ids, recipient-ids derived from them."""

import os
import re
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_QUEUE_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{20}")
_RECIPIENT_ID = re.compile(r"([0-9A-HJKMNP-TV-Z]{20})\.(\d{1,9})")


def _base32(value: int, length: int) -> str:
    digits = []
    for _ in range(length):
        digits.append(_ALPHABET[value & 31])
        value >>= 5
    return "".join(reversed(digits))


def new_queue_id(now: float | None = None) -> str:
    """A queue-id: 20 characters of Crockford base 32, 45 bits of milliseconds, 55 random bits."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    random_bits = int.from_bytes(os.urandom(7), "big") >> 1
    return _base32(milliseconds, 9) + _base32(random_bits, 11)


def accepted_at(queue_id: str) -> float:
    """When an id was made (epoch seconds): its first nine characters are milliseconds."""
    milliseconds = 0
    for character in queue_id[:9]:
        milliseconds = milliseconds << 5 | _ALPHABET.index(character)
    return milliseconds / 1000


def recipient_id(queue_id: str, number: int) -> str:
    """The recipient-id `<queue-id>.<n>`, n from 1."""
    return f"{queue_id}.{number}"


def split_recipient_id(text: str) -> tuple[str, int]:
    """Queue-id and number of a recipient-id; ValueError where the text is none."""
    match = _RECIPIENT_ID.fullmatch(text)
    if match is None:
        raise ValueError(f"not a recipient-id: {text!r}")
    return match[1], int(match[2])


def is_queue_id(text: str) -> bool:
    """Whether the text has the form of a queue-id."""
    return _QUEUE_ID.fullmatch(text) is not None


def is_recipient_id(text: str) -> bool:
    """Whether the text has the form of a recipient-id."""
    return _RECIPIENT_ID.fullmatch(text) is not None
