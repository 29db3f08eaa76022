"""The submission listener on real sockets: protocol-and-reliability's server table, row by row."""

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncIterator

import pytest

from relay.ingress.smtp_protocol import SmtpProtocol
from relay.ingress.smtpd import Listener
from relay.model.dsn import Dsn, RecipientDsn
from relay.model.errors import ConfigError, IdempotencyConflict, StoreFull, StoreUnavailable
from relay.settings.schema import Delivery, Limits, Settings, Smtp
from tests.support.acceptor import MemoryAcceptor

RUNS_ON_BOTH_LOOPS = True
BODY = b"From: a@example.org\r\nSubject: x\r\n\r\nhi\r\n"


class Client:
    """A client that writes octets and reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> str:
        """One reply, its lines joined by a bar; "" at the end of the connection."""
        lines = []
        async with asyncio.timeout(5):
            while line := (await self.reader.readline()).decode():
                assert line.endswith("\r\n") and len(line) <= 512
                lines.append(line[:-2])
                if line[3:4] != "-":
                    break
        return "|".join(lines)

    async def ask(self, command: str | bytes) -> str:
        data = command.encode() if isinstance(command, str) else command
        self.write(data + b"\r\n")
        return await self.reply()

    async def greet(self) -> str:
        greeting = await self.reply()
        await self.ask("EHLO client.test")
        return greeting

    async def begin(self, to: str = "ann@gmail.test") -> None:
        """Up to DATA's 354."""
        assert (await self.ask("MAIL FROM:<a@example.org>"))[:3] == "250"
        assert (await self.ask(f"RCPT TO:<{to}>"))[:3] == "250"
        assert (await self.ask("DATA"))[:3] == "354"

    async def is_closed(self) -> bool:
        async with asyncio.timeout(5):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


class Door:
    """A listener with an acceptor in memory."""

    def __init__(self, listener: Listener, queue: MemoryAcceptor) -> None:
        self.listener = listener
        self.queue = queue
        self.port = listener.addresses[0][1]

    @contextlib.asynccontextmanager
    async def client(self, *, greeted: bool = True) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        client = Client(reader, writer)
        try:
            if greeted:
                await client.greet()
            yield client
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def open_door(**smtp: object) -> AsyncIterator[Door]:
    settings = Settings(
        smtp=Smtp(listen=("127.0.0.1:0",), **smtp),  # type: ignore[arg-type]
        delivery=Delivery(hostname="relay.example"),
        limits=Limits(message_size=10_000),
    )
    queue = MemoryAcceptor()
    listener = Listener(settings, queue)
    await listener.start()
    try:
        yield Door(listener, queue)
    finally:
        await listener.stop(0.2)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door() as opened:
        yield opened


async def test_message_is_queued_and_the_reply_names_its_queue_id(door: Door) -> None:
    async with door.client() as client:
        await client.begin()
        reply = await client.ask(BODY + b".")
        assert reply == f"250 2.0.0 OK queued as {door.queue.last.queue_id}"
        assert await client.ask("QUIT") == "221 2.0.0 Bye"
        assert await client.is_closed()
    assert door.queue.last.content.endswith(BODY)
    assert b"Received: from client.test ([127.0.0.1])\r\n" in door.queue.last.content
    assert door.queue.last.ingress == "smtp"


async def test_ehlo_offers_what_is_kept(door: Door) -> None:
    async with door.client(greeted=False) as client:
        assert await client.reply() == "220 relay.example ESMTP relay"
        offered = (await client.ask("EHLO x")).split("|")
        assert offered == [
            "250-relay.example",
            "250-PIPELINING",
            "250-SIZE 10000",
            "250-8BITMIME",
            "250-SMTPUTF8",
            "250-DSN",
            "250 ENHANCEDSTATUSCODES",
        ]
        assert await client.ask("HELO x") == "250 relay.example"


# -- before and beside SMTP ------------------------------------------------------------------


