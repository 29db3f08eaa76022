"""TLS contexts for outbound sessions and what a session says about its encryption (RFC 3207).

Two kinds only. Unverified: any certificate, because the choice is between it and clear text.
Verified: chain and host name, against `SSL_CERT_FILE`, `SSL_CERT_DIR` or the system's store.
"""

import asyncio
import contextlib
import os
import ssl
from functools import lru_cache
from pathlib import Path

from relay.model.errors import ConfigError

#: Where distributions keep their store, for Python builds that do not know their system.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def abort_transport(transport: asyncio.WriteTransport) -> None:
    """Abort, whatever its state: after its end a TLS transport of Python 3.11.2 cannot."""
    with contextlib.suppress(AttributeError):
        transport.abort()


def client_context(*, verified: bool) -> ssl.SSLContext:
    """The shared context of one kind; made once for each value of the two variables."""
    if not verified:
        return _unverified()
    return _verified(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))


@lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A weak key is better than clear text, which is what comes next.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


@lru_cache(maxsize=8)
def _verified(cert_file: str, cert_dir: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if cert_file or cert_dir:
            context.load_verify_locations(cert_file or None, cert_dir or None)
        else:
            _load_system_store(context)
    except (OSError, ssl.SSLError) as error:
        where = cert_file or cert_dir or "the system's certificate store"
        raise ConfigError(f"cannot read certificates from {where}: {error}") from error
    return context


def _load_system_store(context: ssl.SSLContext) -> None:
    context.set_default_verify_paths()
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:
        return
    for bundle in _BUNDLES:
        if Path(bundle).exists():
            context.load_verify_locations(bundle)
            return


def tls_info(tls: ssl.SSLObject | None) -> dict[str, str | bool]:
    """Version, cipher, and whether the peer's certificate was demanded and checked; {}: clear."""
    if tls is None:
        return {}
    cipher = tls.cipher()
    return {
        "version": tls.version() or "",
        "cipher": cipher[0] if cipher else "",
        "verified": tls.context.verify_mode is ssl.CERT_REQUIRED,
    }


def failure_text(error: BaseException) -> str:
    """What went wrong in a handshake, in words that say it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS handshake failed: {error.reason.lower().replace('_', ' ')}"
    return f"TLS handshake failed: {error or 'connection closed'}"
