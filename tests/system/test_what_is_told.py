"""What became of each recipient is told in the same words by events, API and command line."""

import json
from datetime import datetime
from typing import Any

import httpx

from tests.support.doors import relay
from tests.support.system import System
from tests.system.conftest import Start

DATA = {
    *("recipient_id", "queue_id", "message_id", "address", "campaign", "tags", "metadata"),
    *("attempt", "reason", "severity", "scope", "reply", "remote", "source", "tls"),
    *("next_attempt_at", "queued_at"),
}
STATES = {
    "ann@shop.test": "delivered",
    "reject@shop.test": "failed",
    "tempfail@shop.test": "deferred",
    "bob@nxdomain.test": "failed",
    "eve@notls.test": "delivered",
}


async def sent(api: httpx.AsyncClient) -> str:
    """A message with all labels to receivers of all kinds; its id."""
    labels = {"campaign": "spring", "tags": ["a", "b"], "metadata": {"user": "42"}}
    fields = {"from": "me@home.test", "to": list(STATES), "text": "x", **labels}
    return str((await api.post("/v1/messages", json=fields)).json()["id"])


async def test_events_api_and_command_line_tell_the_same(start: Start) -> None:
    # Nothing moves while we look.
    system = await start(RELAY_RETRY_FIRST_AFTER_RCPT="10m", RELAY_RETRY_TRANSACTIONAL="10m*")
    url = f"http://127.0.0.1:{system.start_http()}"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as api:
        id = await sent(api)
        await system.until(id, STATES)
        (line,) = relay("message", "show", id, "--json", api=url).out.splitlines()
        shown = json.loads(line)
        assert (await api.get(f"/v1/messages/{id}")).json() == shown
        page = (await api.get("/v1/events", params={"queue_id": id})).json()["events"]
    told = {event["data"]["address"]: event for event in page if "address" in event["data"]}
    assert told.keys() == STATES.keys()
    for recipient in shown["recipients"]:
        event = told[recipient["address"]]
        data = event["data"]
        assert event["type"] == f"recipient.{recipient['status']}"
        assert data.keys() >= DATA
        assert (data["campaign"], data["tags"], data["metadata"]) == (
            "spring",
            ["a", "b"],
            {"user": "42"},
        )
        assert data["reply"] == recipient["reply"]
        _assert_same_moment(data["next_attempt_at"], recipient["next_attempt_at"])
        queued_at, accepted_at = (
            datetime.fromisoformat(text) for text in (data["queued_at"], shown["created_at"])
        )
        assert queued_at == accepted_at
        assert (data["remote"] or {}).get("ip") == (recipient["remote"] or {}).get("ip")
    assert told["ann@shop.test"]["data"]["tls"].keys() >= {"version", "cipher", "verified"}
    assert told["eve@notls.test"]["data"]["tls"] is None
    _said_by_the_receiver(system, {item["address"]: item for item in shown["recipients"]})


def _assert_same_moment(told: str | None, shown: str | None) -> None:
    """The worker told it by its clock, the store keeps it by Redis' own."""
    assert (told is None) == (shown is None)
    if told is not None and shown is not None:
        apart = datetime.fromisoformat(told) - datetime.fromisoformat(shown)
        assert abs(apart.total_seconds()) < 1


def _said_by_the_receiver(system: System, shown: dict[str, dict[str, Any]]) -> None:
    """Fields of the last reply, as the simulated receivers gave it."""
    (seen,) = system.sink.receipts(recipient="ann@shop.test")
    assert shown["ann@shop.test"]["remote"]["host"] == seen.host
    assert shown["ann@shop.test"]["reply"]["code"] == 250
    assert shown["ann@shop.test"]["reply"]["command"] == "end-of-data"
    assert shown["reject@shop.test"]["reply"]["enhanced"] == "5.1.1"
    assert shown["reject@shop.test"]["reply"]["command"] == "RCPT"
    assert shown["reject@shop.test"]["text"].startswith("550 5.1.1 ")
    assert shown["tempfail@shop.test"]["reply"]["code"] == 451
    # No server was spoken to: nobody's reply, nobody's address.
    assert shown["bob@nxdomain.test"]["reply"] is None
    assert shown["bob@nxdomain.test"]["remote"] is None
    assert "nxdomain.test" in shown["bob@nxdomain.test"]["text"]
