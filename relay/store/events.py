"""Events of the outbox as readers get them: every key of the contract, whoever wrote the event.

Settle writes what an attempt came to in full; the other scripts write only what they have at hand
(`recipient_data` in `lua/_common.lua`), packed as the records have it. Here both become the same.
"""

import json
from typing import Any

import msgspec

from relay.store.answer import unpack_answer
from relay.store.codec import MessageRecord, decode_message, unpack
from relay.store.keys import CLASS_OF_LETTER
from relay.store.limit_key import LimitKey

#: Severity and scope of what no receiver's reply decided.
_JUDGED = {
    "delivered": ("success", "message"),
    "duplicate": ("success", "message"),
    "failed": ("permanent", "local"),
    "cancelled": ("permanent", "local"),
    "suppressed": ("permanent", "local"),
    "expired": ("permanent", "recipient"),
    "bounced": ("permanent", "recipient"),
    "complained": ("permanent", "recipient"),
    "delayed": ("transient", "recipient"),
    "uncertain": ("transient", "message"),
}


class StoredEvent(msgspec.Struct, frozen=True):
    """An event of the outbox; `cursor` continues a read, `id` is the same if it is seen twice."""

    cursor: str
    id: str
    type: str
    timestamp: float
    data: dict[str, Any]


def read_event(cursor: bytes, fields: list[bytes]) -> StoredEvent:
    """An entry of the stream as an event."""
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    timestamp = int(cursor.split(b"-")[0]) / 1000
    kind, event_id = values[b"t"].decode(), values[b"i"].decode()
    room, _, word = kind.partition(".")
    if room == "message":
        data = _of_message(event_id, decode_message(values[b"d"]))
        event_id = f"{event_id}:{kind}"
    else:
        data = unpack(values[b"d"])
    if room == "recipient":
        data = _of_recipient(word, data)
    elif room in ("site", "route"):
        data = _of_breaker(data)
    return StoredEvent(cursor.decode(), event_id, kind, timestamp, data)


def _of_message(queue_id: str, record: MessageRecord) -> dict[str, Any]:
    """The data of a message's event, which is stored as the message's record."""
    return {
        "queue_id": queue_id,
        "message_id": record.message_id,
        "reverse_path": record.reverse_path,
        "recipients": record.count,
        "size_octets": record.size,
        "class": record.mail_class,
        "tenant": record.tenant,
        "campaign": record.campaign,
        "ingress": record.ingress,
        "tags": list(record.tags),
        "metadata": record.metadata,
        "queued_at": record.created_ms / 1000,
    }


def _of_breaker(data: dict[str, Any]) -> dict[str, Any]:
    """The data of a site's or route's event; `until` is None where it takes connections again."""
    whose = LimitKey.parse(data["key"])
    return {
        "site": whose.site,
        "host": whose.host,
        "provider": whose.provider,
        "source": whose.source,
        "account": whose.account,
        "reason": data["reason"],
        "text": data["text"],
        "until": data["until"] or None,
    }


def _of_recipient(word: str, data: dict[str, Any]) -> dict[str, Any]:
    """The data of a recipient's event with every key of the contract."""
    severity, scope = _JUDGED.get(word, ("transient", "local"))
    whole = {
        "message_id": "",
        "reverse_path": "",
        "class": "",
        "tenant": "",
        "campaign": "",
        "tags": [],
        "metadata": {},
        "severity": severity,
        "scope": scope,
        "text": "",
        "reply": None,
        "source": "",
        "next_attempt_at": None,
        "queued_at": None,
        **_unpacked(data),
    }
    remote = whole.get("remote") or {}
    whole["remote"] = remote if remote.get("host") else None
    whole["tls"] = whole.get("tls") or None
    return whole


def _unpacked(data: dict[str, Any]) -> dict[str, Any]:
    """What a script wrote as its records have it, in words."""
    if "created_ms" not in data:
        return data
    data["queued_at"] = data.pop("created_ms") / 1000
    data["class"] = CLASS_OF_LETTER.get(data["class"], data["class"])
    labels = data.pop("labels")
    if labels:
        data["tags"], data["metadata"] = json.loads(labels)
    remote, reply = unpack_answer(data.pop("answer", ""))
    if remote is not None:
        data["remote"] = {"host": remote.host, "ip": remote.ip, "site": ""}
    if reply is not None:
        data["reply"] = {
            "code": reply.code,
            "enhanced": reply.enhanced,
            "text": reply.text,
            "command": reply.command,
        }
    return data
