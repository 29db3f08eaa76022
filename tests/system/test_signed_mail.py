"""What arrives is signed, verifies with the key in DNS, and bears a token where it is asked for."""

import asyncio
import time
from pathlib import Path

import dkim
import dns.message
import dns.query

from relay.ingress.labels import Labels
from relay.policy.verp import VerpCodec
from relay.settings.kinds import parse_listen
from relay.smtp.dkim_key import DkimKey, make_key, zone_line
from relay.store.meters import read_figures
from tests.support.system import WAIT_S, System
from tests.system.conftest import Start

CONFIG = """
[envelope]
verp_bulk = "recipient"
bounce_domain = "bounces.example.org"
verp_secrets = ["a secret of 16 octets"]

[headers]
feedback_id = "{campaign}:{class}:acme1"

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


def write_key(folder: Path, key: DkimKey) -> None:
    """The key's file, there at once and whole."""
    path = folder / "new"
    path.touch(mode=0o600)
    path.write_bytes(key.pem())
    path.rename(folder / f"{key.selector}.pem")


def assert_verified(system: System, copy: bytes) -> None:
    """Both signatures are good by the keys that DNS tells."""
    message = dkim.DKIM(copy)
    for index in (0, 1):
        assert message.verify(idx=index, dnsfunc=lambda name, timeout=5: published(system, name))


async def test_receiver_verifies_signatures_with_the_published_keys_and_sees_our_reverse_paths(
    start: Start, tmp_path: Path
) -> None:
    keys = [make_key("example.org", "r1", "rsa"), make_key("example.org", "e1", "ed25519")]
    for key in keys:
        write_key(tmp_path, key)
    system = await start(RELAY_CONFIG=CONFIG)
    for key in keys:
        value = zone_line(key.name, key.record).partition(" TXT ")[2].strip("()\n ")
        system.sink.set_dns(key.name, "TXT", " ".join(value.split("\n")))

    text = "..dots\r\n.\r\n\r\ntrailing  \r\n\tt\u00e4b \r\n\r\n\r\n"
    receipt = await system.submit(["ann@alpha.test", "bob@beta.test"], text=text, headers=FIELDS)
    large = await system.submit(["ann@alpha.test"], text="0123456789 \r\n" * 50_000)
    # One host takes 7-bit content alone; so does that to which another, that takes all, gives way.
    system.sink.set_dns("mixed.test", "MX", "10 mx1.shop.test.", "20 mx1.no8bitmime.test.")
    system.sink.add_fault("mx1.shop.test", "MAIL", "reply", reply="452 4.3.1 No room on the disk")
    older = await system.submit(["ann@no8bitmime.test", "ann@mixed.test"], text=text)
    foreign = b"DKIM-Signature: v=1; d=elsewhere.test\r\n"
    kept = await system.submit(["bob@no8bitmime.test"], text="t\u00e4b", headers=foreign)
    other = await system.submit(["ann@gamma.test"], sender="x@elsewhere.test")
    news = await system.submit(
        ["ann@alpha.test", "bob@alpha.test"], labels=Labels(mail_class="bulk", campaign="spring")
    )
    late = await system.submit(["tempfail@delta.test"])
    await system.until_delivered(receipt, large, older, kept, other, news)
    await system.until(late, {"tempfail@delta.test": "deferred"})
    assert b"DKIM-Signature" not in await system.store.content(late.id)

    copies = [system.sink.content(seen.number) for seen in system.sink.receipts()]
    signed = [copy for copy in copies if copy.startswith(b"DKIM-Signature: ")]
    assert (len(copies), len(signed)) == (9, 8)
    for copy in signed:
        assert_verified(system, copy)
        assert b"list-unsubscribe:" in copy and b"list-unsubscribe-post:" in copy
    (seen,) = system.sink.receipts(recipient="bob@no8bitmime.test")
    assert seen.flags == ("undeclared_8bit",)
    converted = system.sink.receipts(recipient="ann@no8bitmime.test")
    converted += system.sink.receipts(recipient="ann@mixed.test")
    for seen in converted:
        copy = system.sink.content(seen.number)
        assert seen.flags == () and b"\r\n=2E\r\n\r\ntrailing =20\r\n\tt=C3=A4b=20\r\n" in copy
    assert [seen.host for seen in converted] == ["mx1.no8bitmime.test"] * 2

    codec = VerpCodec.from_settings(system.settings)
    named = set()
    for seen in system.sink.receipts():
        token = codec.decode(seen.reverse_path, time.time())
        if token is not None:
            named.add((seen.forward_paths[0], token.queue_id, token.number))
    assert named == {
        ("ann@alpha.test", receipt.id, 1),
        ("bob@beta.test", receipt.id, 2),
        ("ann@alpha.test", news.id, 1),
        ("bob@alpha.test", news.id, 2),
    }
    assert sum(b"\r\nFeedback-ID: spring:bulk:acme1\r\n" in copy for copy in copies) == 2
    events = await system.events("recipient.delivered")
    assert {event.data["reverse_path"] for event in events} == {
        "news@example.org",
        "x@elsewhere.test",
    }

    new = make_key("example.org", "e2", "ed25519")
    write_key(tmp_path, new)
    path = tmp_path / "relay.toml"
    path.write_text(path.read_text().replace('"e1', '"e2'))
    counted: dict[tuple[str, ...], int] = {}
    async with asyncio.timeout(WAIT_S):
        while not (counted.get(("no",)) == 1 and counted.get(("yes",), 0) >= 5):
            await asyncio.sleep(0.1)
            counted = (await read_figures(system.store)).counts.get("dkim", {})
    await system.until_logged("dkim.keys_changed")
    system.sink.set_dns(new.name, "TXT", f'"{new.record}"')
    await system.until_delivered(await system.submit(["ann@omega.test"]))
    (seen,) = system.sink.receipts(domain="omega.test")
    assert_verified(system, system.sink.content(seen.number))
