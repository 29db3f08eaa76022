"""DKIM signatures (RFC 6376, 8301, 8463): what of a message is signed, and the field that says so.

    fields = sign(content, keys, rules, now=now)  # one DKIM-Signature a key, to stand on top

Sans-I/O and without opinion: which keys sign for whom is asked of `policy.signing`. There is no
l=: a signature that covers a part of the body vouches for whatever is appended (RFC 6376 §8.2).

All work on bodies is done on whole blocks: runs of blanks are halved by `replace` until there are
none, which is ten times as fast as an expression that visits each of them.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import msgspec

from relay.settings.schema import Dkim
from relay.smtp.content import BLOCK_OCTETS, whole_lines

#: Signed as often as they stand and once more, so that none can be added (RFC 6376 §8.15): a
#: program shows or obeys the one that it finds first, which need not be the one that was signed.
OVERSIGNED = Dkim().oversign
#: Signed as often as they stand; others may add theirs, as mailing lists do.
SIGNED = Dkim().sign
#: Added or changed on the way, so that signing them breaks the signature (RFC 6376 §5.4.1).
NEVER_SIGNED = frozenset(
    {
        "return-path",
        "received",
        "delivered-to",
        "bcc",
        "resent-bcc",
        "comments",
        "keywords",
        "dkim-signature",
        "authentication-results",
        "arc-seal",
        "arc-message-signature",
        "arc-authentication-results",
    }
)
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
#: Octets of a line of the signature field, at most (RFC 5322 §2.1.1 recommends 78).
_LINE = 76
_B64_LINE = 70


class Canonicalization(msgspec.Struct, frozen=True):
    """The c= of a signature: how much of header and body may change on the way (RFC 6376 §3.4)."""

    relaxed_header: bool = True
    relaxed_body: bool = True

    def __str__(self) -> str:
        words = ("simple", "relaxed")
        return f"{words[self.relaxed_header]}/{words[self.relaxed_body]}"

    @classmethod
    def parse(cls, text: str) -> "Canonicalization":
        """`relaxed/relaxed` and its like; ValueError for anything else."""
        header, _, body = text.partition("/")
        if not {header, body} <= {"simple", "relaxed"}:
            raise ValueError("write simple or relaxed, a slash, simple or relaxed")
        return cls(header == "relaxed", body == "relaxed")


class SigningRules(msgspec.Struct, frozen=True):
    """What is signed (names in lower case), in which form, and for how long a signature holds.

    `lifetime_s` 0: for ever, there is no x=.
    """

    oversigned: tuple[str, ...] = OVERSIGNED
    signed: tuple[str, ...] = SIGNED
    canonicalization: Canonicalization = Canonicalization()
    lifetime_s: float = 0.0


class Key(Protocol):
    """What signs: in whose name, under which selector, and how."""

    @property
    def domain(self) -> str: ...
    @property
    def selector(self) -> str: ...
    @property
    def algorithm(self) -> str: ...
    def sign(self, data: bytes) -> bytes:
        """The signature of these octets."""
        ...


class Covered(msgspec.Struct, frozen=True):
    """What of a message all its signatures cover: h=, those fields in canonical form, bh=."""

    names: tuple[bytes, ...]
    header: bytes
    body_hash: bytes


def sign(content: bytes, keys: Sequence[Key], rules: SigningRules, *, now: float) -> bytes:
    """The DKIM-Signature fields of content with CRLF line ends, one a key, each with its CRLF."""
    covered = cover(content, rules)
    return b"".join(signature_field(covered, key, rules, now=now) for key in keys)


def cover(content: bytes, rules: SigningRules) -> Covered:
    """What of the message is signed; the body is read once, however many keys sign."""
    header, body_at = _parted(content)
    names, lines = _chosen(header, rules)
    digest = body_hash(content, body_at, is_relaxed=rules.canonicalization.relaxed_body)
    return Covered(names, b"".join(lines), base64.b64encode(digest))


def signature_field(covered: Covered, key: Key, rules: SigningRules, *, now: float) -> bytes:
    """One DKIM-Signature field, folded, with its CRLF."""
    second = int(now)
    ends = f" x={second + int(rules.lifetime_s)};" if rules.lifetime_s else ""
    field = b"".join(
        (
            f"DKIM-Signature: v=1; a={key.algorithm}; c={rules.canonicalization};\r\n".encode(),
            _whose(key.domain, key.selector),
            f"\tt={second};{ends}\r\n".encode(),
            _signed_names(covered.names),
            b"\tbh=" + covered.body_hash + b";\r\n\tb=",
        )
    )
    is_relaxed = rules.canonicalization.relaxed_header
    # The field signs itself, with b= empty and without its CRLF (RFC 6376 §3.7).
    own = relaxed_field(field) if is_relaxed else field
    signature = base64.b64encode(key.sign(covered.header + own))
    lines = [signature[at : at + _B64_LINE] for at in range(0, len(signature), _B64_LINE)]
    return field + b"\r\n\t ".join(lines) + b"\r\n"


def _parted(content: bytes) -> tuple[bytes, int]:
    """The header block, and where the body begins."""
    if content.startswith(b"\r\n"):
        return b"", 2
    end = content.find(b"\r\n\r\n")
    return (content[:end], end + 4) if end >= 0 else (content, len(content))


def _chosen(header: bytes, rules: SigningRules) -> tuple[tuple[bytes, ...], list[bytes]]:
    """The names of h=, and the fields that they stand for: of repeated ones the last first."""
    fields: dict[bytes, list[bytes]] = {}
    for octets in _FIELD_END.split(header):
        fields.setdefault(octets.partition(b":")[0].rstrip(b" \t").lower(), []).append(octets)
    is_relaxed = rules.canonicalization.relaxed_header
    names: list[bytes] = []
    lines: list[bytes] = []
    for name, once_more in _wanted(rules):
        found = fields.get(name, ())
        names += [name] * (len(found) + once_more)
        for octets in reversed(found):
            octets = octets.removesuffix(b"\r\n")  # noqa: PLW2901 (of a header without a body)
            lines += (relaxed_field(octets) if is_relaxed else octets, b"\r\n")
    return tuple(names), lines


@lru_cache(maxsize=16)
def _wanted(rules: SigningRules) -> tuple[tuple[bytes, int], ...]:
    over = [(name.encode(), 1) for name in rules.oversigned]
    return (*over, *((name.encode(), 0) for name in rules.signed if name not in rules.oversigned))


def relaxed_field(octets: bytes) -> bytes:
    """A field in relaxed form, without CRLF (RFC 6376 §3.4.2)."""
    name, _, value = octets.partition(b":")
    words = value.replace(b"\r\n", b"").replace(b"\t", b" ").split(b" ")
    return name.rstrip(b" \t").lower() + b":" + b" ".join([word for word in words if word])


def body_hash(content: bytes, body_at: int, *, is_relaxed: bool) -> bytes:
    """The SHA-256 of the body in canonical form (RFC 6376 §3.4.3, §3.4.4).

    Large bodies are taken in blocks of whole lines: memory stays bounded, and no call holds the
    interpreter for long. Empty lines count only when another line follows.
    """
    digest, empty_lines, is_empty = hashlib.sha256(), 0, True
    for block in whole_lines(content, body_at):
        lines = relaxed_lines(block) if is_relaxed else block
        text = lines.rstrip(b"\r\n")
        if not text:
            empty_lines += lines.count(b"\n")
            continue
        _add_empty_lines(digest, empty_lines)
        digest.update(text)
        empty_lines, is_empty = lines.count(b"\n", len(text)), False
    if not (is_empty and is_relaxed):
        digest.update(b"\r\n")
    return digest.digest()


def _add_empty_lines(digest: "hashlib._Hash", count: int) -> None:
    while count > 0:
        digest.update(b"\r\n" * min(count, BLOCK_OCTETS))
        count -= BLOCK_OCTETS


def relaxed_lines(lines: bytes) -> bytes:
    """Lines with each run of blanks one space, and none at their ends."""
    if b"\t" in lines:
        lines = lines.replace(b"\t", b" ")
    if b" " in lines:
        while b"  " in lines:
            lines = lines.replace(b"  ", b" ")
        lines = lines.replace(b" \r\n", b"\r\n").removesuffix(b" ")
    return lines


@lru_cache(maxsize=1024)
def _whose(domain: str, selector: str) -> bytes:
    is_long = len(domain) + len(selector) > _LINE - 10
    return (
        f"\td={domain};{chr(13) + chr(10) + chr(9) if is_long else ' '}s={selector};\r\n".encode()
    )


@lru_cache(maxsize=1024)
def _signed_names(names: tuple[bytes, ...]) -> bytes:
    lines = [b"\th="]
    for position, name in enumerate(names):
        item = name + (b":" if position + 1 < len(names) else b";")
        if len(lines[-1]) + len(item) > _LINE:
            lines.append(b"\t ")
        lines[-1] += item
    return b"\r\n".join(lines) + b"\r\n"
