"""All of a store in memory, for the audit: every key of the queue, decoded, none interpreted."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec

from relay.model.errors import StoreError
from relay.store.codec import MessageRecord, RecipientRecord, decode_message, decode_recipient
from relay.store.queue import Store

_HASHES = ("m", "b", "q", "ln", "br", "v", "suspensions", "states", "workers", "sup")
_SETS = ("ic", "is", "ih", "sl", "ls", "lw", "committing", "suspending")
_ZSETS = ("dest", "lt", "lb", "lq", "wt", "wanting", "qd", "qh", "sups", "supx")
_INDEXES = ("queues", "unrouted", "timers", "deadlines", "finished", "incarnations")
_LISTS = ("iv", "qr", "qy")
_READ: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(_HASHES, ("HGETALL",)),
    **dict.fromkeys(_SETS, ("SMEMBERS",)),
    **dict.fromkeys((*_ZSETS, *_INDEXES), ("ZRANGE", 0, -1, "WITHSCORES")),
    **dict.fromkeys(_LISTS, ("LRANGE", 0, -1)),
    "c": ("STRLEN",),
    "ro": ("GET",),
}


class StoredRecipient(msgspec.Struct, frozen=True):
    """A recipient's record with where it belongs."""

    id: str
    queue_id: str
    message: MessageRecord
    record: RecipientRecord

    @property
    def destination(self) -> str:
        return self.record.destination or self.record.address.rpartition("@")[2]

    @property
    def queue(self) -> str:
        m = self.message
        return "|".join((m.class_letter, m.tenant, m.campaign, self.destination))


class Snapshot:
    """Values by kind and name: hashes and zsets as dicts, sets as sets, lists as lists."""

    def __init__(self, now_ms: float) -> None:
        self.now_ms = now_ms
        self.unreadable: list[str] = []
        self.messages: dict[str, MessageRecord] = {}
        self.recipients: dict[str, StoredRecipient] = {}
        self._kinds: dict[str, dict[str, Any]] = {kind: {} for kind in _READ}

    def of(self, kind: str) -> dict[str, Any]:
        """All values of a kind by their name (what follows the kind in the key)."""
        return self._kinds[kind]

    def one(self, kind: str) -> Any:
        """The value of a kind that is a single key; empty where there is none."""
        return self._kinds[kind].get("", set() if kind in _SETS else {})

    def add(self, kind: str, name: str, reply: Any) -> None:
        """Take over a reply of Redis."""
        value: Any = reply
        if kind in ("m", "b"):
            value = {k.decode(): v for k, v in zip(reply[::2], reply[1::2], strict=True)}
        elif kind in _HASHES:
            value = {k.decode(): _text(v) for k, v in zip(reply[::2], reply[1::2], strict=True)}
        elif kind in _ZSETS or kind in _INDEXES:
            value = {k.decode(): float(v) for k, v in zip(reply[::2], reply[1::2], strict=True)}
        elif kind in _SETS:
            value = {item.decode() for item in reply}
        elif kind in _LISTS:
            value = [item.decode() for item in reply]
        if value not in (None, {}, [], set()):
            self._kinds[kind][name] = value

    def read_records(self) -> None:
        """Decode messages and recipients."""
        for queue_id, fields in self.of("m").items():
            if "m" not in fields:
                self.unreadable.append(f"message {queue_id} has no record")
                continue
            try:
                message = decode_message(fields["m"])
            except StoreError as error:
                self.unreadable.append(f"message {queue_id}: {error}")
                continue
            self.messages[queue_id] = message
            for number, raw in self._rows(queue_id, message.count):
                rid = f"{queue_id}.{number}"
                try:
                    record = decode_recipient(raw)
                except StoreError as error:
                    self.unreadable.append(f"recipient {rid}: {error}")
                    continue
                self.recipients[rid] = StoredRecipient(rid, queue_id, message, record)

    def _rows(self, queue_id: str, count: int) -> Iterator[tuple[int, bytes]]:
        for bucket in range((count + 49) // 50):
            kind, name = ("b", f"{queue_id}:{bucket}") if bucket else ("m", queue_id)
            for field, raw in self.of(kind).get(name, {}).items():
                if field.isdecimal():
                    yield int(field), raw


def _text(value: bytes) -> Any:
    """A hash's value: text, or bytes where it is a packed record."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


async def take_snapshot(store: Store) -> Snapshot:
    """Read the whole store."""
    wire, prefix = store.wire, store.p
    keys: list[str] = []
    cursor = b"0"
    while True:
        cursor, page = await wire.call(
            "SCAN", cursor, "MATCH", _escaped(prefix) + "*", "COUNT", 2000
        )
        keys += [raw.decode("utf-8", "surrogateescape")[len(prefix) :] for raw in page]
        if cursor == b"0":
            break
    names = {raw.decode() for raw in await wire.call("ZRANGE", prefix + "queues", 0, -1)}
    wanted = [(*_sort(key, names), key) for key in dict.fromkeys(keys)]
    wanted = [item for item in wanted if item[0] in _READ]
    snapshot = Snapshot(await store.now() * 1000)
    for start in range(0, len(wanted), 1000):
        part = wanted[start : start + 1000]
        replies = await asyncio.gather(*(_read(store, kind, key) for kind, _, key in part))
        for (kind, name, _), reply in zip(part, replies, strict=True):
            snapshot.add(kind, name, reply)
    snapshot.read_records()
    return snapshot


async def _read(store: Store, kind: str, key: str) -> Any:
    command, *rest = _READ[kind]
    return await store.wire.call(command, store.p + key, *rest)


def _sort(key: str, queues: set[str]) -> tuple[str, str]:
    """Kind and name of a key; a queue's lists and zsets are kinds of their own."""
    kind, _, name = key.partition(":")
    if kind == "q" and name not in queues and name[-2:] in (":r", ":y", ":d", ":h"):
        return "q" + name[-1], name[:-2]
    return kind, name


def _escaped(prefix: str) -> str:
    """The prefix as a pattern of SCAN."""
    return "".join("\\" + sign if sign in "[]*?^\\" else sign for sign in prefix)
