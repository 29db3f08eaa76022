"""Postfix, msmtp, swaks, smtplib and nodemailer submit at one listener; what they sent arrives.

Each test looks at four sides: what was said at the listener, our events, what the receiver got,
and what the submitter told its user.
"""

import asyncio
import base64
import contextlib
import email
import email.policy
import functools
import itertools
import smtplib
from collections.abc import AsyncIterator, Callable
from email.message import EmailMessage

import pytest
import pytest_asyncio

from relay.sim.receipts import Receipt
from tests.support import postfix, submitters
from tests.support.ports import free_port
from tests.support.submitters import CLIENTS, Mail, Told
from tests.support.system import System, running_system
from tests.support.tap import Overheard, Tap

LIMIT = 11 * 1024 * 1024
HEADER = (
    "From: =?utf-8?q?J=C3=BCrgen?= <me@home.test>\r\nTo: undisclosed-recipients:;\r\n"
    "Subject: a\r\n folded subject\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\n"
    "Message-ID: <{sender}>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\n"
)
BODY = b"".join(
    (
        b".\r\n..\r\n.dot\r\n\r\n.\r\n  blanks at the end  \r\n\t\r\n\r\n",
        b"x" * 998 + b"\r\n" + b"." * 998 + b"\r\n",
        "grüße, Ελλάδα, 日本\r\n".encode(),
        bytes(range(128, 256)) + b"\r\n.\r\nend\r\n",
    )
)
LITERAL = "bob@[192.0.2.1]"
_numbers = itertools.count(1)


class Road:
    """One relay behind a tap, and a Postfix that submits to it once it is asked for."""

    def __init__(self, system: System, tap: Tap, stack: contextlib.AsyncExitStack) -> None:
        self.system = system
        self.tap = tap
        self._stack = stack

    @functools.cached_property
    def neighbour(self) -> postfix.Neighbour:
        """Postfix; it ends with the road."""
        receiver = ("127.0.0.1", self.tap.port)
        settings = "message_size_limit = 0\n"
        return self._stack.enter_context(
            postfix.neighbour_postfix(port=free_port(), receiver=receiver, settings=settings)
        )

    def port(self, name: str) -> int:
        """Where a submitter hands its mail over."""
        return self.neighbour.port if name == "postfix" else self.tap.port

    async def submit(self, name: str, mail: Mail) -> Told:
        """Have a submitter submit; what it tells."""
        # What Postfix is to send has to be brought to it.
        submit = CLIENTS.get(name, submitters.by_smtplib)
        return await asyncio.to_thread(submit, mail, self.port(name))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.05)

    async def accepted(self, mail: Mail) -> str:
        """Wait until the listener took the mail; its queue-id."""
        (event,) = await self.system.until_event(
            "message.accepted", message_id=f"<{mail.sender}>", reverse_path=mail.sender
        )
        assert event.data["ingress"] == "smtp"
        return str(event.data["queue_id"])

    async def delivered(self, mail: Mail, *to: str) -> list[tuple[Receipt, bytes]]:
        """Wait until these recipients, as they go on the wire, have the mail, each of them once.

        Receipts with what lies in them, the trace fields taken off.
        """
        queue_id = await self.accepted(mail)
        await self.system.until(queue_id, dict.fromkeys(to, "delivered"))
        events = await self.system.until_event("recipient.delivered", len(to), queue_id=queue_id)
        assert sorted(event.data["address"] for event in events) == sorted(to)
        receipts = self.system.sink.receipts(message_id=f"<{mail.sender}>")
        assert sorted(p for receipt in receipts for p in receipt.forward_paths) == sorted(to)
        assert {receipt.reverse_path for receipt in receipts} == {mail.sender}
        return [(one, untraced(self.system.sink.content(one.number))) for one in receipts]

    async def refused(self, mail: Mail) -> str:
        """What Postfix tells the sender of mail that it could not hand over: its bounce's words."""
        sink = self.system.sink
        (receipt,) = await asyncio.to_thread(
            lambda: sink.receipts(recipient=mail.sender, at_least=1, timeout_s=30)
        )
        assert receipt.reverse_path == ""
        return " ".join(sink.content(receipt.number).decode("utf-8", "replace").split())

    async def is_unknown(self, mail: Mail) -> bool:
        """Whether the queue never heard of the mail."""
        events = await self.system.events("message.accepted")
        return all(event.data["reverse_path"] != mail.sender for event in events)

    def overheard(self, mail: Mail) -> Overheard:
        """What was said at the listener for this mail."""
        return self.tap.connection(f"FROM:<{mail.sender}>")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def road(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Road]:
    folder = tmp_path_factory.mktemp("submitters")
    async with contextlib.AsyncExitStack() as stack:
        system = await stack.enter_async_context(
            running_system(folder, RELAY_LIMITS_MESSAGE_SIZE=str(LIMIT))
        )
        tap = await stack.enter_async_context(Tap(system.start_smtpd()).running())
        yield Road(system, tap, stack)
    assert not system.complaints()


