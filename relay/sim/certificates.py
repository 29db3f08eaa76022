"""Certificates of the simulated hosts: one authority per run, leaves made when first needed.

A client that trusts `authority_path` can verify every host by name; `wrong-name` and `expired`
leaves exist for the hosts scripted so.
"""

import datetime
import hashlib
import ssl
import tempfile
from collections import OrderedDict
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: TLS contexts kept; each holds some ten KiB.
MAX_CONTEXTS = 1024
_DAY = datetime.timedelta(days=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


class Certificates:
    """The authority of one run and the TLS contexts of its hosts; `close` removes its files."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="relay-sink-")
        self.authority_path = str(Path(self._folder.name) / "authority.pem")
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._authority_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: OrderedDict[tuple[str, str], ssl.SSLContext] = OrderedDict()
        self.authority_pem = self._make_authority()
        Path(self.authority_path).write_bytes(self.authority_pem)

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()

    @property
    def key_digest(self) -> bytes:
        """SHA-256 of the public key that all hosts have, as TLSA records hold it."""
        key = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(key).digest()

    def context_for(self, host: str, kind: str = "good") -> ssl.SSLContext:
        """The server context of a host; kind is good, wrong-name or expired."""
        key = (host, kind)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = self._make_context(host, kind)
            if len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        else:
            self._contexts.move_to_end(key)
        return context

    def _make_authority(self) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        name = _name("relay sink test authority")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._authority_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * _DAY)
            .not_valid_after(now + 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=False,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._authority_key.public_key()),
                critical=False,
            )
            .sign(self._authority_key, hashes.SHA256())
        )
        self._authority = certificate
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _make_leaf(self, host: str, kind: str) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        shown = "another-name.invalid" if kind == "wrong-name" else host
        ends = now - _DAY if kind == "expired" else now + 7 * _DAY
        key_id = x509.SubjectKeyIdentifier.from_public_key(self._authority_key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(shown))
            .issuer_name(self._authority.subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 8 * _DAY)
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(shown)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id),
                critical=False,
            )
            .sign(self._authority_key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _make_context(self, host: str, kind: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        path = Path(self._folder.name) / "leaf.pem"
        key = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(key + self._make_leaf(host, kind))
        context.load_cert_chain(path)
        path.unlink()
        return context