async def test_talk_before_the_greeting_is_refused(door: Door) -> None:
    # The kernel takes connection and octets before the listener's loop sees either.
    sock = socket.create_connection(("127.0.0.1", door.port))
    sock.sendall(b"EHLO early\r\n")
    reader, writer = await asyncio.open_connection(sock=sock)
    client = Client(reader, writer)
    assert (await client.reply()).startswith("554 5.5.0")
    assert await client.is_closed()
    writer.close()


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "POST /v1/messages HTTP/1.1", "CONNECT x:25"])
async def test_http_is_sent_away_at_once(door: Door, line: str) -> None:
    async with door.client(greeted=False) as client:
        await client.reply()
        reply = await client.ask(f"{line}\r\nHost: x\r\n\r\nMAIL FROM:<a@b.test>")
        assert reply == "554 5.5.1 This is SMTP, not HTTP"
        assert await client.is_closed()


# -- commands --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("FOO", "500 5.5.2"),
        ("", "500 5.5.2"),
        ("NOOP " + "x" * 3000, "500 5.5.2 Command line too long"),
        ("NOOP a\0b", "500 5.5.2 Control character"),
        ("NOOP a\rb", "500 5.5.2 Control character"),
        ("LHLO x", "500 5.5.2"),
        ("EHLO", "501 5.5.4"),
        ("HELO", "501 5.5.4"),
        ("HELP", "214 2.0.0"),
        ("VRFY ann", "252 2.5.0"),
        ("EXPN list", "502 5.5.1"),
        ("AUTH PLAIN AGEAYg==", "502 5.5.1"),
        ("STARTTLS", "502 5.5.1"),
        ("NOOP anything", "250 2.0.0"),
        ("RSET", "250 2.0.0"),
        ("RSET x", "501 5.5.4"),
        ("RCPT TO:<a@b.test>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("MAIL FROM:", "501 5.5.4"),
        ("MAIL a@b.test", "501 5.5.4"),
        ("MAIL FROM:<a@b.test>x", "501 5.5.4"),
        ("MAIL FROM: <a@b.test>", "250 2.1.0"),
        ("mail from:<a@b.test>", "250 2.1.0"),
        ("MAIL FROM:<>", "250 2.1.0"),
        ("MAIL FROM:a@b.test", "250 2.1.0"),
        ("MAIL FROM:<a@b.test> SIZE=100 BODY=8BITMIME", "250 2.1.0"),
        ("MAIL FROM:<a@b.test> SIZE=x", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> SIZE", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> SIZE=10001", "552 5.3.4"),
        ("MAIL FROM:<a@b.test> SIZE=999999999999999999999999", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> BODY=X", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> SIZE=1 SIZE=1", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> ret=hdrs ENVID=QQ+2B17+20a", "250 2.1.0"),
        ("MAIL FROM:<> RET=FULL", "250 2.1.0"),
        ("MAIL FROM:<a@b.test> RET=ALL", "501 5.5.4 RET "),
        ("MAIL FROM:<a@b.test> RET", "501 5.5.4 RET "),
        ("MAIL FROM:<a@b.test> RET=FULL RET=FULL", "501 5.5.4 parameter RET is given twice"),
        ("MAIL FROM:<a@b.test> ENVID", "501 5.5.4 ENVID "),
        ("MAIL FROM:<a@b.test> ENVID=a+b", "501 5.5.4 ENVID "),
        ("MAIL FROM:<a@b.test> ENVID=a+2b", "501 5.5.4 ENVID "),
        ("MAIL FROM:<a@b.test> ENVID=a+0D+0Ab", "501 5.5.4 ENVID "),
        (f"MAIL FROM:<a@b.test> ENVID={'e' * 100}", "250 2.1.0"),
        (f"MAIL FROM:<a@b.test> ENVID={'e' * 101}", "501 5.5.4 ENVID "),
        ("MAIL FROM:<a@b.test> NOTIFY=NEVER", "555 5.5.4 Parameter NOTIFY "),
        ("MAIL FROM:<a@b.test> XTRA=1", "555 5.5.4 Parameter XTRA "),
        ("MAIL FROM:<a@b.test> SMTPUTF8=1", "501 5.5.4"),
        ("MAIL FROM:<jörg@b.test>", "553 5.6.7"),
        ("MAIL FROM:<jörg@b.test> SMTPUTF8", "250 2.1.0"),
        ("MAIL FROM:<nodomain>", "553 5.1.7"),
        ("MAIL FROM:<@us.test:a@b.test>", "553 5.1.7"),
        ("MAIL FROM:<a\x07@b.test>", "553 5.1.7"),
        (f"MAIL FROM:<{'a' * 65}@b.test>", "553 5.1.7"),
        ("MAIL FROM:<a@b..test>", "553 5.1.7"),
    ],
)
async def test_command_gets_its_one_reply(door: Door, line: str, reply: str) -> None:
    async with door.client() as client:
        assert (await client.ask(line)).startswith(reply)
        assert (await client.ask("NOOP")) == "250 2.0.0 OK"


