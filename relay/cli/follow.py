"""What becomes of a message just sent, told as it happens (`relay send --wait`)."""

import os
import sys
import time
from datetime import datetime
from typing import Any

from relay.cli.api import Api
from relay.cli.dialogue import tell_dialogue
from relay.cli.show import age, print_json

_FINAL = {
    "recipient.delivered": "delivered",
    "recipient.failed": "failed",
    "recipient.expired": "expired",
    "recipient.cancelled": "cancelled",
    "recipient.suppressed": "suppressed",
}
_TOLD = {**_FINAL, "recipient.deferred": "deferred", "recipient.held": "held"}


def latest_cursor(relay: Api) -> str:
    """Where the events of what is sent from now on begin."""
    return str(relay.get("events", after="$", limit=1)["next"])


def follow(
    relay: Api, accepted: dict[str, Any], cursor: str, timeout_s: float, *, as_json: bool
) -> int:
    """Tell each event of the message until all recipients are done; the exit code."""
    waiting = {item["id"]: item["address"] for item in accepted["recipients"]}
    has_failed = False
    waits: dict[str, str] = {}
    accepted_at: str | None = None
    end = time.monotonic() + timeout_s
    while waiting:
        left_s = end - time.monotonic()
        if left_s <= 0:
            _tell_rest(waiting, timeout_s)
            return os.EX_TEMPFAIL
        query = {"queue_id": accepted["id"], "wait": f"{min(left_s, 2):.2f}s", "limit": 1000}
        page = relay.get("events", after=cursor, **query)
        cursor = page["next"]
        if not page["events"]:
            has_failed |= _look(relay, accepted["id"], waiting, waits, as_json=as_json)
        for event in page["events"]:
            if event["type"] == "message.accepted":
                accepted_at = event["timestamp"]
            elif event["type"] == "session.dialogue":
                tell_dialogue(event, as_json=as_json)
            status = _TOLD.get(event["type"])
            if status is None or event["data"].get("recipient_id") not in waiting:
                continue
            _tell(event, status, accepted_at, as_json=as_json)
            if event["type"] in _FINAL:
                del waiting[event["data"]["recipient_id"]]
                has_failed |= status != "delivered"
    return os.EX_NOUSER if has_failed else os.EX_OK


def _tell(event: dict[str, Any], status: str, accepted_at: str | None, *, as_json: bool) -> None:
    data = event["data"]
    delay_s = None
    if accepted_at is not None:
        moments = [datetime.fromisoformat(text) for text in (accepted_at, event["timestamp"])]
        delay_s = round((moments[1] - moments[0]).total_seconds(), 3)
    remote = data.get("remote") or {}
    if as_json:
        told = {
            "id": data["recipient_id"],
            "address": data.get("address"),
            "status": status,
            "delay_s": delay_s,
            "remote": remote,
        }
        told |= {name: data.get(name) for name in ("reason", "text", "reply", "next_attempt_at")}
        print_json(told)
        return
    where = f" to {remote['host']} [{remote['ip']}]" if remote.get("ip") else ""
    after = f" after {delay_s:.2f} s" if delay_s is not None else ""
    said = "" if status == "delivered" else f": {_sentence(data)}"
    again = data.get("next_attempt_at")
    following = f" (tried again {age(again)})" if again else ""
    print(f"  {data.get('address')} {status}{where}{after}{said}{following}", flush=True)


def _sentence(data: dict[str, Any]) -> str:
    reply = data.get("reply") or {}
    if reply.get("code"):
        parts = (str(reply["code"]), reply.get("enhanced") or "", reply.get("text") or "")
        said = " ".join(part for part in parts if part)
    else:
        said = str(data.get("text") or data.get("reason") or "")
    return "".join(character if character.isprintable() else "?" for character in said)


def _look(
    relay: Api,
    queue_id: str,
    waiting: dict[str, str],
    waits: dict[str, str],
    *,
    as_json: bool,
) -> bool:
    """Drop recipients that were done before we listened (a replayed send); whether any failed.

    For people: what keeps the others waiting, once a reason (`waits`).
    """
    has_failed = False
    for item in relay.get("messages", queue_id)["recipients"]:
        if item["id"] not in waiting:
            continue
        if item["finished_at"] is None and not as_json:
            _tell_wait(item, waits)
        elif item["finished_at"] is not None:
            del waiting[item["id"]]
            has_failed |= item["status"] != "delivered"
            if as_json:
                print_json(item)
            else:
                print(f"  {item['address']} {item['status']} at {item['finished_at']}", flush=True)
    return has_failed


def _tell_wait(item: dict[str, Any], waits: dict[str, str]) -> None:
    wait = item["waiting"]
    if wait is None or waits.get(item["id"]) == wait["text"]:
        return
    waits[item["id"]] = wait["text"]
    until = f" (looked at again {age(wait['until'])})" if wait["until"] else ""
    print(f"  {item['address']} waits: {wait['text']}{until}", flush=True)


def _tell_rest(waiting: dict[str, str], timeout_s: float) -> None:
    names = ", ".join(list(waiting.values())[:5]) + (", …" if len(waiting) > 5 else "")
    print(
        f"relay: after {timeout_s:g} s still under way: {names}; relay message show tells more",
        file=sys.stderr,
    )
