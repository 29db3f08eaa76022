"""What arrives is signed, and verifies with the key that is published in DNS."""

from pathlib import Path

import dkim
import dns.message
import dns.query

from relay.settings.kinds import parse_listen
from relay.smtp.dkim_key import make_key, zone_line
from tests.support.system import System
from tests.system.conftest import Start

CONFIG = """
[[dkim_keys]]
domain = "example.org"
selector = "r1"
file = "r1.pem"

[[dkim_keys]]
domain = "example.org"
selector = "e1"
file = "e1.pem"
"""
FIELDS = (
    b"List-Unsubscribe: <https://example.org/u/1>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
)


def published(system: System, name: bytes) -> bytes:
    """The TXT record as the simulated DNS tells it."""
    server = parse_listen(system.settings.sink.dns)
    question = dns.message.make_query(name.decode(), "TXT")
    answer = dns.query.udp_with_fallback(question, server.host, port=server.port, timeout=10)[0]
    return b"".join(answer.answer[0][0].strings)


async def test_receiver_verifies_both_signatures_with_the_published_keys(
    start: Start, tmp_path: Path
) -> None:
    keys = [make_key("example.org", "r1", "rsa"), make_key("example.org", "e1", "ed25519")]
    for key in keys:
        path = tmp_path / f"{key.selector}.pem"
        path.touch(mode=0o600)
        path.write_bytes(key.pem())
    system = await start(RELAY_CONFIG=CONFIG)
    for key in keys:
        value = zone_line(key.name, key.record).partition(" TXT ")[2].strip("()\n ")
        system.sink.set_dns(key.name, "TXT", " ".join(value.split("\n")))

    text = "..dots\r\n.\r\n\r\ntrailing  \r\n\tt\u00e4b \r\n\r\n\r\n"
    receipt = await system.submit(["ann@alpha.test", "bob@beta.test"], text=text, headers=FIELDS)
    large = await system.submit(["ann@alpha.test"], text="0123456789 \r\n" * 50_000)
    other = await system.submit(["ann@gamma.test"], sender="x@elsewhere.test")
    late = await system.submit(["tempfail@delta.test"])
    await system.until_delivered(receipt, large, other)
    await system.until(late, {"tempfail@delta.test": "deferred"})
    assert b"DKIM-Signature" not in await system.store.content(late.id)

    copies = [system.sink.content(seen.number) for seen in system.sink.receipts()]
    signed = [copy for copy in copies if copy.startswith(b"DKIM-Signature: ")]
    assert (len(copies), len(signed)) == (4, 3)
    for copy in signed:
        message = dkim.DKIM(copy)
        for index in (0, 1):
            assert message.verify(
                idx=index, dnsfunc=lambda name, timeout=5: published(system, name)
            )
        assert b"list-unsubscribe:" in copy and b"list-unsubscribe-post:" in copy
