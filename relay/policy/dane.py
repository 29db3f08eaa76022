"""DANE for SMTP: whether a server's certificates are those of its TLSA records (RFC 6698, 7672).

DANE-EE (3) names the server's own certificate or key: nothing else about it matters, neither name
nor date. DANE-TA (2) names an issuer in the chain that the server sends: dates, signatures and the
host's name are checked. Other usages, and what is not well-formed, is unusable (RFC 7672 §3.1.3).
"""

import datetime
import hashlib
from collections.abc import Iterable, Sequence

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.policy.mx import host_name

#: Certificates of a chain, and records of a host, that are looked at.
CHAIN_LENGTH, RECORDS_KEPT = 10, 32

_TA, _EE = 2, 3
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}


class Tlsa(msgspec.Struct, frozen=True):
    """One TLSA record: usage, selector (0 certificate, 1 key), matching type (0 the octets
    themselves, 1 SHA-256, 2 SHA-512) and data."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def is_by_issuer(self) -> bool:
        """Whether it names an issuer, so that the name in the server's certificate counts."""
        return self.usage == _TA

    @property
    def is_usable(self) -> bool:
        """Whether a client of SMTP can use it."""
        if self.usage not in (_TA, _EE) or self.selector not in (0, 1):
            return False
        if self.matching == 0:
            return bool(self.data)
        digest = _DIGESTS.get(self.matching)
        return digest is not None and len(self.data) == digest().digest_size

    def stands_for(self, certificate: x509.Certificate) -> bool:
        """Whether the record is about this certificate, or its key."""
        if self.selector == 0:
            octets = certificate.public_bytes(Encoding.DER)
        else:
            key = certificate.public_key()
            octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = _DIGESTS.get(self.matching)
        return (digest(octets).digest() if digest else octets) == self.data


def read_tlsa(texts: Iterable[str]) -> tuple[Tlsa, ...]:
    """Records of their text form, `3 1 1 <hex>`; ValueError where one is in another form."""
    records = []
    for text in list(texts)[:RECORDS_KEPT]:
        usage, selector, matching, data = text.split(" ")
        records.append(Tlsa(int(usage), int(selector), int(matching), bytes.fromhex(data)))
    return tuple(records)


def why_not(
    records: Sequence[Tlsa], chain: Sequence[bytes], names: Sequence[str], now: datetime.datetime
) -> str:
    """What is wrong with a chain (DER, the server's first); empty: a record vouches for it.

    `names` are those of which the certificate has one, for DANE-TA (RFC 7672 §3.2.2): first that
    under which the records were found. `now` has a time zone.
    """
    if not chain:
        return "the server showed no certificate"
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain[:CHAIN_LENGTH]]
        if any(r.usage == _EE and r.stands_for(certificates[0]) for r in records):
            return ""
        anchors = [record for record in records if record.usage == _TA]
        if not anchors:
            return "no TLSA record stands for the server's certificate"
        return _why_not_by_issuer(anchors, certificates, names, now)
    except (ValueError, UnsupportedAlgorithm, x509.UnsupportedGeneralNameType) as error:
        return f"a certificate cannot be read ({' '.join(str(error).split())[:80]})"


def _why_not_by_issuer(
    anchors: Sequence[Tlsa],
    certificates: Sequence[x509.Certificate],
    names: Sequence[str],
    now: datetime.datetime,
) -> str:
    path = _path_to(anchors, certificates)
    if not path:
        return "no TLSA record stands for an issuer in the server's chain"
    for certificate in path:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            return "a certificate in the server's chain is out of date"
    if not all(map(_may_issue, path[1:])):
        return "a certificate in the server's chain was issued by none that may"
    if not any(_is_for(path[0], name) for name in names):
        return f"the certificate is not for {names[0]}"
    return ""


def _path_to(
    anchors: Sequence[Tlsa], certificates: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """From the server's certificate up, each signed by the next, to one that a record names."""
    named = [*certificates[1:], *_whole_issuers(anchors)]
    path = [certificates[0]]
    while not any(anchor.stands_for(path[-1]) for anchor in anchors):
        issuer = next((one for one in named if one not in path and _issued(path[-1], one)), None)
        if issuer is None:
            return []
        path.append(issuer)
    return path


def _whole_issuers(anchors: Sequence[Tlsa]) -> list[x509.Certificate]:
    """Issuers that stand whole in their record: servers may leave them out of the chain."""
    whole = [one.data for one in anchors if one.selector == 0 and one.matching == 0]
    return [x509.load_der_x509_certificate(data) for data in whole]


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return constraints.value.ca


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    """Whether the certificate is for the host; `*` stands for the first label (RFC 6125 §6.4.3)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    wanted = host_name(host)
    parent = wanted.partition(".")[2]
    known = set(map(host_name, names.value.get_values_for_type(x509.DNSName)))
    return wanted in known or (bool(parent) and f"*.{parent}" in known)
