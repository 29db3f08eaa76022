"""One request over HTTPS to an address that the caller allows, of a host that a stranger named.

Rules of this file: no redirect, no proxy, no cookie, no compression that was not asked for; the
certificate must be that of the named host; the caller bounds octets and time.
"""

import asyncio
import importlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from relay.net.tls import TrustedStore, failure_text, trusted_context, trusted_store

_STEP_S = 10.0


class HttpsFailed(Exception):
    """Raised when no answer came about: what went wrong, in words.

    `is_untrusted`: it was the server's certificate.
    """

    def __init__(self, text: str, *, is_untrusted: bool = False) -> None:
        super().__init__(text)
        self.is_untrusted = is_untrusted


@asynccontextmanager
async def ask(
    method: str,
    host: str,
    address: str,
    port: int,
    path: str,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
    source_address: str = "",
) -> AsyncIterator[Any]:
    """The answer of a host at an IP address, its body not read yet (httpx.Response); HttpsFailed.

    Each step (connect, a read, a write) has 10 s.
    """
    # 0.1 s to import, which the loop has no time for.
    httpx = await asyncio.to_thread(importlib.import_module, "httpx")
    literal = f"[{address}]" if ":" in address else address
    named = host if port == 443 else f"{host}:{port}"
    transport = httpx.AsyncHTTPTransport(
        verify=_context(), trust_env=False, local_address=source_address or None
    )
    try:
        async with (
            httpx.AsyncClient(transport=transport, trust_env=False, timeout=_STEP_S) as client,
            client.stream(
                method,
                f"https://{literal}:{port}{path}",
                headers={"Host": named, "Accept-Encoding": "identity", **headers},
                content=content,
                extensions={"sni_hostname": host},
                follow_redirects=False,
            ) as response,
        ):
            yield response
    except httpx.TransportError as error:
        raise _failed(error) from error
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        raise HttpsFailed(str(error) or type(error).__name__) from error


def _failed(error: BaseException) -> HttpsFailed:
    """What went wrong below HTTP; httpx wraps what the TLS layer said."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            is_untrusted = isinstance(cause, ssl.SSLCertVerificationError)
            return HttpsFailed(failure_text(cause), is_untrusted=is_untrusted)
        cause = cause.__cause__ or cause.__context__
    return HttpsFailed(str(error) or f"no answer ({type(error).__name__})")


def _context() -> ssl.SSLContext:
    """A context of its own: HTTP libraries set protocol names (ALPN) on it."""
    return _made_for(trusted_store())


@lru_cache(maxsize=2)
def _made_for(store: TrustedStore) -> ssl.SSLContext:
    return trusted_context(store)