async def test_bare_lf_ends_no_command(door: Door) -> None:
    async with door.client() as client:
        client.write(b"NOOP\n")
        assert (await client.reply()).startswith("500 5.5.2 Commands end in CRLF")


async def test_line_without_end_needs_no_memory(door: Door) -> None:
    async with door.client() as client:
        for _ in range(200):
            client.write(b"A" * 4097)
        await client.writer.drain()
        (session,) = door.listener._sessions
        await asyncio.sleep(0.05)
        assert len(session.input) < 70_000
        assert (await client.ask("")) == "500 5.5.2 Command line too long"
        assert (await client.ask("NOOP")) == "250 2.0.0 OK"


async def test_mail_before_ehlo_and_twice_is_out_of_order(door: Door) -> None:
    async with door.client(greeted=False) as client:
        await client.reply()
        assert (await client.ask("MAIL FROM:<a@b.test>"))[:3] == "503"
        await client.ask("EHLO x")
        assert (await client.ask("MAIL FROM:<a@b.test>"))[:3] == "250"
        assert (await client.ask("MAIL FROM:<a@b.test>"))[:3] == "503"
        await client.ask("EHLO x")
        assert (await client.ask("RCPT TO:<a@b.test>"))[:3] == "503"
        await client.ask("HELO x")
        assert (await client.ask("MAIL FROM:<a@b.test> SIZE=1"))[:3] == "501"


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("<ann@gmail.test>", "250 2.1.5"),
        ("<ANN@GMAIL.TEST>", "250 2.1.5"),
        ('<"a b"@x.test>', "250 2.1.5"),
        ("<postmaster>", "250 2.1.5"),
        ("<Postmaster>", "250 2.1.5"),
        ("<u%x.test@us.test>", "250 2.1.5"),
        ("<>", "553 5.1.3"),
        ("<ann>", "553 5.1.3"),
        ("<ann@[127.0.0.1]>", "553 5.1.3"),
        ("<@us.test:ann@x.test>", "553 5.1.3"),
        ("<ann@x..test>", "553 5.1.3"),
        ("<ann\x0b@x.test>", "553 5.1.3"),
        ("<a b@x.test>", "553 5.1.3"),
        (f"<{'a' * 65}@x.test>", "553 5.1.3"),
        (f"<a@{'b' * 64}.test>", "553 5.1.3"),
        (f"<{'a' * 60}@{'b.' * 97}test>", "553 5.1.3"),
        ("<jörg@x.test>", "553 5.6.7"),
        ("<ann@bücher.test>", "553 5.6.7"),
        ("<ann@x.test> NOTIFY=NEVER", "250 2.1.5"),
        ("<ann@x.test> notify=delay,Failure,SUCCESS ORCPT=rfc822;Ann+2B1@x.test", "250 2.1.5"),
        ("<ann@x.test> NOTIFY", "501 5.5.4 NOTIFY "),
        ("<ann@x.test> NOTIFY=", "501 5.5.4"),
        ("<ann@x.test> NOTIFY=NEVER,SUCCESS", "501 5.5.4 NOTIFY "),
        ("<ann@x.test> NOTIFY=SUCCESS,SUCCESS", "501 5.5.4 NOTIFY "),
        ("<ann@x.test> NOTIFY=SUCCESS,", "501 5.5.4 NOTIFY "),
        ("<ann@x.test> NOTIFY=ALWAYS", "501 5.5.4 NOTIFY "),
        ("<ann@x.test> NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4 parameter NOTIFY is given twice"),
        ("<ann@x.test> ORCPT", "501 5.5.4 ORCPT "),
        ("<ann@x.test> ORCPT=ann@x.test", "501 5.5.4 ORCPT "),
        ("<ann@x.test> ORCPT=rfc822;", "501 5.5.4 ORCPT "),
        ("<ann@x.test> ORCPT=rfc822;a+b@x.test", "501 5.5.4 ORCPT "),
        (f"<ann@x.test> ORCPT=rfc822;{'a' * 493}", "250 2.1.5"),
        (f"<ann@x.test> ORCPT=rfc822;{'a' * 494}", "501 5.5.4 ORCPT "),
        ("<ann@x.test> ORCPT=utf-8;j\\x{F6}rg@x.test", "250 2.1.5"),
        ("<ann@x.test> ORCPT=utf-8;jörg@x.test", "501 5.5.4 ORCPT is not ASCII"),
        ("<ann@x.test> RET=FULL", "555 5.5.4 Parameter RET "),
        ("ann@x.test extra", "555 5.5.4"),
    ],
)
async def test_recipient_is_taken_or_named_in_the_refusal(
    door: Door, path: str, reply: str
) -> None:
    async with door.client() as client:
        await client.ask("MAIL FROM:<a@example.org>")
        said = await client.ask(f"RCPT TO:{path}")
        assert said.startswith(reply)
        if reply == "553 5.1.3" and path != "<>":
            assert path.strip("<>").partition("\x0b")[0][:20] in said