def untraced(content: bytes) -> bytes:
    """The content without the Received fields on top."""
    while content.startswith((b"Received:", b"\t")):
        content = content.partition(b"\r\n")[2]
    return content


def mail_to(*to: str, body: bytes = BODY, **more: str) -> Mail:
    """A mail with a reverse-path, and a Message-ID, of its own."""
    sender = f"me+{next(_numbers)}@home.test"
    content = HEADER.format(sender=sender).encode() + body
    return Mail(content=content, to=to, sender=sender, **more)


def each(*names: str) -> pytest.MarkDecorator:
    """Run the test with each of these submitters that can be had."""
    found = []
    for name in names:
        reason = postfix.why_not() if name == "postfix" else submitters.why_not(name)
        found.append(pytest.param(name, marks=pytest.mark.skipif(bool(reason), reason=reason)))
    return pytest.mark.parametrize("name", found)


pytestmark = pytest.mark.asyncio(loop_scope="module")
ALL = (*CLIENTS, "postfix")


@each(*ALL)
async def test_every_octet_arrives_for_several_recipients(road: Road, name: str) -> None:
    mail = mail_to("ann@shop.test", "bob@shop.test", "cy@other.test")
    assert (await road.submit(name, mail)).status == "ok"
    for receipt, content in await road.delivered(mail, *mail.to):
        assert content == mail.content
        assert "BODY=8BITMIME" in receipt.mail_parameters and not receipt.flags
    heard = road.overheard(mail)
    assert len(heard.commands("MAIL")) == 1 and len(heard.commands("RCPT")) == 3


@each("swaks", "msmtp", "postfix")
async def test_envelopes_in_one_piece_are_taken(road: Road, name: str) -> None:
    mail = mail_to("ann@shop.test", LITERAL, "cy@shop.test")
    if name == "msmtp":  # It gives up where one recipient is refused.
        mail = mail_to("ann@shop.test", "cy@shop.test")
    road.tap.holds_replies = True
    try:
        assert (await road.submit(name, mail)).status == "ok"
        await road.delivered(mail, "ann@shop.test", "cy@shop.test")
    finally:
        road.tap.holds_replies = False


@each(*ALL)
async def test_ten_megabytes_arrive(road: Road, name: str) -> None:
    body = b"".join(b".%07d %064x\r\n" % (at, at * 0x9E3779B97F4A7C15) for at in range(140_000))
    mail = mail_to("ann@shop.test", body=body)
    assert (await road.submit(name, mail)).status == "ok"
    ((_, content),) = await road.delivered(mail, *mail.to)
    assert content == mail.content


@each("smtplib", "nodemailer", "postfix")
async def test_addresses_in_utf8_arrive(road: Road, name: str) -> None:
    mail = mail_to("jürgen@münchen.test", "用户@例子.test")
    assert (await road.submit(name, mail)).status == "ok"
    got = await road.delivered(mail, "jürgen@xn--mnchen-3ya.test", "用户@xn--fsqu00a.test")
    for receipt, content in got:
        assert "SMTPUTF8" in receipt.mail_parameters and content == mail.content
    assert all("SMTPUTF8" in command for command in road.overheard(mail).commands("MAIL"))


