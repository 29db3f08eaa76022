"""Fetches one MTA-STS policy over HTTPS, from an address that the caller allows (RFC 8461 §3.3).

Rules of this file: whoever owns a recipient domain chooses what answers here. One fixed URL, no
redirect, no proxy, no cookie, no compression; the certificate must be that of `mta-sts.<domain>`;
at most 64 KiB and `FETCH_S` seconds in all; what is not exactly a policy's answer is none.
"""

import asyncio
import importlib
import os
import ssl
from functools import lru_cache

from relay.net.tls import failure_text, trusted_context

#: Seconds for a fetch with all that belongs to it (RFC 8461 §3.3 suggests a minute).
FETCH_S = 30.0
_CONNECT_S = 10.0


class PolicyUnavailable(Exception):
    """Raised when no policy could be fetched: what went wrong, in words."""


async def fetch_policy(
    domain: str, address: str, port: int, *, limit: int, source_address: str = ""
) -> str:
    """The text at `https://mta-sts.<domain>/.well-known/mta-sts.txt`; PolicyUnavailable."""
    try:
        async with asyncio.timeout(FETCH_S):
            return await _fetch(domain, address, port, limit, source_address)
    except TimeoutError:
        raise PolicyUnavailable(f"no policy within {FETCH_S:g} s") from None


async def _fetch(domain: str, address: str, port: int, limit: int, source_address: str) -> str:
    # 0.1 s to import, which the loop has no time for.
    httpx = await asyncio.to_thread(importlib.import_module, "httpx")
    host = f"mta-sts.{domain}"
    literal = f"[{address}]" if ":" in address else address
    transport = httpx.AsyncHTTPTransport(
        verify=_context(), trust_env=False, local_address=source_address or None
    )
    try:
        async with (
            httpx.AsyncClient(transport=transport, trust_env=False, timeout=_CONNECT_S) as client,
            client.stream(
                "GET",
                f"https://{literal}:{port}/.well-known/mta-sts.txt",
                headers={"Host": host, "Accept": "text/plain", "Accept-Encoding": "identity"},
                extensions={"sni_hostname": host},
                follow_redirects=False,
            ) as response,
        ):
            _check(response.status_code, response.headers)
            octets = b""
            async for chunk in response.aiter_raw():
                octets += chunk
                if len(octets) > limit:
                    raise PolicyUnavailable(f"it is larger than {limit} octets")
    except httpx.TransportError as error:
        raise PolicyUnavailable(_words(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        raise PolicyUnavailable(str(error) or type(error).__name__) from error
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise PolicyUnavailable("it is no text") from None


def _check(status: int, headers: "dict[str, str]") -> None:
    """Refuse what is no policy before any of it is read."""
    if status != 200:
        raise PolicyUnavailable(f"the server answered {status}, not 200")
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "text/plain":
        raise PolicyUnavailable(f"its media type is {media_type[:60]!r}, not text/plain")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise PolicyUnavailable("it is compressed, which was not asked for")


def _words(error: BaseException) -> str:
    """What went wrong below HTTP; httpx wraps what the TLS layer said."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return failure_text(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error) or f"no answer ({type(error).__name__})"


def _context() -> ssl.SSLContext:
    """A context of its own: HTTP libraries set protocol names (ALPN) on it."""
    return _fresh(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))


@lru_cache(maxsize=2)
def _fresh(cert_file: str, cert_dir: str) -> ssl.SSLContext:
    return trusted_context(cert_file, cert_dir)