async def test_submission_with_refused_addresses_only_queues_nothing(door: Door) -> None:
    async with door.client() as client:
        assert (await client.ask("MAIL FROM:<nodomain>"))[:3] == "553"
        assert (await client.ask("RCPT TO:<ann@x.test>"))[:3] == "503"
        assert (await client.ask("DATA"))[:3] == "503"
        await client.ask("MAIL FROM:<a@example.org>")
        assert (await client.ask("RCPT TO:<ann@x..test>"))[:3] == "553"
        assert (await client.ask("DATA"))[:3] in ("503", "554")
    assert door.queue.submissions == []


async def test_international_addresses_pass_with_smtputf8(door: Door) -> None:
    async with door.client() as client:
        await client.ask("MAIL FROM:<jörg@b.test> SMTPUTF8")
        assert (await client.ask("RCPT TO:<jörg@bücher.test>"))[:3] == "250"
        await client.ask("DATA")
        await client.ask(BODY + b".")
    assert str(door.queue.last.forward_paths[0]) == "jörg@xn--bcher-kva.test"
    assert door.queue.last.needs_smtputf8


async def test_postmaster_is_one_of_our_own_domain(door: Door) -> None:
    async with door.client() as client:
        await client.begin("postmaster")
        await client.ask(BODY + b".")
    assert str(door.queue.last.forward_paths[0]) == "postmaster@relay.example"


async def test_recipients_given_twice_are_collapsed(door: Door) -> None:
    async with door.client() as client:
        await client.ask("MAIL FROM:<a@example.org>")
        for path in ("ann@x.test", "ann@X.test", "bob@x.test"):
            await client.ask(f"RCPT TO:<{path}>")
        await client.ask("DATA")
        await client.ask(BODY + b".")
    assert [str(path) for path in door.queue.last.forward_paths] == ["ann@x.test", "bob@x.test"]


async def test_data_without_a_recipient_that_was_taken(door: Door) -> None:
    async with door.client() as client:
        await client.ask("MAIL FROM:<a@example.org>")
        assert await client.ask("DATA") == "503 5.5.1 Send RCPT first"
        await client.ask("RCPT TO:<nobody>")
        assert await client.ask("DATA") == "554 5.5.1 No valid recipients"
    assert door.queue.submissions == []