@each("swaks", "msmtp")
async def test_who_does_not_know_smtputf8_is_told_so(road: Road, name: str) -> None:
    mail = mail_to("jürgen@shop.test")
    told = await road.submit(name, mail)
    assert told.status == {"swaks": "exit 24", "msmtp": "exit 65"}[name]
    assert "553 5.6.7 The address is not ASCII and SMTPUTF8 was not given" in told.text
    assert await road.is_unknown(mail)


@each("smtplib", "msmtp", "nodemailer", "postfix")
async def test_what_is_asked_of_reports_reaches_the_receiver(road: Road, name: str) -> None:
    mail = mail_to("ann@dsn.test", notify="SUCCESS,FAILURE", ret="HDRS", envid="order-7")
    assert (await road.submit(name, mail)).status == "ok"
    ((receipt, _),) = await road.delivered(mail, *mail.to)
    asked = set(receipt.mail_parameters.split()) - {"BODY=8BITMIME"}
    # msmtp has no option for an envelope id; Postfix adds the address that it was given.
    assert {one for one in asked if not one.startswith("SIZE=")} == (
        {"RET=HDRS"} if name == "msmtp" else {"RET=HDRS", "ENVID=order-7"}
    )
    assert set(receipt.recipient_parameters[0].split()) == {"NOTIFY=SUCCESS,FAILURE"} | (
        {"ORCPT=rfc822;ann@dsn.test"} if name == "postfix" else set()
    )


@each(*ALL)
async def test_a_refused_recipient_is_told_and_the_others_get_the_mail(
    road: Road, name: str
) -> None:
    mail = mail_to("ann@shop.test", LITERAL, "cy@shop.test")
    told = await road.submit(name, mail)
    words = told.text if name != "postfix" else await road.refused(mail)
    assert f"5.1.3 the domain of '{LITERAL}' is an address literal" in words
    if name == "msmtp":  # all or nobody
        assert told.status == "exit 65" and await road.is_unknown(mail)
        return
    assert told.status == "ok"
    ((_, content),) = await road.delivered(mail, "ann@shop.test", "cy@shop.test")
    assert content == mail.content


@each(*ALL)
async def test_mail_whose_recipients_are_all_refused_fails_at_the_submitter(
    road: Road, name: str
) -> None:
    mail = mail_to(LITERAL)
    told = await road.submit(name, mail)
    words = told.text if name != "postfix" else await road.refused(mail)
    assert f"5.1.3 the domain of '{LITERAL}' is an address literal" in words
    assert (
        told.status
        == {
            "smtplib": "SMTPRecipientsRefused",
            "swaks": "exit 24",
            "msmtp": "exit 65",
            "nodemailer": "EENVELOPE 553",
            "postfix": "ok",
        }[name]
    )
    assert await road.is_unknown(mail)


@each(*ALL)
async def test_mail_over_the_limit_fails_at_the_submitter(road: Road, name: str) -> None:
    mail = mail_to("ann@shop.test", body=(b"y" * 70 + b"\r\n") * 170_000)
    told = await road.submit(name, mail)
    assert (
        told.status
        == {
            "smtplib": "SMTPSenderRefused",
            "swaks": "exit 26",
            "msmtp": "exit 69",
            "nodemailer": "EMESSAGE 552",
            "postfix": "ok",
        }[name]
    )
    if name == "postfix":  # It reads the limit in our reply to EHLO and does not even try.
        bounce = await road.refused(mail)
        assert f"exceeds size limit {LIMIT} of server" in bounce and "Status: 5.3.4" in bounce
    else:
        assert (
            "552" in told.text and f"5.3.4 Message exceeds the size limit of {LIMIT}" in told.text
        )
    assert await road.is_unknown(mail)


TEXT = "Grüße aus Köln\n.\n..\n日本\n"
HTML = "<p>Grüße</p>"
SUBJECT = "Grüße: Ελλάδα"


