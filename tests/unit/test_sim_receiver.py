"""The receiver's dialogue, spoken octet by octet over real sockets."""

import asyncio
import base64
import smtplib
import socket
import ssl

import pytest
from sim_dialogue import ENVELOPE, Dialogue

from relay.sim.receipts import ReceiptFilter
from relay.sim.server import Sink

RUNS_ON_BOTH_LOOPS = True


@pytest.fixture
async def sink():
    async with Sink() as running:
        yield running


async def test_receiver_offers_the_extensions_of_a_modern_host(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        offered = await peer.hello()
    for word in ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "STARTTLS", "SIZE"):
        assert word in offered
    assert "AUTH" not in offered


@pytest.mark.parametrize(
    ("keyword", "extension"),
    [
        ("notls", "STARTTLS"),
        ("nopipelining", "PIPELINING"),
        ("no8bitmime", "8BITMIME"),
        ("no8bitmime", "SMTPUTF8"),
        ("nosmtputf8", "SMTPUTF8"),
        ("noenhanced", "ENHANCEDSTATUSCODES"),
    ],
)
async def test_receiver_hides_an_extension_where_scripted(sink, keyword, extension):
    async with Dialogue(sink, f"mx1.{keyword}.test") as peer:
        assert extension not in await peer.hello()


async def test_receiver_answers_without_enhanced_codes_where_it_offers_none(sink):
    async with Dialogue(sink, "mx1.noenhanced.test") as peer:
        await peer.hello()
        assert await peer.say("MAIL FROM:<a@b.test>") == "250 Sender ok"


async def test_receiver_with_dsn_records_what_was_asked(sink):
    async with Dialogue(sink, "mx1.dsn.test") as peer:
        assert "DSN" in await peer.hello()
        assert (await peer.say("MAIL FROM:<a@b.test> RET=ALL"))[:3] == "555"
        assert (await peer.say("MAIL FROM:<a@b.test> RET=FULL ENVID=a+2Bb"))[:3] == "250"
        assert (await peer.say("RCPT TO:<x@dsn.test> NOTIFY=NEVER,DELAY"))[:3] == "501"
        assert (await peer.say("RCPT TO:<x@dsn.test> ORCPT=x"))[:3] == "501"
        assert (await peer.say("RCPT TO:<x@dsn.test> XTRA"))[:3] == "555"
        for argument in ("<x@dsn.test>", "<y@dsn.test> NOTIFY=DELAY ORCPT=rfc822;y@old.test"):
            assert (await peer.say(f"RCPT TO:{argument}"))[:3] == "250"
        await peer.say("DATA")
        assert (await peer.say("Subject: x\r\n\r\nhi\r\n."))[:3] == "250"
    (receipt,) = sink.mailbox.receipts()
    assert receipt.mail_parameters == "RET=FULL ENVID=a+2Bb"
    assert receipt.recipient_parameters == ("", "NOTIFY=DELAY ORCPT=rfc822;y@old.test")


