"""DKIM keys: read from PEM, made anew, and as TXT records (RFC 6376 §3.6, 8301, 8463)."""

import base64
import hashlib
import re
from typing import Literal

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from relay.model.address import normalize_domain

#: RFC 8301 §3.2: signers use at least 1024 bits and should use 2048; verifiers need not take over
#: 4096.
LEAST_BITS, ADVISED_BITS, MOST_BITS = 1024, 2048, 4096
#: Octets of one string of a TXT record (RFC 1035 §3.3).
STRING_OCTETS = 255

_TAG = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*(.*?)\s*\Z", re.DOTALL)

Kind = Literal["rsa", "ed25519"]


class DkimKey(msgspec.Struct, frozen=True, eq=False):
    """A private key with the domain and selector that it signs for."""

    domain: str
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey

    def __repr__(self) -> str:
        """Whose key it is, and nothing of the key."""
        return f"DkimKey({self.name}, {self.algorithm})"

    @property
    def name(self) -> str:
        """Where its record stands in DNS."""
        return record_name(self.domain, self.selector)

    @property
    def kind(self) -> Kind:
        return "ed25519" if isinstance(self.private, Ed25519PrivateKey) else "rsa"

    @property
    def algorithm(self) -> str:
        return f"{self.kind}-sha256"

    @property
    def bits(self) -> int:
        return 256 if isinstance(self.private, Ed25519PrivateKey) else self.private.key_size

    def sign(self, data: bytes) -> bytes:
        """RSA over the octets (RFC 6376 §3.3.1), Ed25519 over their SHA-256 (RFC 8463 §3)."""
        if isinstance(self.private, Ed25519PrivateKey):
            return self.private.sign(hashlib.sha256(data).digest())
        return self.private.sign(data, PKCS1v15(), SHA256())

    @property
    def public(self) -> str:
        """The p= of its record."""
        key = self.private.public_key()
        if self.kind == "ed25519":
            octets = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        else:
            octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(octets).decode()

    @property
    def record(self) -> str:
        """The text of its TXT record."""
        return f"v=DKIM1; k={self.kind}; p={self.public}"

    def pem(self) -> bytes:
        """The private key as it is kept in a file."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def record_name(domain: str, selector: str) -> str:
    """The name of the TXT record (RFC 6376 §3.6.2.1)."""
    return f"{selector}._domainkey.{domain}"


def make_key(domain: str, selector: str, kind: Kind) -> DkimKey:
    """A new key; ValueError where domain or selector are no names."""
    _check_name(domain, selector)
    private = (
        Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(65537, 2048)
    )
    return DkimKey(domain, selector, private)


def read_key(pem: bytes, domain: str, selector: str) -> DkimKey:
    """The key of a PEM text; ValueError says what is wrong with it, and what to do."""
    _check_name(domain, selector)
    make_one = f"`relay dkim keygen {domain}` makes one"
    if b"-----BEGIN" not in pem:
        raise ValueError(f"is no PEM text (-----BEGIN PRIVATE KEY-----); {make_one}")
    if b"PRIVATE KEY-----" not in pem:
        raise ValueError(f"holds no private key; {make_one}")
    try:
        private = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError(
            "is encrypted, and nobody could be asked for its password; "
            "decrypt it with `openssl pkey -in FILE -out FILE`"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"is damaged: it cannot be read as a private key; {make_one}") from None
    if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        raise ValueError(f"is neither an RSA nor an Ed25519 key (RFC 8301, 8463); {make_one}")
    key = DkimKey(domain, selector, private)
    if key.kind == "rsa" and not LEAST_BITS <= key.bits <= MOST_BITS:
        raise ValueError(
            f"has {key.bits} bits, and RSA keys for DKIM have {LEAST_BITS} to {MOST_BITS} "
            f"(RFC 8301); {make_one} of {ADVISED_BITS}"
        )
    return key


def _check_name(domain: str, selector: str) -> None:
    name = record_name(domain, selector)
    try:
        normalized = normalize_domain(name)
    except ValueError as error:
        raise ValueError(f"'{name}' {error}") from None
    if normalized != name:
        raise ValueError(f"'{name}' is not in lower-case ASCII; write '{normalized}'")


def zone_line(name: str, value: str) -> str:
    """The record as a line of a zone file, in strings of at most 255 octets."""
    parts = [value[at : at + STRING_OCTETS] for at in range(0, len(value), STRING_OCTETS)]
    if len(parts) == 1:
        return f'{name}. IN TXT "{parts[0]}"'
    quoted = "\n".join(f'    "{part}"' for part in parts)
    return f"{name}. IN TXT (\n{quoted} )"


def compare_record(published: str, key: DkimKey) -> str:
    """What is wrong with a published record; empty: receivers can verify with it.

    RFC 6376 §3.6.1; a tag that we do not know is ignored, as verifiers do.
    """
    tags: dict[str, str] = {}
    for part in published.split(";"):
        if not part.strip():
            continue
        match = _TAG.match(part)
        if match is None:
            return f"it is malformed at {part.strip()[:40]!r}; publish it as printed"
        tags.setdefault(match[1], match[2])
    if tags.get("v", "DKIM1") != "DKIM1":
        return f"it is no DKIM record: v={tags['v'][:40]}"
    if "p" not in tags:
        return "it has no p= (the public key)"
    public = "".join(tags["p"].split())
    if not public:
        return "its p= is empty: the key is revoked (RFC 6376 §3.6.1)"
    if tags.get("k", "rsa") != key.kind:
        return f"it is of a key of another kind: k={tags.get('k', 'rsa')[:40]}, not {key.kind}"
    if public != key.public:
        return "it is of another key: p= differs"
    if "sha256" not in [word.strip() for word in tags.get("h", "sha256").split(":")]:
        return f"it does not allow SHA-256: h={tags['h'][:40]}"
    if not {"*", "email"} & {word.strip() for word in tags.get("s", "*").split(":")}:
        return f"it is not for mail: s={tags['s'][:40]}"
    if "y" in [word.strip() for word in tags.get("t", "").split(":")]:
        return "it is marked as a test (t=y): receivers treat the mail as unsigned; remove t=y"
    return ""