def composed_by_smtplib(sender: str, to: str, port: int) -> Told:
    message = EmailMessage()
    message["From"], message["To"] = f"Jürgen <{sender}>", f"Ann Müller <{to}>"
    message["Subject"], message["Message-ID"] = SUBJECT, f"<{sender}>"
    message.set_content(TEXT)
    message.add_alternative(HTML, subtype="html")
    message.add_attachment(bytes(range(256)), "image", "png", filename="bild ä.png")
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        return Told("ok", str(client.send_message(message)))


def composed_by_nodemailer(sender: str, to: str, port: int) -> Told:
    octets = base64.b64encode(bytes(range(256))).decode()
    attachment = {"filename": "bild ä.png", "content": octets, "encoding": "base64"}
    fields = {
        "from": f"Jürgen <{sender}>",
        "to": f"Ann Müller <{to}>",
        "subject": SUBJECT,
        "messageId": f"<{sender}>",
        "text": TEXT,
        "html": HTML,
        "attachments": [attachment],
    }
    return submitters.by_nodemailer_composed(fields, port)


COMPOSED = {"smtplib": composed_by_smtplib, "nodemailer": composed_by_nodemailer}


@each(*COMPOSED)
async def test_what_a_submitter_composed_is_read_as_it_was_meant(road: Road, name: str) -> None:
    mail = mail_to("ann@shop.test")
    told = await asyncio.to_thread(COMPOSED[name], mail.sender, mail.to[0], road.port(name))
    assert told.status == "ok"
    ((_, content),) = await road.delivered(mail, *mail.to)
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message["Subject"] == SUBJECT
    assert [one.display_name for one in message["From"].addresses] == ["Jürgen"]
    assert [one.display_name for one in message["To"].addresses] == ["Ann Müller"]
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None and text.get_content().splitlines() == TEXT.splitlines()
    assert html is not None and html.get_content().splitlines() == [HTML]
    (attached,) = message.iter_attachments()
    assert attached.get_filename() == "bild ä.png"
    assert attached.get_content() == bytes(range(256))


async def test_one_connection_takes_several_messages_and_refusals_between(road: Road) -> None:
    first, refused, last = mail_to("ann@shop.test"), mail_to(LITERAL), mail_to("cy@shop.test")

    def submit() -> None:
        with smtplib.SMTP("127.0.0.1", road.tap.port, "client.test", 60) as client:
            assert client.sendmail(first.sender, first.to, first.content) == {}
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail(refused.sender, refused.to, refused.content)
            with pytest.raises(smtplib.SMTPSenderRefused):
                client.sendmail(refused.sender, last.to, b"x" * (LIMIT + 1))
            assert client.sendmail(last.sender, last.to, last.content) == {}

    await asyncio.to_thread(submit)
    for mail in (first, last):
        ((_, content),) = await road.delivered(mail, *mail.to)
        assert content == mail.content
    assert await road.is_unknown(refused)
    assert road.overheard(first) is road.overheard(last)


# The last one: the listener needs a moment to believe that there is room again.
@each(*ALL)
async def test_a_refusal_for_now_leaves_the_mail_with_the_submitter(road: Road, name: str) -> None:
    road.system.expects("message.refused")
    mail = mail_to("ann@shop.test")
    with road.system.redis.client() as redis:
        redis.config_set("maxmemory", "1mb")
        try:
            told = await road.submit(name, mail)
            if name == "postfix":
                await road.until(lambda: road.neighbour.deferred() == 1)
        finally:
            redis.config_set("maxmemory", "256mb")
    assert (
        told.status
        == {
            "smtplib": "SMTPDataError",
            "swaks": "exit 26",
            "msmtp": "exit 69",
            "nodemailer": "EMESSAGE 452",
            "postfix": "ok",
        }[name]
    )
    assert await road.is_unknown(mail)
    if name == "postfix":  # It keeps the mail, and brings it again.
        async with asyncio.timeout(30):
            while await road.is_unknown(mail):
                await asyncio.to_thread(road.neighbour.flush)
                await asyncio.sleep(0.2)
        ((_, content),) = await road.delivered(mail, *mail.to)
        assert content == mail.content
    else:
        assert "452" in told.text and "4.3.1 The queue is full, try again later" in told.text
