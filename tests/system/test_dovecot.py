"""A real Dovecot takes mail by LMTP, octet by octet, and lets us in by each of its mechanisms."""

import asyncio
import imaplib

import pytest

from relay.delivery.session import open_session
from relay.delivery.values import Credentials, Dialogue, Endpoint, SessionFailed
from relay.settings.schema import TlsPolicy
from tests.support.dovecot import PASSWORD, Dovecot, neighbour_dovecot, why_not
from tests.support.ports import free_port
from tests.system.conftest import Start

BOXES = """
[[routes]]
domain = "box.test"
smarthost = "lmtp://{socket}"
"""
USER = "ann@box.test"
MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")
TEXT = ".\r\n..\r\n.dot\r\ngrüße\r\n\r\n" + "long " * 190 + "\r\n" + "x\r\n" * 70_000


def fetched(port: int) -> bytes:
    """The only message of the mailbox, as IMAP gives it."""
    with imaplib.IMAP4("127.0.0.1", port) as client:
        client.login(USER, PASSWORD)
        assert client.select("INBOX", readonly=True) == ("OK", [b"1"])
        _, data = client.fetch("1", "(RFC822)")
        assert isinstance(data[0], tuple)
        return data[0][1]


async def behind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The SMTP server behind Dovecot's submission: it wants one to greet."""
    writer.write(b"220 behind.test\r\n")
    while await reader.readline():
        writer.write(b"250 behind.test\r\n")
    writer.close()


async def login(dovecot: Dovecot, password: str, *mechanisms: str) -> str:
    """Log in at Dovecot's submission; the command that we said, or the reply that refused us."""
    account = Credentials(USER, password, mechanisms=mechanisms)
    dialogue = Dialogue("relay.test", tls=TlsPolicy.OFF, credentials=account)
    endpoint = Endpoint("localhost", "127.0.0.1", dovecot.submission_port)
    try:
        session = await open_session(endpoint, dialogue)
    except SessionFailed as failed:
        return str(failed)
    said = next(line for line in session.opening if line.startswith("> AUTH"))
    await session.close()
    return said.removesuffix(" ***")


@pytest.mark.skipif(bool(why_not()), reason=why_not())
async def test_dovecot_stores_what_was_sent_and_lets_us_in(start: Start) -> None:
    port = free_port()
    server = await asyncio.start_server(behind, "127.0.0.1", port)
    with neighbour_dovecot(USER, relay=("127.0.0.1", port)) as dovecot:
        system = await start(RELAY_CONFIG=BOXES.replace("{socket}", str(dovecot.lmtp)))
        receipt = await system.submit([USER, "nobody@box.test"], text=TEXT)
        await system.until(receipt, {USER: "delivered", "nobody@box.test": "failed"})
        stored = await asyncio.to_thread(fetched, dovecot.imap_port)
        assert stored.endswith(f"\r\n\r\n{TEXT}\r\n".encode())

        strongest = await login(dovecot, PASSWORD)
        each = [await login(dovecot, PASSWORD, name) for name in MECHANISMS]
        refused = await login(dovecot, "wrong", "SCRAM-SHA-256")
    server.close()
    assert strongest == "> AUTH SCRAM-SHA-256"
    assert each == [f"> AUTH {name}" for name in MECHANISMS]
    assert refused.startswith("auth: 535 5.7.8")
