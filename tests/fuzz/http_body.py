"""Bodies of every kind at the HTTP door: an answer of the contract, never a 500, nothing forged.

The whole application over a real Redis; only the HTTP framing is left out, which is uvicorn's.
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from relay.ingress.http.app import create_app
from relay.ingress.store_link import StoreLink, open_store
from relay.settings.schema import Delivery, Limits, Mode, Redis, Settings
from relay.smtp.content import is_normal
from tests.fuzz.campaign import Target
from tests.fuzz.source import Source
from tests.support.redis_server import RedisServer

#: A header block: fields, folded or not, no control character, no line of blanks.
_HEADER = re.compile(
    rb"(?:[!-9;-~]+:[\t\x20-\x7e\x80-\xff]*(?:\r\n[\t ][^\r\n]*[^\s][^\r\n]*)*(?:\r\n|\Z))+"
)
_STATUSES = (200, 201, 202, 400, 404, 405, 409, 413, 415, 422)
#: What was accepted is thrown away again after so many inputs.
_FLUSH_EVERY = 1000
_LIMIT = 20_000
_ADDRESSES = (
    "ann@gmail.test",
    "Ann <ann@gmail.test>",
    '"Ann, X" <ann@gmail.test>',
    "jörg@müller.test",
    "ann",
    "ann@gmail.test\r\nBcc: eve@gmail.test",
    "a@b, c@d.test",
    "",
    {"email": "ann@gmail.test", "name": "Ann ünd"},
    {"email": "ann@gmail.test", "name": "x\r\nBcc: eve@gmail.test"},
)
_FIELDS: dict[str, tuple[Any, ...]] = {
    "from": _ADDRESSES,
    "to": (*_ADDRESSES, list(_ADDRESSES[:3]), [], ["ann@gmail.test"] * 200),
    "cc": (*_ADDRESSES, None),
    "bcc": ("eve@gmail.test", ["eve@gmail.test"]),
    "reply_to": _ADDRESSES,
    "subject": ("hi", "grüße", "x" * 2000, "a\r\nBcc: eve@gmail.test", "=?utf-8?q?x?=", "\0"),
    "text": ("hello", ".\r\n.\n\r", "ü" * 500, "x" * 3000, ""),
    "html": ("<p>x</p>", "<" * 1000, None),
    "headers": ({"X-A": "b"}, {"X-A": "b\r\nc"}, {"bad name": "x"}, {"From": "x"}, {"": ""}),
    "attachments": (
        [{"filename": "a.txt", "content": "aGk="}],
        [{"filename": "ü\r\n.txt", "content": "aGk=", "content_type": "text/html; x"}],
        [{"filename": "a", "content": "not base64"}],
        [{"filename": "a", "content": "", "content_id": "x>\r\n"}],
    ),
    "reverse_path": ("", "<>", "b@example.org", "x\r\n"),
    "class": ("bulk", "transactional", "urgent", 1),
    "campaign": ("c", "a|b", "ü", "x" * 65),
    "tags": (["a"], ["a", "b\n"], ["x"] * 21, "a"),
    "metadata": ({"k": "v"}, {"k": 1}, {"k\n": "v"}, {"k": "v" * 600}),
    "expires_at": (
        None,
        "2026-01-01T00:00:00Z",
        "9999-12-31T23:59:59+00:00",
        "0001-01-01T00:00:00+23:59",
        "2099-01-01T00:00:00",
        1e300,
        0,
    ),
    "one_click_unsubscribe": ("https://x.test/u", "http://x", "https://x\r\ny", "javascript:"),
}
_SUSPENSION: dict[str, tuple[Any, ...]] = {
    "class": ("bulk", "", "x"),
    "tenant": ("", "a|b", "x"),
    "campaign": ("c", "\n"),
    "destination": ("gmail.test", "[route]", "@x.test", "..", "ü" * 300, "\ud800"),
    "all": (True, False, "true"),
    "reason": ("because", "", "x" * 300, "a\nb"),
    "duration": ("1h", "5", 60, 1e400, -1, "1e3s", None, 1e300),
}
_VERB: dict[str, tuple[Any, ...]] = {"reason": ("because", "", "\r\n", 7, "ü" * 1000)}
_FLUSH = {key: _SUSPENSION[key] for key in ("class", "tenant", "campaign", "destination", "all")}
_NONSENSE: tuple[Any, ...] = (None, True, 0, -1, 1e308, 10**400, "", "\ud800", [], {}, [[]], "\0")
WORDS = (b"\\u0000", b"\\ud800", b"\\r\\n", b"1e999", b"[" * 3000, b"{", b'"', b":", b"\xff", b",")
_PATHS = (
    "/v1/messages",
    "/v1/messages",
    "/v1/messages",
    "/v1/messages/raw",
    "/v1/suspensions",
    "/v1/queues/flush",
    "/v1/messages/1M7YGFEGG9TNG4F3PH26/hold",
)


class HttpBodyTarget(Target):
    name = "http-body"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._redis = RedisServer(folder, options=("--appendonly", "no"))
        self._settings = Settings(
            redis=Redis(url=self._redis.url),
            delivery=Delivery(mode=Mode.SINK, hostname="relay.example"),
            limits=Limits(message_size=_LIMIT, recipients=100),
        )

    def open(self) -> None:
        self._redis.start()
        self._inputs = 0
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self._link = StoreLink(lambda meter: open_store(self._settings, "fuzz", meter), role="fuzz")
        await self._link.start()
        self._app = create_app(self._settings, self._link, asyncio.Event())

    def close(self) -> None:
        self._loop.run_until_complete(self._link.close())
        self._loop.close()
        self._redis.stop()

    def check(self, source: Source) -> None:
        self._loop.run_until_complete(self._check(source))

    async def _check(self, source: Source) -> None:
        await self._forget_now_and_then()
        path, query = source.one(_PATHS), ""
        media = "message/rfc822" if path.endswith("raw") else "application/json"
        if path.endswith("raw"):
            query = quote(_raw_query(source), safe="=&")
        body = _body(source, path)
        status, headers, said = await self._post(path, query, media, source.cut(body))
        assert status in _STATUSES, f"{status} {said!r}"
        if status >= 400:
            _check_problem(status, headers, said)
        elif status == 202:
            await self._check_accepted(json.loads(said), is_ours=media == "application/json")

    async def _forget_now_and_then(self) -> None:
        self._inputs += 1
        if self._inputs % _FLUSH_EVERY == 0:
            await self._link.close()
            with self._redis.client() as client:
                client.flushall()
            await self._start()

    async def _check_accepted(self, said: dict[str, Any], *, is_ours: bool) -> None:
        """What was queued is one clean message; `is_ours`: we wrote its header, so all is well."""
        content = await self._link.store.content(said["id"])
        assert is_normal(content) and b"\0" not in content
        header = content.partition(b"\r\n\r\n")[0]
        names = [
            line.partition(b":")[0].lower() for line in header.split(b"\r\n") if line[:1] > b" "
        ]
        assert b"bcc" not in names
        if is_ours:
            assert _HEADER.fullmatch(header), header
            assert max(map(len, content.split(b"\r\n"))) <= 998
        for name in (b"from", b"to", b"subject", b"date", b"message-id", b"mime-version"):
            assert names.count(name) <= 1
        assert len(said["recipients"]) == said["accepted"] > 0

    async def _post(
        self, path: str, query: str, media: str, segments: list[bytes]
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """One request to the application."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", media.encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8425),
            "state": {},
        }
        events = [{"type": "http.request", "body": part, "more_body": True} for part in segments]
        events.append({"type": "http.request", "body": b"", "more_body": False})
        status, headers, said = 0, dict[bytes, bytes](), b""

        async def receive() -> dict[str, Any]:
            return events.pop(0) if events else {"type": "http.disconnect"}

        async def send(event: Any) -> None:
            nonlocal status, headers, said
            if event["type"] == "http.response.start":
                status, headers = event["status"], dict(event["headers"])
            else:
                said += event.get("body", b"")

        await self._app(scope, receive, send)
        return status, headers, said


