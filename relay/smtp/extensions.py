"""What the peer offers, from its EHLO reply (RFC 5321 §4.1.1.1); unknown keywords are ignored."""

from collections.abc import Iterable

import msgspec

from relay.model.reply import Reply

#: RFC 1870 §4: at most 20 digits; what is longer or no number says nothing.
_SIZE_DIGITS = 20
#: RFC 9422 §4: a limit has at most 6 digits and is not zero.
_LIMIT_DIGITS = 6


class Extensions(msgspec.Struct, frozen=True, kw_only=True):
    """The peer's extensions; without EHLO there are none.

    `size_limit` in octets, None: no limit known. `auth`: SASL mechanisms in upper case. The three
    limits (RFC 9422) are None where not announced.
    """

    pipelining: bool = False
    size: bool = False
    size_limit: int | None = None
    eight_bit_mime: bool = False
    smtputf8: bool = False
    starttls: bool = False
    enhanced_status_codes: bool = False
    chunking: bool = False
    dsn: bool = False
    requiretls: bool = False
    auth: frozenset[str] = frozenset()
    mail_max: int | None = None
    rcpt_max: int | None = None
    rcpt_domain_max: int | None = None


NO_EXTENSIONS = Extensions()


def parse_extensions(reply: Reply) -> Extensions:
    """The extensions of a positive EHLO reply; its first line is the peer's name."""
    offered: dict[str, list[str]] = {}
    for line in reply.lines[1:]:
        words = line.replace("=", " ", 1).split() if _is_old_auth(line) else line.split()
        if words:
            offered.setdefault(words[0].upper(), []).extend(words[1:])
    limits = _limits(offered.get("LIMITS", ()))
    return Extensions(
        pipelining="PIPELINING" in offered,
        size="SIZE" in offered,
        size_limit=_size_limit(offered.get("SIZE", ())),
        # A server with SMTPUTF8 must have 8BITMIME (RFC 6531 §3.1 item 8), announced or not.
        eight_bit_mime="8BITMIME" in offered or "SMTPUTF8" in offered,
        smtputf8="SMTPUTF8" in offered,
        starttls="STARTTLS" in offered,
        enhanced_status_codes="ENHANCEDSTATUSCODES" in offered,
        chunking="CHUNKING" in offered,
        dsn="DSN" in offered,
        requiretls="REQUIRETLS" in offered,
        auth=frozenset(word.upper() for word in offered.get("AUTH", ())),
        mail_max=limits.get("MAILMAX"),
        rcpt_max=limits.get("RCPTMAX"),
        rcpt_domain_max=limits.get("RCPTDOMAINMAX"),
    )


def _is_old_auth(line: str) -> bool:
    """Whether the line is `AUTH=LOGIN PLAIN`, the form before RFC 2554."""
    return line[:5].upper() == "AUTH="


def _size_limit(words: Iterable[str]) -> int | None:
    for word in words:
        if word.isascii() and word.isdigit() and len(word) <= _SIZE_DIGITS:
            return int(word) or None
    return None


def _limits(words: Iterable[str]) -> dict[str, int]:
    """RFC 9422 §4: bad syntax or a duplicate voids the whole; an invalid value only itself."""
    limits: dict[str, int] = {}
    seen = set()
    for word in words:
        name, equals, value = word.partition("=")
        name = name.upper()
        if not equals or not name or name in seen:
            return {}
        seen.add(name)
        is_number = value.isascii() and value.isdigit() and len(value) <= _LIMIT_DIGITS
        if is_number and int(value) > 0:
            limits[name] = int(value)
    return limits
