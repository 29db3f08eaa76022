"""TLS contexts for outbound sessions and what a session says about its encryption (RFC 3207).

Two kinds only. Unverified: any certificate, because the choice is between it and clear text.
Verified: chain and host name, against `SSL_CERT_FILE`, `SSL_CERT_DIR` or the system's store.
Each remembers the sessions of its hosts, so that the next handshake with one is a short one.
"""

import asyncio
import contextlib
import os
import ssl
import time
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from relay.model.errors import ConfigError

#: Where distributions keep their store, for Python builds that do not know their system.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


#: Sessions remembered by each context, and for how long at most.
SESSIONS_KEPT = 1000
SESSION_LIFE_S = 3600.0


class ResumingContext(ssl.SSLContext):
    """A client context that offers each host the session that it gave last (RFC 8446 §2.2).

    A verified session was verified under the same name: sessions never go from context to context.
    """

    def __init__(self, protocol: int) -> None:
        self.is_resuming = True
        self._sessions: OrderedDict[str, tuple[float, ssl.SSLSession]] = OrderedDict()

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As the base; event loops call it without a session, so it is put in here."""
        if session is None and isinstance(server_hostname, str):
            session = self._session_of(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def keep(self, host: str, session: ssl.SSLSession | None) -> None:
        """Remember what the next handshake with this host may resume."""
        if session is None or not session.has_ticket or not self.is_resuming:
            return
        self._sessions.pop(host, None)
        if len(self._sessions) >= SESSIONS_KEPT:
            self._sessions.popitem(last=False)
        life_s = min(SESSION_LIFE_S, session.timeout)
        self._sessions[host] = (time.monotonic() + life_s, session)

    def forget(self, host: str) -> None:
        """Begin anew with this host: a handshake with it failed."""
        self._sessions.pop(host, None)

    def _session_of(self, host: str) -> ssl.SSLSession | None:
        ends, session = self._sessions.get(host, (0.0, None))
        return session if ends > time.monotonic() else None


def abort_transport(transport: asyncio.WriteTransport) -> None:
    """Abort, whatever its state: after its end a TLS transport of Python 3.11.2 cannot."""
    with contextlib.suppress(AttributeError):
        transport.abort()


def client_context(*, verified: bool) -> ResumingContext:
    """The shared context of one kind; made anew, without sessions, when the store has changed."""
    return _verified(trusted_store()) if verified else _unverified()


class TrustedStore(NamedTuple):
    """Which certificates are trusted: a file or folder, else the system's; when it was changed."""

    file: str
    folder: str
    changed: tuple[int, ...]


def trusted_store() -> TrustedStore:
    """The store that the two variables name, as it is now."""
    file, folder = os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", "")
    watched = [file, folder] if file or folder else _system_store()
    return TrustedStore(file, folder, tuple(_changed_at(path) for path in watched if path))


def _changed_at(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _system_store() -> tuple[str, ...]:
    """The files and folders of the system's store that exist."""
    paths = ssl.get_default_verify_paths()
    known = [path for path in (paths.cafile, paths.capath) if path]
    return tuple(known or [bundle for bundle in _BUNDLES if Path(bundle).exists()][:1])


@lru_cache(maxsize=1)
def dane_context() -> ResumingContext:
    """A context whose owner checks the chain himself; nothing is resumed, so that there is one."""
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.is_resuming = False
    return context


def peer_chain(tls: ssl.SSLObject) -> list[bytes]:
    """The certificates that the peer sent (DER), its own first, whether they are good or not."""
    # Public from Python 3.13 on; the object below has had it since 3.10.
    ask = getattr(tls, "get_unverified_chain", None)
    if ask is None:
        ask = getattr(tls, "_sslobj").get_unverified_chain  # noqa: B009
    return [one if isinstance(one, bytes) else _der_of(one) for one in ask() or ()]


def _der_of(certificate: Any) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.public_bytes())


@lru_cache(maxsize=1)
def _unverified() -> ResumingContext:
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A weak key is better than clear text, which is what comes next.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


@lru_cache(maxsize=4)
def _verified(store: TrustedStore) -> ResumingContext:
    return trusted_context(store)


def trusted_context(store: TrustedStore) -> ResumingContext:
    """A context that demands a certificate of the store, for a name among its alternative ones.

    The common name is no host name (RFC 9525 §2). ConfigError where the store cannot be read.
    """
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    try:
        if store.file or store.folder:
            context.load_verify_locations(store.file or None, store.folder or None)
        else:
            _load_system_store(context)
    except (OSError, ssl.SSLError) as error:
        where = store.file or store.folder or "the system's certificate store"
        raise ConfigError(f"cannot read certificates from {where}: {error}") from error
    return context


def _load_system_store(context: ssl.SSLContext) -> None:
    context.set_default_verify_paths()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):
        for bundle in _system_store():
            context.load_verify_locations(bundle)


def tls_info(tls: ssl.SSLObject | None) -> dict[str, str | bool]:
    """What a session is encrypted with, and whom its certificate names; {}: in clear.

    `verified`: the certificate was demanded and checked. `resumed`: in an earlier session.
    """
    if tls is None:
        return {}
    cipher = tls.cipher()
    return {
        "version": tls.version() or "",
        "cipher": cipher[0] if cipher else "",
        "verified": tls.context.verify_mode is ssl.CERT_REQUIRED,
        "peer_name": peer_name(tls.getpeercert(binary_form=True) or b""),
        "resumed": bool(tls.session_reused),
    }


@lru_cache(maxsize=1024)
def peer_name(certificate: bytes) -> str:
    """The first name that a certificate (DER) is for, its common name, or nothing readable: ""."""
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        with contextlib.suppress(x509.ExtensionNotFound):
            names = parsed.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
            assert isinstance(names.value, x509.SubjectAlternativeName)
            if found := names.value.get_values_for_type(x509.DNSName):
                return found[0][:255]
        common = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(common[0].value)[:255] if common else ""
    except Exception:  # the peer wrote it
        return ""


def channel_binding(tls: ssl.SSLObject | None) -> tuple[str, bytes]:
    """Type and value of the channel binding (RFC 5929, RFC 9266); empty where there is none.

    TLS 1.3 has only tls-exporter, tls-unique is for the versions before it; which types can be
    had depends on Python.
    """
    if tls is None:
        return "", b""
    kind = "tls-exporter" if tls.version() == "TLSv1.3" else "tls-unique"
    if kind not in ssl.CHANNEL_BINDING_TYPES:
        return "", b""
    value = tls.get_channel_binding(kind)
    return (kind, value) if value else ("", b"")


def failure_text(error: BaseException) -> str:
    """What went wrong in a handshake, in words that say it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS handshake failed: {error.reason.lower().replace('_', ' ')}"
    return f"TLS handshake failed: {error or 'connection closed'}"
