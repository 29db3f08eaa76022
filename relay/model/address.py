"""Mail addresses of the envelope (RFC 5321 §4.1.2, RFC 6531) as values.

Parsing is strict: what cannot go on the wire never becomes an Address. Address literals and
source routes are refused: a bulk relay has no use for them and they reach private hosts.
"""

import re
from functools import lru_cache

import idna
import msgspec

from relay.model.errors import Finding, SubmissionRefused

#: RFC 5321 §4.5.3.1: octets of a local-part, of a domain, of a whole path without brackets.
LOCAL_PART_OCTETS = 64
DOMAIN_OCTETS = 255
PATH_OCTETS = 254

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_DOT_STRING = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
_QUOTED_STRING = re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\u0080-\U0010ffff]|\\[\x20-\x7e])*"')
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]{0,61}[a-z0-9_])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Address(msgspec.Struct, frozen=True, order=True):
    """A forward-path or reverse-path: local-part as given, domain as lower-case A-labels."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the local-part cannot be sent without SMTPUTF8 (RFC 6531)."""
        return not self.local.isascii()


def _refuse(field: str, code: str, message: str, fix: str) -> SubmissionRefused:
    return SubmissionRefused(Finding(field, code, message, fix))


def _shown(text: str) -> str:
    """The value as it may stand in an error: control characters escaped, at most 80 characters."""
    shown = text.encode("unicode_escape").decode("ascii") if _CONTROL.search(text) else text
    return f"'{shown[:80]}…'" if len(shown) > 80 else f"'{shown}'"


@lru_cache(maxsize=65536)
def normalize_domain(text: str) -> str:
    """The domain as lower-case A-labels (IDNA 2008, UTS 46); ValueError says what is wrong."""
    domain = text.rstrip(".") if text.endswith(".") and not text.endswith("..") else text
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"is not a valid international domain: {error}") from None
    domain = domain.lower()
    if not domain:
        raise ValueError("is empty")
    if len(domain) > DOMAIN_OCTETS - 2:
        raise ValueError(f"has {len(domain)} octets, more than 253")
    if domain.startswith("["):
        raise ValueError("is an address literal")
    for label in domain.split("."):
        if not label:
            raise ValueError("has an empty label")
        if len(label) > 63:
            raise ValueError(f"has a label of {len(label)} octets, more than 63")
        if _LABEL.fullmatch(label) is None:
            raise ValueError(f"has the invalid label '{label[:63]}'")
    if domain.rsplit(".", 1)[-1].isdigit():
        raise ValueError("is an IP address, not a domain name")
    return domain


def parse_address(text: str, *, field: str = "to") -> Address:
    """Parse `local@domain` or `<local@domain>`; SubmissionRefused names field, fault and fix."""
    form = "write it as local@domain"
    if _CONTROL.search(text):
        raise _refuse(
            field,
            "address_control_character",
            f"{_shown(text)} contains a control character",
            "remove line breaks and other control characters",
        )
    path = text.strip(" ")
    if path.startswith("<") and path.endswith(">"):
        path = path[1:-1]
    local, at, domain_text = path.rpartition("@")
    if not at or not local or not domain_text:
        raise _refuse(field, "address_no_domain", f"{_shown(text)} has no domain", form)
    if len(path.encode()) > PATH_OCTETS:
        raise _refuse(
            field,
            "address_too_long",
            f"{_shown(text)} has {len(path.encode())} octets, more than 254",
            "shorten it (RFC 5321 §4.5.3.1.3)",
        )
    if len(local.encode()) > LOCAL_PART_OCTETS:
        raise _refuse(
            field,
            "address_local_part_too_long",
            f"{_shown(text)} has a local-part of {len(local.encode())} octets, more than 64",
            "shorten the part before the @ (RFC 5321 §4.5.3.1.1)",
        )
    if _DOT_STRING.fullmatch(local) is None and _QUOTED_STRING.fullmatch(local) is None:
        raise _refuse(
            field, "address_invalid", f"{_shown(text)} is not a mail address", f"{form}, no spaces"
        )
    try:
        domain = normalize_domain(domain_text)
    except ValueError as error:
        raise _refuse(
            field,
            "domain_invalid",
            f"the domain of {_shown(text)} {error}",
            "use a registered domain name, such as example.org",
        ) from None
    if len(local.encode()) + 1 + len(domain) > PATH_OCTETS:
        raise _refuse(
            field,
            "address_too_long",
            f"{_shown(text)} has over 254 octets with its domain in ASCII form",
            "shorten it (RFC 5321 §4.5.3.1.3)",
        )
    return Address(local, domain)


def parse_reverse_path(text: str, *, field: str = "from") -> Address | None:
    """Parse a reverse-path; `""` and `<>` are the null reverse-path, returned as None."""
    return None if text.strip() in ("", "<>") else parse_address(text, field=field)
