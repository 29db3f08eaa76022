"""STARTTLS at the submission listener: nothing of the plain session survives it."""

import asyncio
import ssl
from collections.abc import Iterator

import pytest

from relay.ingress.smtpd import Listener
from relay.settings.schema import Delivery, Settings, Smtp
from relay.sim.certificates import Certificates
from tests.support.acceptor import MemoryAcceptor

RUNS_ON_BOTH_LOOPS = True
SETTINGS = Settings(smtp=Smtp(listen=("127.0.0.1:0",)), delivery=Delivery(hostname="relay.example"))


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    made = Certificates()
    yield made
    made.close()


class Session:
    """A client that can turn to TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, command: bytes) -> str:
        self.writer.write(command + b"\r\n")
        return await self.reply()

    async def reply(self) -> str:
        lines = []
        async with asyncio.timeout(5):
            while line := (await self.reader.readline()).decode():
                lines.append(line.rstrip())
                if line[3:4] != "-":
                    break
        return "|".join(lines)

    async def start_tls(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await self.writer.start_tls(context)


async def opened(certificates: Certificates) -> tuple[Listener, MemoryAcceptor, Session]:
    queue = MemoryAcceptor()
    context = certificates.context_for("relay.example")
    listener = Listener(SETTINGS, queue, tls_context=context)
    await listener.start()
    reader, writer = await asyncio.open_connection(*listener.addresses[0])
    session = Session(reader, writer)
    assert (await session.reply())[:3] == "220"
    return listener, queue, session


async def closed(listener: Listener, session: Session) -> None:
    session.writer.close()
    await listener.stop(1)


async def test_message_is_taken_over_tls_and_the_trace_says_so(certificates: Certificates) -> None:
    listener, queue, session = await opened(certificates)
    assert "250-STARTTLS" in await session.ask(b"EHLO x")
    assert (await session.ask(b"MAIL FROM:<a@example.org>"))[:3] == "250"
    assert (await session.ask(b"STARTTLS"))[:3] == "220"
    await session.start_tls()
    assert (await session.ask(b"MAIL FROM:<a@example.org>"))[:3] == "503"
    offered = await session.ask(b"EHLO x")
    assert "STARTTLS" not in offered and "PIPELINING" in offered
    assert (await session.ask(b"RCPT TO:<ann@x.test>"))[:3] == "503"
    assert (await session.ask(b"STARTTLS"))[:3] == "503"
    for command in (b"MAIL FROM:<a@example.org>", b"RCPT TO:<ann@x.test>", b"DATA"):
        assert (await session.ask(command))[:1] in "23"
    assert (await session.ask(b"From: a@example.org\r\n\r\nhi\r\n."))[:3] == "250"
    assert b"with ESMTPS id" in queue.last.content
    assert not queue.last.requires_tls
    assert (await session.ask(b"QUIT"))[:3] == "221"
    await closed(listener, session)


async def test_commands_in_the_segment_of_starttls_are_never_run(
    certificates: Certificates,
) -> None:
    listener, queue, session = await opened(certificates)
    await session.ask(b"EHLO x")
    said = await session.ask(b"STARTTLS\r\nMAIL FROM:<evil@x.test>\r\nRCPT TO:<ann@x.test>")
    assert said.startswith("554 5.5.0")
    assert await session.reply() == ""
    assert queue.submissions == []
    await closed(listener, session)


async def test_starttls_takes_no_argument_and_failed_handshake_ends_the_session(
    certificates: Certificates,
) -> None:
    listener, _, session = await opened(certificates)
    await session.ask(b"EHLO x")
    assert (await session.ask(b"STARTTLS now"))[:3] == "501"
    assert (await session.ask(b"STARTTLS"))[:3] == "220"
    session.writer.write(b"MAIL FROM:<evil@x.test>\r\n" * 20)
    try:
        async with asyncio.timeout(5):
            rest = await session.reader.read()
    except ConnectionError:
        rest = b""
    assert b"250" not in rest
    await closed(listener, session)


async def test_requiretls_is_offered_and_taken_under_tls_only(certificates: Certificates) -> None:
    listener, queue, session = await opened(certificates)
    assert "REQUIRETLS" not in await session.ask(b"EHLO x")
    assert (await session.ask(b"MAIL FROM:<a@example.org> REQUIRETLS"))[:3] == "555"
    assert (await session.ask(b"STARTTLS"))[:3] == "220"
    await session.start_tls()
    assert "REQUIRETLS" in await session.ask(b"EHLO x")
    assert (await session.ask(b"MAIL FROM:<a@example.org> REQUIRETLS=1"))[:3] == "501"
    for command in (b"MAIL FROM:<a@example.org> REQUIRETLS", b"RCPT TO:<ann@x.test>", b"DATA"):
        assert (await session.ask(command))[:1] in "23"
    assert (await session.ask(b"From: a@example.org\r\n\r\nhi\r\n."))[:3] == "250"
    assert queue.last.requires_tls
    await closed(listener, session)
