"""Mail into mailboxes by LMTP: one verdict for each recipient, over a Unix socket and over TCP."""

from pathlib import Path

from tests.support.lmtp_server import LmtpServer
from tests.system.conftest import Start

ROUTES = """
[[routes]]
domain = "box.test"
name = "boxes"
smarthost = "lmtp://{path}"

[[routes]]
domain = "tcp.test"
smarthost = "lmtp://127.0.0.1:{port}"
"""


async def test_each_recipient_of_one_content_has_its_own_end(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    async with LmtpServer().running(path) as server:
        routes = ROUTES.replace("{path}", str(path)).replace("{port}", str(server.port))
        system = await start(RELAY_CONFIG=routes)
        receipt = await system.submit([f"{name}@box.test" for name in ("ann", "full", "unknown")])
        await system.until(
            receipt,
            {
                "ann@box.test": "delivered",
                "full@box.test": "deferred",
                "unknown@box.test": "failed",
            },
        )
        (delivered,) = await system.events("recipient.delivered")
        assert delivered.data["remote"]["host"] == str(path)
        assert "<ann@box.test> stored" in delivered.data["reply"]["text"]

        broken = await system.submit([f"{name}@box.test" for name in ("bob", "gone", "carl")])
        await system.until_event("recipient.uncertain", 2)
        by_tcp = await system.submit(["dora@tcp.test"])
        await system.until_delivered(by_tcp)
        await system.shift_clock(3600)
        await system.until_delivered(broken)

        counts = await system.event_counts("bob@box.test")
        assert (counts["recipient.delivered"], counts["recipient.uncertain"]) == (1, 0)
        stored = [recipient for recipient, _ in server.stored]
        names = ("ann@box.test", "bob@box.test", "gone@box.test", "carl@box.test", "dora@tcp.test")
        assert {name: stored.count(name) for name in names} == dict.fromkeys(names, 1)
        assert set(stored) == set(names)
        assert not {"EHLO", "HELO"} & set(server.verbs)
        assert system.sink.receipts(accepted=None) == []