async def test_receiver_without_dsn_takes_no_parameter_of_it(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        assert "DSN" not in await peer.hello()
        assert (await peer.say("MAIL FROM:<a@b.test> RET=FULL"))[:3] == "555"
        await peer.say("MAIL FROM:<a@b.test>")
        assert (await peer.say("RCPT TO:<x@a.test> NOTIFY=NEVER"))[:3] == "555"


async def test_receiver_records_a_transaction(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        content = b"Message-ID: <m1@x>\r\nX-Relay-Campaign: spring\r\n\r\nhi\r\n"
        reply = await peer.send("anna@a.test", "reject@a.test", content=content)
    assert reply == "250 2.0.0 Ok: queued as 1"
    (receipt,) = sink.mailbox.receipts()
    assert receipt.host == "mx1.a.test"
    assert receipt.peer.local_address == sink.address_of("mx1.a.test")
    assert receipt.reverse_path == "from@sender.test"
    assert receipt.forward_paths == ("anna@a.test",)
    assert [refusal.address for refusal in receipt.refused] == ["reject@a.test"]
    assert receipt.refused[0].reply.startswith("550 5.1.1")
    assert (receipt.message_id, receipt.campaign) == ("<m1@x>", "spring")
    assert (receipt.size, receipt.flags, receipt.transaction) == (len(content), (), 1)
    assert sink.mailbox.content(1) == content


async def test_receiver_takes_a_pipelined_chain_in_one_write(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        envelope = ENVELOPE % b"anna@a.test"
        peer.writer.write(envelope)
        for _ in range(20):
            for code in ("250", "250", "354"):
                assert (await peer.reply()).startswith(code)
            peer.writer.write(b"Subject: x\r\n\r\nhi\r\n.\r\n" + envelope)
            assert (await peer.reply()).startswith("250")
    receipts = sink.mailbox.receipts()
    assert [receipt.transaction for receipt in receipts] == list(range(1, 21))
    assert not any(receipt.flags for receipt in receipts)


@pytest.mark.parametrize(
    ("stuffed", "content"),
    [
        (b".\r\n", b""),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..a\r\n.\r\n", b".a\r\n"),
        (b"a\r\n..b\r\n...\r\n.\r\n", b"a\r\n.b\r\n..\r\n"),
        (b"a\r\n\r\n..\r\n\r\n.\r\n", b"a\r\n\r\n.\r\n\r\n"),
    ],
)
async def test_receiver_finds_the_final_dot_at_every_split(sink, stuffed, content):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        for split in range(1, len(stuffed) + 1):
            await peer.envelope("anna@a.test")
            await peer.say("DATA")
            peer.writer.write(stuffed[:split])
            await peer.writer.drain()
            await asyncio.sleep(0.001)
            peer.writer.write(stuffed[split:])
            assert (await peer.reply()).startswith("250")
            receipt = sink.mailbox.receipts()[-1]
            assert sink.mailbox.content(receipt.number) == content


async def test_receiver_takes_a_large_content_in_many_segments(sink):
    content = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n..\r\n"
    content += (b"y" * 76 + b"\r\n") * 30_000
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        assert (await peer.send("anna@a.test", content=content)).startswith("250")
    assert sink.mailbox.receipts()[0].size == len(content) - 1


@pytest.mark.parametrize(
    ("body", "flag"),
    [
        (b"a\nb\r\n", "bare_cr_or_lf"),
        (b"a\rb\r\n", "bare_cr_or_lf"),
        (b"a\n.\r\n", "bare_cr_or_lf"),
        (b"a\r\n.\nb\r\n", "bare_cr_or_lf"),
        (b"a\n\rb\r\n", "bare_cr_or_lf"),
        (b"a\0b\r\n", "nul"),
        (b"a\r\n" + b"x" * 999 + b"\r\n", "line_too_long"),
    ],
)
async def test_receiver_refuses_malformed_content_and_says_why(sink, body, flag):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        assert (await peer.send("anna@a.test", content=body)).startswith("554 5.6.0")
    assert sink.mailbox.receipts() == []
    (receipt,) = sink.mailbox.receipts(ReceiptFilter(accepted=False))
    assert flag in receipt.flags
    assert sink.mailbox.counters.refused_messages == 1


async def test_receiver_takes_lines_of_998_octets(sink):
    body = (b"x" * 998 + b"\r\n") * 3
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        assert (await peer.send("anna@a.test", content=body)).startswith("250")


async def test_receiver_flags_8bit_content_that_was_not_declared(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        await peer.send("anna@a.test", content="ä\r\n".encode())
        await peer.say("MAIL FROM:<a@b.test> BODY=8BITMIME")
        await peer.say("RCPT TO:<anna@a.test>")
        await peer.say("DATA")
        assert (await peer.say("ä\r\n.")).startswith("250")
    assert [r.flags for r in sink.mailbox.receipts()] == [("undeclared_8bit",), ()]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("MAIL FROM: <a@b.test>", "501"),
        ("MAIL FROM:a@b.test", "501"),
        ("MAIL FROM:<a@b.test> SIZE=99999999999", "552"),
        ("MAIL FROM:<a@b.test> BODY=BINARYMIME", "555"),
        ("MAIL FROM:<a@b.test> RET=FULL", "555"),
        ("MAIL FROM:<ä@b.test>", "553"),
        ("MAIL FROM:<no-domain>", "501"),
        ("MAIL FROM:<>", "250"),
        ('MAIL FROM:<"a>b"@c.test>', "250"),
        ("MAIL FROM:<ä@b.test> SMTPUTF8", "250"),
        ("RCPT TO:<a@b.test>", "503"),
        ("DATA", "503"),
        ("FOO", "500"),
        ("NOOP", "250"),
        ("VRFY a", "252"),
    ],
)
async def test_receiver_is_strict_about_commands(sink, line, code):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        assert (await peer.say(line)).startswith(code)


async def test_receiver_wants_ehlo_before_mail_and_no_mail_inside_a_transaction(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.reply()
        assert (await peer.say("MAIL FROM:<a@b.test>")).startswith("503")
        await peer.say("HELO client.test")
        assert (await peer.say("MAIL FROM:<a@b.test>")).startswith("250")
        assert (await peer.say("MAIL FROM:<a@b.test>")).startswith("503")
        assert (await peer.say("RSET")).startswith("250")
        assert (await peer.say("MAIL FROM:<a@b.test>")).startswith("250")


async def test_receiver_flags_a_command_without_cr(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        peer.writer.write(b"NOOP\n")
        assert (await peer.reply()).startswith("500 5.5.2")
        assert (await peer.send("anna@a.test")).startswith("554 5.6.0 Bare CR or LF")


async def test_receiver_flags_pipelining_that_was_not_offered(sink):
    async with Dialogue(sink, "mx1.nopipelining.test") as peer:
        await peer.hello()
        peer.writer.write(ENVELOPE % b"anna@nopipelining.test")
        for code in ("250", "250", "354"):
            assert (await peer.reply()).startswith(code)
        peer.writer.write(b"a: b\r\n.\r\n")
        await peer.reply()
    assert sink.mailbox.receipts()[0].flags == ("unoffered_pipelining",)


async def test_receiver_flags_content_sent_before_354(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        peer.writer.write(ENVELOPE % b"anna@a.test" + b"a: b\r\n.\r\n")
        for code in ("250", "250", "354", "250"):
            assert (await peer.reply()).startswith(code)
    assert sink.mailbox.receipts()[0].flags == ("talked_before_354",)


async def test_receiver_flags_a_client_that_speaks_before_the_greeting(sink):
    async with Dialogue(sink, "mx1.slow50ms.test") as peer:
        peer.writer.write(b"EHLO early.test\r\n")
        assert (await peer.reply()).startswith("220")
        await peer.reply()
        await peer.send("anna@a.test")
    assert sink.mailbox.receipts()[0].flags == ("early_talker",)


async def test_receiver_serves_smtplib(sink):
    address = sink.address_of("mx1.a.test")

    def deliver():
        with smtplib.SMTP(address, sink.smtp_port) as client:
            client.sendmail("me@x.test", ["anna@a.test", "bob@a.test"], "Subject: x\n\n.hi\n")

    await asyncio.to_thread(deliver)
    assert sink.mailbox.receipts()[0].forward_paths == ("anna@a.test", "bob@a.test")
    assert sink.mailbox.content(1) == b"Subject: x\r\n\r\n.hi\r\n"


# ---- TLS and AUTH


async def test_receiver_secures_a_session_with_a_certificate_that_verifies(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        await peer.start_tls(sink.authority_path)
        assert "STARTTLS" not in await peer.say("EHLO client.test")
        assert (await peer.send("anna@a.test")).startswith("250")
    (receipt,) = sink.mailbox.receipts()
    assert receipt.tls == "TLSv1.3" and receipt.peer.cipher
    assert sink.mailbox.counters.tls_sessions == 1


@pytest.mark.parametrize("host", ["mx1.badcert.test", "mx1.expiredcert.test", "mx1.badtls.test"])
async def test_receiver_breaks_tls_where_scripted(sink, host):
    async with Dialogue(sink, host) as peer:
        await peer.hello()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await peer.start_tls(sink.authority_path)


async def test_receiver_discards_what_came_in_the_clear_behind_starttls(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        peer.writer.write(b"STARTTLS\r\nMAIL FROM:<injected@x.test>\r\n")
        assert (await peer.reply()).startswith("220")
        context = ssl.create_default_context(cafile=sink.authority_path)
        await peer.writer.start_tls(context, server_hostname="mx1.a.test")
        await peer.say("EHLO client.test")
        await peer.send("anna@a.test")
    (receipt,) = sink.mailbox.receipts()
    assert receipt.flags == ("injected_before_tls",)
    assert receipt.reverse_path == "from@sender.test"


async def test_receiver_requires_tls_where_scripted(sink):
    async with Dialogue(sink, "mx1.requiretls.test") as peer:
        await peer.hello()
        assert (await peer.say("MAIL FROM:<a@b.test>")).startswith("530 5.7.0 Must issue")
        await peer.start_tls(sink.authority_path)
        assert (await peer.say("MAIL FROM:<a@b.test>")).startswith("250")


def plain(user, password):
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()


async def test_smarthost_wants_authentication(sink):
    async with Dialogue(sink, "smarthost.test") as peer:
        assert " PLAIN LOGIN " in await peer.hello()
        assert (await peer.say("MAIL FROM:<a@b.test>")).startswith("530")
        wrong = await peer.say(f"AUTH PLAIN {plain('relay', 'wrong')}")
        assert wrong.startswith("535 5.7.8")
        assert (await peer.say(f"AUTH PLAIN {plain('relay', 'secret')}")).startswith("235")
        assert (await peer.send("anna@anywhere.test")).startswith("250")
    assert sink.mailbox.receipts()[0].auth_user == "relay"


async def test_smarthost_speaks_login_and_takes_a_cancellation(sink):
    async with Dialogue(sink, "smarthost.test") as peer:
        await peer.hello()
        assert await peer.say("AUTH LOGIN") == "334 VXNlcm5hbWU6"
        assert (await peer.say("*")).startswith("501")
        assert await peer.say("AUTH LOGIN") == "334 VXNlcm5hbWU6"
        assert await peer.say(base64.b64encode(b"relay").decode()) == "334 UGFzc3dvcmQ6"
        assert (await peer.say(base64.b64encode(b"secret").decode())).startswith("235")


async def test_smarthost_refuses_what_is_not_base64_and_unknown_mechanisms(sink):
    async with Dialogue(sink, "smarthost.test") as peer:
        await peer.hello()
        assert (await peer.say("AUTH PLAIN !!!")).startswith("501")
        assert (await peer.say("AUTH PLAIN =")).startswith("535")
        assert (await peer.say("AUTH DIGEST-MD5")).startswith("504")


async def test_smarthost_speaks_implicit_tls_on_a_port_of_its_own():
    from relay.settings.schema import Sink as Settings

    settings = Settings(
        dns="127.0.0.1:0", smtp="127.0.0.1:0", smtps="127.0.0.1:0", control="127.0.0.1:0"
    )
    async with Sink(settings) as sink:
        context = ssl.create_default_context(cafile=sink.authority_path)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", sink.smtps_port, ssl=context, server_hostname="smarthost.test"
        )
        assert (await reader.readline()).startswith(b"220 smarthost.test")
        writer.close()
        await writer.wait_closed()


# ---- scripted hosts


async def test_dead_host_refuses_connections(sink):
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(sink.address_of("mx1.dead.test"), sink.smtp_port)


async def test_blackhole_never_answers_a_connection_attempt(sink):
    address = sink.address_of("mx1.blackhole.test")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.open_connection(address, sink.smtp_port), 0.3)


async def test_tarpit_accepts_and_never_speaks(sink):
    async with Dialogue(sink, "mx1.tarpit.test") as peer:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.reader.read(1), 0.2)


async def test_hangup_closes_at_once(sink):
    async with Dialogue(sink, "mx1.hangup.test") as peer:
        assert await peer.reply() == ""


async def test_greeting5_only_takes_quit_afterwards(sink):
    async with Dialogue(sink, "mx1.greeting5.test") as peer:
        assert (await peer.reply()).startswith("554 5.3.2")
        assert (await peer.say("EHLO x.test")).startswith("503")
        assert (await peer.say("QUIT")).startswith("221")
    async with Dialogue(sink, "mx1.greeting4.test") as peer:
        assert (await peer.reply()).startswith("450 4.3.2")


async def test_limit_turns_away_the_connection_that_is_one_too_many(sink):
    async with Dialogue(sink, "mx1.limit2.test") as one, Dialogue(sink, "mx1.limit2.test") as two:
        assert (await one.reply()).startswith("220") and (await two.reply()).startswith("220")
        async with Dialogue(sink, "mx1.limit2.test") as three:
            assert (await three.reply()).startswith("421 4.7.0")
            assert await three.reply() == ""
    use = sink.receiver.registry.hosts["mx1.limit2.test"]
    assert (use.sessions, use.peak) == (3, 3)


async def test_limits_of_messages_and_recipients_hold(sink):
    async with Dialogue(sink, "mx1.mails2.rcpts1.test") as peer:
        await peer.hello()
        assert (await peer.send("a@a.test")).startswith("250")
        replies = await peer.envelope("a@a.test", "b@a.test")
        assert replies[-1].startswith("452 4.5.3")
        await peer.say("RSET")
        assert (await peer.say("MAIL FROM:<a@b.test>")).startswith("421")
        assert await peer.reply() == ""


async def test_rate_answers_421_above_it(sink):
    async with Dialogue(sink, "mx1.rate3.test") as peer:
        await peer.hello()
        for _ in range(20):
            reply = await peer.send("a@a.test")
            if not reply.startswith("250"):
                break
        assert await peer.reply() == ""
    assert sink.mailbox.counters.messages >= 3


async def test_size_limits_what_is_declared_and_what_is_sent(sink):
    async with Dialogue(sink, "mx1.size100.test") as peer:
        await peer.hello()
        assert (await peer.say("MAIL FROM:<a@b.test> SIZE=101")).startswith("552")
        assert (await peer.send("a@a.test", content=b"x" * 99 + b"\r\n")).startswith("552")
        assert (await peer.send("a@a.test", content=b"x" * 98 + b"\r\n")).startswith("250")


async def test_noehlo_falls_back_to_helo(sink):
    async with Dialogue(sink, "mx1.noehlo.test") as peer:
        assert (await peer.hello()).startswith("502")
        assert (await peer.say("HELO x.test")).startswith("250")
        assert (await peer.send("a@a.test")).startswith("250")


async def test_ipv6only_listens_on_the_ipv6_loopback(sink):
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    assert sink.address_of("mx1.ipv6only.test") == "::1"
    async with Dialogue(sink, "mx1.ipv6only.test") as peer:
        assert (await peer.reply()).startswith("220 mx1.ipv6only.test")