async def test_recipient_over_the_cap_is_put_off_and_the_others_stay() -> None:
    async with open_door(max_recipients=3) as door, door.client() as client:
        await client.ask("MAIL FROM:<a@example.org>")
        replies = [await client.ask(f"RCPT TO:<u{number}@x.test>") for number in range(4)]
        assert [reply[:9] for reply in replies] == ["250 2.1.5"] * 3 + ["452 4.5.3"]
        await client.ask("DATA")
        await client.ask(BODY + b".")
        assert len(door.queue.last.forward_paths) == 3


# -- no open relay ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "ann@x.test",
        "user%x.test@relay.example",
        "x.test!user@relay.example",
        '"ann@x.test"@relay.example',
        "@relay.example:ann@x.test",
        "postmaster",
        "ann@relay.example",
    ],
)
async def test_stranger_may_not_relay_by_any_trick(path: str) -> None:
    async with open_door(allowed_networks=("192.0.2.0/24",)) as door, door.client() as client:
        assert (await client.ask("MAIL FROM:<postmaster@relay.example>"))[:3] == "250"
        assert await client.ask(f"RCPT TO:<{path}>") == "554 5.7.1 Relay access denied"
        assert (await client.ask("DATA"))[:3] == "554"


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
async def test_whole_internet_is_no_allowed_network(network: str) -> None:
    with pytest.raises(ConfigError, match=r"smtp\.allowed_networks"):
        async with open_door(allowed_networks=(network,)):
            pass


# -- pipelining ------------------------------------------------------------------------------


async def test_pipelined_group_is_answered_in_order_one_reply_each(door: Door) -> None:
    async with door.client() as client:
        client.write(
            b"RSET\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<ann@x.test>\r\n"
            b"RCPT TO:<bad>\r\nRCPT TO:<bob@x.test>\r\nDATA\r\n"
        )
        codes = [(await client.reply())[:3] for _ in range(6)]
        assert codes == ["250", "250", "250", "553", "250", "354"]
        # The final dot and the whole next transaction in one write (RFC 2920 §3.1).
        client.write(BODY + b".\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<c@x.test>\r\nDATA\r\n")
        assert [(await client.reply())[:3] for _ in range(4)] == ["250", "250", "250", "354"]
        client.write(BODY + b".\r\nQUIT\r\n")
        assert [(await client.reply())[:3] for _ in range(2)] == ["250", "221"]
    assert [len(item.forward_paths) for item in door.queue.submissions] == [2, 1]


async def test_pipelined_transactions_cut_anywhere_are_the_same(door: Door) -> None:
    group = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<ann@x.test>\r\nDATA\r\n"
    for cut in range(1, len(group), 7):
        async with door.client() as client:
            client.write(group[:cut])
            await client.writer.drain()
            await asyncio.sleep(0.002)
            client.write(group[cut:])
            assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "354"]


async def test_half_close_after_the_last_command_still_gets_its_replies(door: Door) -> None:
    async with door.client() as client:
        await client.begin()
        client.write(BODY + b".\r\nNOOP\r\nQUIT\r\n")
        client.writer.write_eof()
        assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "221"]
        assert await client.is_closed()


@pytest.mark.parametrize("command", ["EHLO x", "HELO x", "DATA"])
async def test_talk_on_where_our_reply_must_come_first_ends_the_session(
    door: Door, command: str
) -> None:
    async with door.client() as client:
        await client.ask("MAIL FROM:<a@example.org>")
        await client.ask("RCPT TO:<ann@x.test>")
        client.write(command.encode() + b"\r\n" + BODY + b".\r\nQUIT\r\n")
        assert (await client.reply()).startswith("554 5.5.0")
        assert await client.is_closed()
    assert door.queue.submissions == []


async def test_bdat_is_not_taken_for_commands(door: Door) -> None:
    async with door.client() as client:
        client.write(b"BDAT 37 LAST\r\nMAIL FROM:<evil@x.test>\r\nRSET\r\nRSET\r\nNOOP\r\n")
        assert (await client.reply()).startswith("503 5.5.1")
        assert (await client.reply()) == "250 2.0.0 OK"


# -- DATA ------------------------------------------------------------------------------------


