"""One log line a recipient, with every field that tools rely on."""

import asyncio
from datetime import datetime

from tests.support.system import System

CONTRACT = {
    *("ts", "level", "event", "node", "version", "mode"),
    *("queue_id", "recipient_id", "message_id", "campaign", "tenant", "reverse_path"),
    *("forward_path", "domain", "site", "mx_host", "mx_ip", "source", "session_id"),
    *("attempt", "severity", "scope", "reason", "next_attempt_at"),
    *("reply_code", "reply_enhanced", "reply_text", "reply_command"),
    *("tls_version", "tls_verified", "size_octets", "delay_s", "delays"),
}
STATES = {
    "ann@shop.test": "delivered",
    "tempfail@shop.test": "deferred",
    "reject@shop.test": "failed",
    "bob@nxdomain.test": "failed",
}


async def until_told(system: System, queue_id: str, lines: int) -> None:
    """Wait until so many outcomes of a message are in the log, which is written a little later."""
    async with asyncio.timeout(20):
        while sum(line.get("queue_id") == queue_id for line in system.log_lines()) < lines:
            await asyncio.sleep(0.05)


async def test_log_line_of_an_attempt_has_the_fields_of_the_contract(system: System) -> None:
    receipt = await system.submit(list(STATES))
    await system.until(receipt, STATES)
    await until_told(system, receipt.id, len(STATES))
    logged = await system.logged(len(STATES), queue_id=receipt.id, attempt=1)
    lines = {line["forward_path"]: line for line in logged}
    assert {address: line["event"] for address, line in lines.items()} == {
        address: f"recipient.{state}" for address, state in STATES.items()
    }
    for line in lines.values():
        assert line.keys() >= CONTRACT
        assert line["queue_id"] == receipt.id
        assert line["message_id"] == receipt.message_id
        assert line["delays"].keys() == {"in_queue", "connect", "transmit"}
        assert sum(line["delays"].values()) <= line["delay_s"] + 0.01
    ann, late, bob = (
        lines[f"{name}.test"] for name in ("ann@shop", "tempfail@shop", "bob@nxdomain")
    )
    (seen,) = system.sink.receipts(recipient="ann@shop.test")
    assert (ann["mx_host"], ann["tls_version"]) == (seen.host, seen.tls)
    assert (ann["domain"], ann["reply_code"]) == ("shop.test", 250)
    assert ann["delays"]["connect"] > 0
    assert ann["session_id"] == late["session_id"] != ""
    assert datetime.fromisoformat(late["next_attempt_at"]) > datetime.fromisoformat(late["ts"])
    assert (bob["mx_host"], bob["session_id"], bob["reply_code"]) == ("", "", None)
    assert "nxdomain.test" in bob["text"]


async def test_log_tells_which_messages_shared_a_connection(system: System) -> None:
    first = await system.submit(["ann@shop.test"])
    await system.until_delivered(first)
    second = await system.submit(["ann@shop.test"])
    await system.until_delivered(second)
    await until_told(system, second.id, 1)
    (one,) = await system.logged(1, queue_id=first.id)
    (two,) = await system.logged(1, queue_id=second.id)
    assert one["session_id"] == two["session_id"]
    assert one["delays"]["connect"] > 0 == two["delays"]["connect"]