def _body(source: Source, path: str) -> bytes:
    if path.endswith("raw"):
        return _raw(source)
    kinds = {"ions": _SUSPENSION, "lush": _FLUSH, "hold": _VERB}
    fields = kinds.get(path[-4:], _FIELDS)
    said = {key: _value(source, values) for key, values in fields.items() if source.chance(0.3)}
    if fields is _FIELDS and source.chance(0.9):
        said = {"from": "news@example.org", "to": "ann@gmail.test", "text": "hello"} | said
    if source.chance(0.3):
        key = source.one(("subject", "text", "html", "campaign", "reason"))
        said[key] = source.text(500)
    if source.chance(0.1):
        name = source.one(("X-A", source.text(8)))
        said["headers"] = {name: source.text(1500)}
    while source.chance(0.1):
        key = source.one((*fields, "unknown", "", "ü", "From"))
        said[key] = source.one(_NONSENSE) if source.chance(0.5) else source.text(30)
    body = json.dumps(said, ensure_ascii=source.chance(0.5)).encode("utf-8", "surrogatepass")
    return source.mutated(body, WORDS) if source.chance(0.3) else body


def _value(source: Source, values: tuple[Any, ...]) -> Any:
    """Mostly the first one, which is a good one."""
    return values[0] if source.chance(0.75) else source.one(values)


def _raw(source: Source) -> bytes:
    lines = [
        source.one(
            (
                b"From: Ann <ann@example.org>",
                b"To: bob@gmail.test, (c) eve@x.test",
                b"Bcc: eve@gmail.test",
                b"Subject: x",
                b" folded",
                b"no field",
                b"",
                b"X-Relay-Campaign: c",
                b"X-Relay-Metadata-a: " + source.octets(20),
                b"From " + b"ann Thu",
            )
        )
        for _ in range(source.size(8))
    ]
    octets = source.one((b"\r\n", b"\n")).join([b"From: news@example.org", *lines, b"", b"hello"])
    return source.mutated(octets) if source.chance(0.6) else octets


def _raw_query(source: Source) -> str:
    names = ("to", "to", "from", "header_recipients", "class", "campaign", "tag", "unknown")
    values = ("ann@gmail.test", "true", "c", "bulk", source.text(12).replace("\ud800", ""))
    said = [f"{source.one(names)}={source.one(values)}" for _ in range(source.size(4))]
    text = "&".join(["to=ann@gmail.test", *said])
    return text.encode("utf-8", "replace").decode()


def _check_problem(status: int, headers: dict[bytes, bytes], said: bytes) -> None:
    """An error as the contract has it: problem details with a code and, for 422, the fields."""
    assert headers[b"content-type"] == b"application/problem+json"
    problem = msgspec.json.decode(said)
    assert problem["status"] == status and problem["code"] and problem["detail"]
    assert len(said) < 20_000
    for error in problem["errors"]:
        assert error["field"] and error["code"] and error["message"], said