async def test_data_cut_at_every_octet_is_one_message(door: Door) -> None:
    wire = b"From: a@example.org\r\n\r\na\r\n..b\r\n...\r\n.\r\n"
    async with door.client() as client:
        for cut in range(1, len(wire)):
            await client.begin()
            client.write(wire[:cut])
            await client.writer.drain()
            await asyncio.sleep(0)
            client.write(wire[cut:])
            assert (await client.reply())[:3] == "250"
            assert door.queue.last.content.endswith(b"\r\n\r\na\r\n.b\r\n..\r\n")
    assert len(door.queue.submissions) == len(wire) - 1


async def test_dot_that_comes_late_is_not_held_back_by_our_kernel(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nagle's algorithm at the client waits for an acknowledgement that ours would delay."""
    acknowledged: list[tuple[int, int]] = []
    acknowledge = SmtpProtocol.acknowledge

    def spied(protocol: SmtpProtocol) -> None:
        assert protocol.transport is not None
        sock = protocol.transport.get_extra_info("socket")
        before = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)
        acknowledge(protocol)
        after = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)
        acknowledged.append((before, after))

    monkeypatch.setattr(SmtpProtocol, "acknowledge", spied)
    async with door.client() as client:
        await client.begin()
        client.write(BODY + b".\r\n")
        assert (await client.reply())[:3] == "250"
        assert acknowledged == []

        await client.begin()
        client.write(BODY)
        async with asyncio.timeout(5):
            while not acknowledged:
                await asyncio.sleep(0)
        client.write(b".\r\n")
        assert (await client.reply())[:3] == "250"
    assert acknowledged == [(0, 1)]


@pytest.mark.parametrize("fake", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r\r\n"])
async def test_smuggled_end_of_data_is_content(door: Door, fake: bytes) -> None:
    async with door.client() as client:
        await client.begin()
        client.write(BODY + b"a" + fake + b"MAIL FROM:<evil@x.test>\r\n.\r\n")
        assert (await client.reply())[:3] == "250"
        assert (await client.ask("NOOP")) == "250 2.0.0 OK"
    (queued,) = door.queue.submissions
    assert b"evil" in queued.content
    assert queued.content.count(b"\r") == queued.content.count(b"\n")
    assert queued.content.count(b"\r\n") == queued.content.count(b"\n")


async def test_message_over_the_limit_is_read_to_its_end_and_refused_once(door: Door) -> None:
    async with door.client() as client:
        await client.begin()
        client.write(BODY + b"x" * 9_990 + b"\r\n.\r\n")
        assert (await client.reply()).startswith("552 5.3.4")
        await client.begin()
        assert (await client.ask(BODY + b"."))[:3] == "250"
    assert len(door.queue.submissions) == 1


async def test_message_hugely_over_the_limit_ends_the_session(door: Door) -> None:
    async with door.client() as client:
        await client.begin()
        client.write(b"x" * 200_000)
        assert (await client.reply()).startswith("552 5.3.4")
        assert await client.is_closed()
    assert door.queue.submissions == []


async def test_message_without_room_for_it_is_put_off() -> None:
    async with open_door(max_content=3000) as door, door.client() as client:
        assert (await client.ask("MAIL FROM:<a@b.test> SIZE=5000"))[:9] == "452 4.3.1"
        await client.begin()
        # Room is taken as octets come in, so a message that comes in parts meets the bound.
        client.write(BODY)
        for _ in range(10):
            client.write(b"x" * 498 + b"\r\n")
            await client.writer.drain()
            await asyncio.sleep(0.01)
        assert (await client.ask(b"."))[:9] == "452 4.3.1"
        await client.begin()
        assert (await client.ask(BODY + b"."))[:3] == "250"


async def test_long_lines_and_empty_messages_are_taken(door: Door) -> None:
    async with door.client() as client:
        for content in (BODY + b"y" * 5000 + b"\r\n", b"", b"\r\n", b"no header\r\n"):
            await client.begin()
            assert (await client.ask(content + b"."))[:3] == "250"


async def test_loop_is_refused(door: Door) -> None:
    async with door.client() as client:
        await client.begin()
        assert (await client.ask(b"Received: x\r\n" * 50 + BODY + b".")).startswith("554 5.4.6")


async def test_connection_that_ends_within_data_queues_nothing(door: Door) -> None:
    async with door.client() as client:
        await client.begin()
        client.write(BODY + b".\r")
        client.writer.write_eof()
        assert await client.is_closed()
    assert door.queue.submissions == []


async def test_client_gone_after_the_dot_does_not_stop_the_acceptance(door: Door) -> None:
    door.queue.gate = asyncio.Event()
    async with door.client() as client:
        await client.begin()
        client.write(BODY + b".\r\n")
        await client.writer.drain()
        async with asyncio.timeout(5):
            await door.queue.is_waited_for.wait()
    door.queue.gate.set()
    async with asyncio.timeout(5):
        while not door.queue.submissions:
            await asyncio.sleep(0.01)


# -- our own troubles are 4yz ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (StoreUnavailable("gone"), "451 4.3.0"),
        (StoreFull("full"), "452 4.3.1"),
        (IdempotencyConflict("other"), "550 5.5.4"),
        (RuntimeError("secret inside"), "451 4.3.0 Internal error"),
        (ConfigError("odd"), "451 4.3.0 Internal error"),
    ],
)
async def test_error_of_the_queue_is_a_reply_and_the_session_goes_on(
    door: Door, error: Exception, reply: str
) -> None:
    async with door.client() as client:
        door.queue.error = error
        await client.begin()
        said = await client.ask(BODY + b".")
        assert said.startswith(reply) and "secret" not in said
        door.queue.error = None
        await client.begin()
        assert (await client.ask(BODY + b"."))[:3] == "250"


