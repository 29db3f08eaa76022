"""SMTP commands as octets (RFC 5321 §4.1.1); every argument is checked before it becomes a line.

Whatever would end the line, the path or the argument early (CR, LF, NUL, other controls, space,
`<`, `>`) raises LocalProtocolError: it can only come from a fault of ours or from an attack.
"""

import re
from functools import lru_cache
from typing import Final

from relay.model.dsn import (
    FULL,
    HEADERS,
    RecipientDsn,
    ascii_orcpt,
    is_envid,
    is_orcpt,
    notify_value,
)
from relay.model.errors import LocalProtocolError

# Plain strings, not an enum: they are dictionary keys for every reply that is read.
GREETING: Final = "greeting"
EHLO: Final = "EHLO"
HELO: Final = "HELO"
LHLO: Final = "LHLO"
STARTTLS: Final = "STARTTLS"
AUTH: Final = "AUTH"
MAIL: Final = "MAIL"
RCPT: Final = "RCPT"
DATA: Final = "DATA"
BDAT: Final = "BDAT"
END_OF_DATA: Final = "end-of-data"
RSET: Final = "RSET"
NOOP: Final = "NOOP"
VRFY: Final = "VRFY"
QUIT: Final = "QUIT"
#: What a reply that nobody asked for answers: legal only as 421 (RFC 5321 §3.8).
UNASKED: Final = "nothing"

STARTTLS_LINE: Final = b"STARTTLS\r\n"
DATA_LINE: Final = b"DATA\r\n"
RSET_LINE: Final = b"RSET\r\n"
NOOP_LINE: Final = b"NOOP\r\n"
QUIT_LINE: Final = b"QUIT\r\n"
LONE_DOT: Final = b".\r\n"
AUTH_CANCEL: Final = b"*\r\n"

#: RFC 4954 §4: octets of an AUTH line or response, with CRLF.
AUTH_LINE_OCTETS = 12288

_NAME = re.compile(r"[A-Za-z0-9._:\[\]\-]+")
_PATH = re.compile(r"[^\x00-\x20\x7f-\x9f<>\"\\\u2028\u2029\ud800-\udfff]*")
_QUOTED_PATH = re.compile(
    r'"(?:[^\x00-\x1f\x7f-\x9f"\\\u2028\u2029\ud800-\udfff]|\\[\x20-\x7e])*"'
    r"@[^\x00-\x20\x7f-\x9f<>\"\\\u2028\u2029\ud800-\udfff]+"
)
_VRFY = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,500}")
_MECHANISM = re.compile(r"[A-Z0-9_\-]{1,20}")


@lru_cache(maxsize=4096)
def _path(text: str) -> bytes:
    if _PATH.fullmatch(text) is None and _QUOTED_PATH.fullmatch(text) is None:
        raise LocalProtocolError(f"not a path that may stand in a command: {ascii(text)[:100]}")
    return text.encode()


def hello(verb: str, name: str) -> bytes:
    """EHLO or HELO with our name or address literal."""
    if _NAME.fullmatch(name) is None:
        raise LocalProtocolError(f"not a name that may stand in {verb}: {ascii(name)[:100]}")
    return f"{verb} {name}\r\n".encode("ascii")


def mail(
    reverse_path: str,
    *,
    size: int | None = None,
    is_8bit: bool = False,
    smtputf8: bool = False,
    ret: str = "",
    envid: str = "",
    requiretls: bool = False,
) -> bytes:
    """MAIL with the parameters that were given; an empty reverse-path is the null one.

    `size` in octets (RFC 1870), BODY=8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531 §3.4),
    RET and ENVID (RFC 3461 §4.3, §4.4), REQUIRETLS (RFC 8689 §2).
    """
    line = b"MAIL FROM:<%b>" % _path(reverse_path)
    if size is not None:
        line += b" SIZE=%d" % size
    if is_8bit:
        line += b" BODY=8BITMIME"
    if ret:
        line += b" RET=%b" % _checked("RET", ret, ret in (FULL, HEADERS))
    if envid:
        line += b" ENVID=%b" % _checked("ENVID", envid, is_envid(envid))
    if requiretls:
        line += b" REQUIRETLS"
    return line + (b" SMTPUTF8\r\n" if smtputf8 else b"\r\n")


def rcpt(forward_path: str) -> bytes:
    """RCPT for one forward-path."""
    if not forward_path:
        raise LocalProtocolError("an empty forward-path")
    return b"RCPT TO:<%b>\r\n" % _path(forward_path)


def rcpt_with_dsn(forward_path: str, dsn: RecipientDsn, *, smtputf8: bool = False) -> bytes:
    """RCPT with NOTIFY and ORCPT as they were given (RFC 3461 §5.2.1)."""
    line = rcpt(forward_path)[:-2]
    if dsn.notify:
        line += b" NOTIFY=%b" % notify_value(dsn.notify).encode("ascii")
    if dsn.orcpt:
        orcpt = dsn.orcpt if smtputf8 else ascii_orcpt(dsn.orcpt)
        line += b" ORCPT=%b" % _checked("ORCPT", orcpt, is_orcpt(dsn.orcpt))
    return line + b"\r\n"


def _checked(name: str, value: str, is_good: bool) -> bytes:
    if not is_good:
        raise LocalProtocolError(f"not a value of {name}: {ascii(value)[:100]}")
    return value.encode()


def bdat(octets: int, *, is_last: bool) -> bytes:
    """BDAT for a chunk of so many octets, which follow it at once (RFC 3030 §2)."""
    return b"BDAT %d LAST\r\n" % octets if is_last else b"BDAT %d\r\n" % octets


def vrfy(text: str) -> bytes:
    """VRFY with an address or a user's name (RFC 5321 §4.1.1.6)."""
    if _VRFY.fullmatch(text) is None:
        raise LocalProtocolError(f"not a string that may stand in VRFY: {ascii(text)[:100]}")
    return b"VRFY %b\r\n" % text.encode()


def auth(mechanism: str, initial_response: bytes | None) -> bytes:
    """AUTH with the encoded initial response, if the mechanism has one (RFC 4954 §4)."""
    if _MECHANISM.fullmatch(mechanism) is None:
        raise LocalProtocolError(f"not a SASL mechanism: {ascii(mechanism)[:100]}")
    line = b"AUTH " + mechanism.encode("ascii")
    if initial_response is not None:
        line += b" " + (initial_response or b"=")
    return _auth_line(line)


def auth_response(response: bytes) -> bytes:
    """The line that answers a 334."""
    return _auth_line(response)


def _auth_line(line: bytes) -> bytes:
    if len(line) + 2 > AUTH_LINE_OCTETS:
        raise LocalProtocolError(f"an AUTH line of {len(line)} octets")
    return line + b"\r\n"
