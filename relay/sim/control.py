"""The control port: HTTP with JSON on loopback, for tests in other processes.

It answers one request per connection and only to a loopback Host, so that no web page can reach it.
What each path takes and gives stands in `docs/simulated-internet.md`.
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from relay.sim.addresses import AddressPool
from relay.sim.faults import FaultRequest
from relay.sim.receipts import ReceiptFilter
from relay.sim.receiver import Receiver

_BODY_OCTETS = 1 << 20
_READ_S = 10.0
_STATUS = {
    200: "OK",
    201: "Created",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
}


class ProfileRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A profile for the hosts and domains that match a pattern."""

    pattern: str
    profile: str


class RecordRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What DNS shall answer for a name and type."""

    name: str
    type: str
    values: tuple[str, ...] = ()
    code: str = "NOERROR"


class CredentialsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A user of the smarthosts."""

    user: str
    password: str


class Refused(Exception):
    """Raised when a request cannot be answered as asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Request(msgspec.Struct):
    """A request, its query decoded."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


Handler = Callable[[Request, str], Awaitable[Any]]


class Control:
    """The paths of the control port over one receiver."""

    def __init__(self, receiver: Receiver, pool: AddressPool, about: dict[str, Any]) -> None:
        """`about` is told by `/status` beside the counters."""
        self._receiver = receiver
        self._scenario = receiver.scenario
        self._mailbox = receiver.mailbox
        self._pool = pool
        self._about = about
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.port = 0
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, re.compile(path), handler)
            for method, path, handler in (
                ("GET", "/status", self._status),
                ("GET", "/receipts", self._receipts),
                ("DELETE", "/receipts", self._clear_receipts),
                ("GET", r"/receipts/(\d+)/content", self._content),
                ("GET", "/counts", self._counts),
                ("GET", "/faults", self._faults),
                ("POST", "/faults", self._add_fault),
                ("DELETE", "/faults", self._clear_faults),
                ("DELETE", r"/faults/(\d+)", self._remove_fault),
                ("POST", "/profiles", self._use_profile),
                ("POST", "/dns", self._set_record),
                ("DELETE", "/dns", self._clear_records),
                ("POST", "/credentials", self._set_credentials),
                ("GET", "/hosts", self._hosts),
                ("GET", r"/hosts/([^/]+)", self._host),
                ("DELETE", "/connections", self._drop),
                ("POST", "/reset", self._reset),
            )
        ]

    async def start(self, host: str, port: int) -> None:
        """Listen; OSError when the port is taken."""
        self._server = await asyncio.start_server(self._connected, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and end what is being answered."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    # ---- HTTP

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(_READ_S):
                request = await _read(reader)
            status, kind, body = await self._answer(request)
        except Refused as error:
            status, kind, body = _error(error.status, str(error))
        except (TimeoutError, OSError, EOFError, asyncio.CancelledError):
            writer.transport.abort()
            return
        head = (
            f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        writer.close()
        try:
            await writer.wait_closed()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()

    async def _answer(self, request: Request) -> tuple[int, str, bytes]:
        allowed = False
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            allowed = True
            if method != request.method:
                continue
            try:
                result = await handler(request, unquote(match[1]) if match.groups() else "")
            except (ValueError, msgspec.DecodeError) as error:
                return _error(422, str(error))
            if isinstance(result, bytes):
                return 200, "message/rfc822", result
            status = 201 if request.method == "POST" else 200
            return status, "application/json", msgspec.json.encode(result)
        if allowed:
            return _error(405, f"{request.method} does not apply to {request.path}")
        return _error(404, f"no such path: {request.path}")

    # ---- paths

    async def _status(self, _request: Request, _part: str) -> Any:
        return {
            **self._about,
            "counters": self._mailbox.counters,
            "connections": len(self._receiver.connections),
            "faults": len(self._scenario.faults.list()),
        }

    async def _receipts(self, request: Request, _part: str) -> Any:
        query = dict(request.query)
        limit = int(query.pop("limit", "1000"))
        at_least = int(query.pop("at_least", "0"))
        timeout_s = float(query.pop("timeout", "10"))
        if query.get("accepted") in ("", "any", "null"):
            wanted: dict[str, Any] = {**query, "accepted": None}
        else:
            wanted = dict(query)
        filter_ = msgspec.convert(wanted, ReceiptFilter, strict=False)
        if at_least:
            try:
                await self._mailbox.wait(at_least, filter_, timeout_s=min(timeout_s, 60.0))
            except TimeoutError as error:
                raise Refused(408, str(error)) from None
        return {"receipts": self._mailbox.receipts(filter_, max(limit, at_least))}

    async def _clear_receipts(self, _request: Request, _part: str) -> Any:
        self._mailbox.clear()
        return {}

    async def _content(self, _request: Request, part: str) -> Any:
        content = self._mailbox.content(int(part))
        if content is None:
            raise Refused(404, f"the content of receipt {part} is not kept")
        return content

    async def _counts(self, request: Request, _part: str) -> Any:
        if recipient := request.query.get("recipient"):
            return {"accepted": {recipient: self._mailbox.count(recipient)}}
        domain = request.query.get("domain", "")
        return {
            "accepted": self._mailbox.counts(domain),
            "refused": self._mailbox.refusals(domain),
        }

    async def _faults(self, _request: Request, _part: str) -> Any:
        return {"faults": self._scenario.faults.list()}

    async def _add_fault(self, request: Request, _part: str) -> Any:
        return self._scenario.faults.add(msgspec.json.decode(request.body, type=FaultRequest))

    async def _clear_faults(self, request: Request, _part: str) -> Any:
        return {"removed": self._scenario.faults.clear(request.query.get("pattern"))}

    async def _remove_fault(self, _request: Request, part: str) -> Any:
        if not self._scenario.faults.remove(int(part)):
            raise Refused(404, f"no fault {part}")
        return {"removed": 1}

    async def _use_profile(self, request: Request, _part: str) -> Any:
        wanted = msgspec.json.decode(request.body, type=ProfileRequest)
        return {"faults": self._scenario.faults.use_profile(wanted.pattern, wanted.profile)}

    async def _set_record(self, request: Request, _part: str) -> Any:
        wanted = msgspec.json.decode(request.body, type=RecordRequest)
        self._scenario.zone.override(wanted.name, wanted.type, wanted.values, wanted.code)
        return wanted

    async def _clear_records(self, _request: Request, _part: str) -> Any:
        self._scenario.zone.clear()
        return {}

    async def _set_credentials(self, request: Request, _part: str) -> Any:
        wanted = msgspec.json.decode(request.body, type=CredentialsRequest)
        self._scenario.credentials[wanted.user] = wanted.password
        return {"user": wanted.user}

    async def _hosts(self, _request: Request, _part: str) -> Any:
        uses = self._receiver.registry.hosts
        known = self._pool.known()
        return {
            "hosts": [
                {"name": name, "address": address, "use": uses.get(name)}
                for name, address in known.items()
            ]
        }

    async def _host(self, _request: Request, part: str) -> Any:
        address = self._pool.address_of(part.rstrip("."))
        if address is None:
            raise Refused(404, f"no address for {part}")
        return {"name": part, "address": address, "port": self._pool.port}

    async def _drop(self, request: Request, _part: str) -> Any:
        return {"dropped": self._receiver.drop(request.query.get("host", ""))}

    async def _reset(self, _request: Request, _part: str) -> Any:
        self._scenario.reset()
        self._mailbox.clear()
        return {}


def _error(status: int, message: str) -> tuple[int, str, bytes]:
    return status, "application/json", msgspec.json.encode({"error": message})


async def _read(reader: asyncio.StreamReader) -> Request:
    """One request; Refused for what is malformed, too large or not from this machine."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise Refused(413, "the request head is too large") from None
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3:
        raise Refused(400, "not an HTTP request")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
    }
    if not _is_loopback(headers.get("host", "")):
        raise Refused(403, "the Host must be a loopback address or localhost")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > _BODY_OCTETS:
        raise Refused(413, "the body is too large or has no proper length")
    body = await reader.readexactly(int(length))
    if body and not headers.get("content-type", "").startswith("application/json"):
        raise Refused(415, "send Content-Type: application/json")
    url = urlsplit(parts[1])
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return Request(parts[0].upper(), url.path, query, headers, body)


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    if name.strip("[]") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