async def test_reply_never_carries_what_could_break_a_line(door: Door) -> None:
    async with door.client() as client:
        await client.ask("MAIL FROM:<a@example.org> SMTPUTF8")
        said = await client.ask("RCPT TO:<" + "ü\u2028" * 60 + ">")
        assert said.startswith("553") and said.isascii() and said.isprintable()
        await client.ask("RSET")
        await client.begin()
        said = await client.ask(b"From: a@b.c\r\nFrom: \x1b[31m\r\n\r\n.")
        assert said.startswith("550 5.6.0") and said.isprintable()


# -- limits ----------------------------------------------------------------------------------


async def test_connections_over_the_cap_are_told_in_the_greeting() -> None:
    async with open_door(max_connections_per_address=2) as door:
        async with door.client(), door.client(), door.client(greeted=False) as third:
            assert (await third.reply()).startswith("421 4.7.0")
            assert await third.is_closed()
        async with asyncio.timeout(5):
            while door.listener._sessions:
                await asyncio.sleep(0.01)
        async with door.client() as client:
            assert await client.ask("NOOP") == "250 2.0.0 OK"


async def test_too_many_errors_end_the_session() -> None:
    async with open_door(max_errors=3) as door, door.client() as client:
        assert [(await client.ask("FOO"))[:3] for _ in range(3)] == ["500"] * 3
        assert (await client.reply()).startswith("421 4.7.0")
        assert await client.is_closed()


async def test_bad_recipients_are_no_errors_of_the_protocol() -> None:
    async with open_door(max_errors=3) as door, door.client() as client:
        await client.ask("MAIL FROM:<a@example.org>")
        for _ in range(10):
            assert (await client.ask("RCPT TO:<bad>"))[:3] == "553"
        assert (await client.ask("RCPT TO:<ann@x.test>"))[:3] == "250"


async def test_flood_of_idle_commands_ends_the_session(door: Door) -> None:
    async with door.client() as client:
        client.write(b"NOOP\r\n" * 300)
        replies = [await client.reply() for _ in range(101)]
        assert replies[99] == "250 2.0.0 OK"
        assert replies[100].startswith("421 4.7.0")


