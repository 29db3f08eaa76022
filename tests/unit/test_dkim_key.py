"""DKIM keys: what is read, what is refused and why, and the record that receivers look up."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from relay.smtp.dkim_key import DkimKey, compare_record, make_key, read_key, zone_line

RSA, ED25519 = (make_key("example.org", "s1", kind) for kind in ("rsa", "ed25519"))


def pem_of(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("key", [RSA, ED25519])
def test_dkim_key_is_read_back_from_its_file(key: DkimKey) -> None:
    again = read_key(key.pem(), "example.org", "s1")
    assert (again.record, again.kind, again.bits) == (key.record, key.kind, key.bits)
    assert compare_record(key.record, again) == ""


def test_dkim_key_in_the_older_form_of_openssl_is_read_too() -> None:
    assert not isinstance(RSA.private, Ed25519PrivateKey)
    pem = RSA.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert read_key(pem, "example.org", "s1").record == RSA.record


def test_dkim_public_key_is_written_as_in_the_standard() -> None:
    """RFC 8463 §A.2."""
    seed = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    key = DkimKey("football.example.com", "brisbane", Ed25519PrivateKey.from_private_bytes(seed))
    assert key.record == "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


ENCRYPTED = RSA.private.private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
)
PUBLIC = RSA.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DAMAGED = b"-----BEGIN PRIVATE KEY-----\nabcd\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("pem", "fault"),
    [
        (b"", "is no PEM text .* `relay dkim keygen example.org` makes one"),
        (b"\xff\x00", "is no PEM text"),
        (PUBLIC, "holds no private key"),
        (DAMAGED, "is damaged"),
        (ENCRYPTED, "is encrypted, .*openssl pkey"),
        (pem_of(ec.generate_private_key(ec.SECP256R1())), "is neither an RSA nor an Ed25519 key"),
    ],
    ids=["empty", "binary", "public", "damaged", "encrypted", "curve"],
)
def test_dkim_key_that_cannot_sign_is_refused_with_its_fault(pem: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=f"^{fault}"):
        read_key(pem, "example.org", "s1")


def rsa_of(one: int, other: int) -> bytes:
    """A key of two Mersenne primes 2^n - 1: its size is all that is right with it."""
    p, q = 2**one - 1, 2**other - 1
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return pem_of(numbers.private_key(unsafe_skip_rsa_key_validation=True))


@pytest.mark.parametrize(("primes", "bits"), [((521, 127), 648), ((4253, 521), 4774)])
def test_dkim_key_that_receivers_do_not_take_is_refused(primes: tuple[int, int], bits: int) -> None:
    fault = rf"^has {bits} bits, and RSA keys for DKIM have 1024 to 4096 \(RFC 8301\); .*keygen"
    with pytest.raises(ValueError, match=fault):
        read_key(rsa_of(*primes), "example.org", "s1")


@pytest.mark.parametrize(
    ("domain", "selector", "fault"),
    [
        ("exa mple.org", "s1", "invalid label"),
        ("example.org", "", "empty label"),
        ("example.org", "s" * 64, "label of 64 octets"),
        ("Example.org", "s1", "not in lower-case ASCII; write 's1._domainkey.example.org'"),
    ],
)
def test_dkim_names_that_dns_cannot_hold_are_refused(
    domain: str, selector: str, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        make_key(domain, selector, "ed25519")


def test_dkim_record_is_split_into_strings_of_255_octets() -> None:
    line = zone_line(RSA.name, RSA.record)
    strings = line.split('"')[1::2]
    assert line.startswith("s1._domainkey.example.org. IN TXT (")
    assert "".join(strings) == RSA.record and [len(part) > 255 for part in strings] == [False] * 2
    assert zone_line("n", "v=1") == 'n. IN TXT "v=1"'


#: `{p}` stands for the right public key: names of tests are alike in every process.
@pytest.mark.parametrize(
    ("published", "fault"),
    [
        ("p={p}; k=ed25519", ""),
        (" k = ed25519 ; p = {p};; n=a note; h=sha1:sha256; s=email; t=s;", ""),
        ("v=DKIM2; k=ed25519; p={p}", "it is no DKIM record: v=DKIM2"),
        ("v=DKIM1; k=ed25519; p=", "its p= is empty"),
        ("v=DKIM1; k=ed25519", "it has no p="),
        ("v=DKIM1; p={p}", "it is of a key of another kind: k=rsa"),
        ("v=DKIM1; k=ed25519; p=abcd", "it is of another key"),
        ("v=DKIM1; k=ed25519; h=sha1; p={p}", "it does not allow SHA-256"),
        ("v=DKIM1; k=ed25519; s=tlsrpt; p={p}", "it is not for mail"),
        ("v=DKIM1; k=ed25519; t=y:s; p={p}", "it is marked as a test"),
        ("nonsense", "it is malformed at 'nonsense'"),
    ],
)
def test_dkim_published_record_is_judged_as_a_verifier_does(published: str, fault: str) -> None:
    found = compare_record(published.replace("{p}", ED25519.public), ED25519)
    assert found.startswith(fault) and bool(found) == bool(fault)


def test_dkim_key_shows_nothing_of_itself() -> None:
    assert repr(RSA) == "DkimKey(s1._domainkey.example.org, rsa-sha256)"
