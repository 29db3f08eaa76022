"""What a peer's certificate says, for people who look at it; nothing is decided by it."""

import contextlib
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

#: Names that are read: a shared host may have hundreds.
_NAMES_READ = 50
_NAME_LENGTH = 255


class Certificate(msgspec.Struct, frozen=True):
    """Whom it names, who issued it, and between which moments it holds."""

    names: tuple[str, ...]
    issuer: str
    not_before: datetime
    not_after: datetime
    is_self_signed: bool


def read_certificate(der: bytes) -> Certificate | None:
    """The certificate of DER octets; None where nobody can read it."""
    try:
        parsed = x509.load_der_x509_certificate(der)
        return Certificate(
            names=_names(parsed),
            issuer=_printable(parsed.issuer.rfc4514_string()),
            not_before=parsed.not_valid_before_utc,
            not_after=parsed.not_valid_after_utc,
            is_self_signed=parsed.issuer == parsed.subject,
        )
    except Exception:  # the peer wrote it, and may have written anything
        return None


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The subject's alternative names, else its common name."""
    names: list[str] = []
    with contextlib.suppress(x509.ExtensionNotFound):
        extension = certificate.extensions.get_extension_for_oid(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        ).value
        assert isinstance(extension, x509.SubjectAlternativeName)
        names += extension.get_values_for_type(x509.DNSName)
        names += map(str, extension.get_values_for_type(x509.IPAddress))
    if not names:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names += [str(attribute.value) for attribute in common]
    return tuple(_printable(name) for name in names[:_NAMES_READ])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_NAME_LENGTH])