async def test_session_whose_client_is_gone_takes_no_memory(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that come and go by the thousand must not pile up while they linger."""
    monkeypatch.setattr("relay.ingress.smtp_protocol._LINGER_S", 3600.0)
    async with door.client() as client:
        (session,) = map(weakref.ref, door.listener._sessions)
        assert await client.ask("QUIT") == "221 2.0.0 Bye"
        assert await client.is_closed()
    async with asyncio.timeout(30):
        while session() is not None:
            gc.collect()
            await asyncio.sleep(0.01)


async def test_silent_client_is_told_before_it_is_closed() -> None:
    async with open_door(idle_timeout=0.2) as door, door.client() as client:
        assert (await client.reply()).startswith("421 4.4.2")
        assert await client.is_closed()


async def test_silence_within_data_is_told_too() -> None:
    async with open_door(data_timeout=0.2) as door, door.client() as client:
        await client.begin()
        client.write(b"From: a@b.test\r\n")
        assert (await client.reply()).startswith("421 4.4.2")
        assert await client.is_closed()


async def test_dripping_data_is_no_way_to_hold_a_session() -> None:
    async with open_door(data_timeout=0.3) as door, door.client() as client:
        await client.begin()
        dripping = asyncio.create_task(_drip(client))
        assert (await client.reply()).startswith("421 4.4.2 Data comes too slowly")
        dripping.cancel()


async def _drip(client: Client) -> None:
    with contextlib.suppress(OSError):
        while True:
            client.write(b"x")
            await asyncio.sleep(0.05)


# -- stopping --------------------------------------------------------------------------------


async def test_stopping_finishes_the_message_under_way_and_sends_others_away(door: Door) -> None:
    async with door.client() as idle, door.client() as busy:
        await busy.begin()
        busy.write(BODY)
        await busy.writer.drain()
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(door.listener.stop(5))
        assert (await idle.reply()).startswith("421 4.3.2")
        with pytest.raises(OSError, match=r"."):
            await asyncio.open_connection("127.0.0.1", door.port)
        assert (await busy.ask(b"."))[:3] == "250"
        assert (await busy.reply()).startswith("421 4.3.2")
        assert await busy.is_closed()
        await stopping
    assert len(door.queue.submissions) == 1


async def test_stopping_does_not_wait_for_ever(door: Door) -> None:
    async with door.client() as client:
        await client.begin()
        async with asyncio.timeout(3):
            await door.listener.stop(0.1)
        assert await client.is_closed()


async def test_taken_port_is_named_with_its_setting(door: Door) -> None:
    settings = Settings(smtp=Smtp(listen=(f"127.0.0.1:{door.port}",)))
    with pytest.raises(ConfigError, match=rf"smtp\.listen: .*{door.port}"):
        await Listener(settings, MemoryAcceptor()).start()


async def test_dsn_parameters_belong_to_their_message_and_recipient(door: Door) -> None:
    async with door.client() as client:
        await client.ask("MAIL FROM:<a@example.org> RET=full ENVID=QQ+2B17")
        for argument in (
            "<ann@x.test>",
            "<bob@x.test> NOTIFY=delay,SUCCESS",
            "<bob@x.test> NOTIFY=NEVER",
            "<nobody> NOTIFY=NEVER",
            "<cai@x.test> NOTIFY=NEVER ORCPT=rfc822;Cai@y.test",
        ):
            await client.ask(f"RCPT TO:{argument}")
        await client.ask("DATA")
        assert (await client.ask(BODY + b"."))[:3] == "250"
        first = door.queue.last
        assert [str(path) for path in first.forward_paths] == [
            "ann@x.test",
            "bob@x.test",
            "cai@x.test",
        ]
        # Of a recipient who is given twice the first counts.
        asked = (RecipientDsn(), RecipientDsn("SD"), RecipientDsn("N", "rfc822;Cai@y.test"))
        assert first.dsn == Dsn("FULL", "QQ+2B17", asked)

        await client.begin()
        assert (await client.ask(BODY + b"."))[:3] == "250"
        assert door.queue.last.dsn is None


async def test_dsn_parameters_need_ehlo(door: Door) -> None:
    async with door.client(greeted=False) as client:
        await client.reply()
        await client.ask("HELO x")
        assert (await client.ask("MAIL FROM:<a@b.test> RET=FULL")).startswith("501 5.5.4")
        await client.ask("MAIL FROM:<a@b.test>")
        assert (await client.ask("RCPT TO:<a@b.test> NOTIFY=NEVER")).startswith("501 5.5.4")
