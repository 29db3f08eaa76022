"""What stands before every request: its id, its key or its locality, its media type.

Without keys the API is open to whoever can reach the loopback address; so that no web page can
make a visitor's browser do it, Host must be local and a POST must say what simple forms cannot.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.ingress.http.problem import Problem, problem_response

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: Probes and scrapers have no key and change nothing.
_OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
_MEDIA_TYPES = frozenset({"application/json", "message/rfc822"})


class Guard:
    """An ASGI middleware; `keys` are plain or `sha256:<hex>`, `names` further Host names."""

    def __init__(self, app: ASGIApp, *, keys: Sequence[str], names: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest_of(key) for key in keys]
        self._names = _LOCAL_NAMES | set(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass or answer it with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if _REQUEST_ID.fullmatch(request_id) is None:
            request_id = secrets.token_hex(8)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        scope["relay.request_id"] = request_id
        problem = self._problem(scope, headers)
        if problem is None:
            await self._app(scope, receive, send_with_id)
        else:
            await problem_response(problem, scope["path"])(scope, receive, send_with_id)

    def _problem(self, scope: Scope, headers: Headers) -> Problem | None:
        if self._digests:
            if scope["path"] in _OPEN_PATHS or self._has_key(headers):
                return None
            return Problem(
                401,
                "key_missing" if "authorization" not in headers else "key_unknown",
                "send a key as Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in self._names:
            detail = f"the Host {host[:80]!r} is not this machine; set http.keys to serve others"
            return Problem(403, "host_not_local", detail)
        if scope["method"] == "POST" and _media_type(headers) not in _MEDIA_TYPES:
            return Problem(
                415, "media_type_unsupported", "send it with Content-Type: application/json"
            )
        return None

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        digest = hashlib.sha256(key.strip().encode()).digest()
        return any(hmac.compare_digest(digest, known) for known in self._digests)


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _digest_of(key: str) -> bytes:
    if key.startswith("sha256:"):
        return bytes.fromhex(key.removeprefix("sha256:"))
    return hashlib.sha256(key.encode()).digest()
