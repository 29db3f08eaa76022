"""Trace fields that every message gets at the door (RFC 5321 §4.4): Received, and dates."""

import re
from email.utils import formatdate
from functools import lru_cache

import msgspec

_UNFIT = re.compile(r"[^A-Za-z0-9.:_\[\]\-]")


class Origin(msgspec.Struct, frozen=True):
    """Where a submission came from, as the Received field tells it.

    `hello_name` and `address` are the SMTP client's; `protocol` is RFC 3848's word (ESMTP, …).
    Without an address the message came from a program, through the door that `protocol` names.
    """

    protocol: str
    hello_name: str = ""
    address: str = ""


@lru_cache(maxsize=16)
def _date(second: int) -> str:
    return formatdate(second).replace("-0000", "+0000")


def date_value(now: float) -> str:
    """The time as RFC 5322 §3.3 has it, in UTC."""
    return _date(int(now))


def received_field(origin: Origin, *, hostname: str, queue_id: str, now: float) -> bytes:
    """The Received field, with its CRLF."""
    when = date_value(now)
    if not origin.address:
        return (
            f"Received: by {hostname} (relay, from {origin.protocol})\r\n"
            f"\tid {queue_id}; {when}\r\n"
        ).encode()
    hello = _UNFIT.sub("?", origin.hello_name)[:255] or "unknown"
    literal = f"IPv6:{origin.address}" if ":" in origin.address else origin.address
    return (
        f"Received: from {hello} ([{literal}])\r\n"
        f"\tby {hostname} (relay) with {origin.protocol} id {queue_id};\r\n"
        f"\t{when}\r\n"
    ).encode()
