"""A real Dovecot takes mail by LMTP, gives it back unchanged, and lets us in by each mechanism."""

import asyncio
import contextlib
import email
import email.policy
import itertools
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage

import msgspec
import pytest
import pytest_asyncio

from relay.delivery.session import open_session
from relay.delivery.values import Credentials, Dialogue, Endpoint, SessionFailed
from relay.model.dsn import Dsn, RecipientDsn
from relay.settings.schema import TlsPolicy
from tests.support.dovecot import PASSWORD, SMALL_BOX, Dovecot, neighbour_dovecot, why_not
from tests.support.ports import free_port
from tests.support.system import System, running_system
from tests.unit.certificates import Issued, issue

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

BOXES = """
[[routes]]
domain = "box.test"
smarthost = "lmtp://{socket}"
"""
BOXES_BY_TLS = """
[[routes]]
domain = "{name}.{tls}.test"
name = "{name}-{tls}"
smarthost = "lmtp://{name}.{tls}.test:{port}"
tls = "{tls}"
"""
POLICIES = ("opportunistic", "required", "verified")
USERS = tuple(f"{name}@box.test" for name in ("ann", "bob", "cy", "dan", "eve", SMALL_BOX))
#: A hundred addresses; the sevenths have no mailbox.
CROWD = [f"n{number}@box.test" for number in range(100)]
CROWD_USERS = [address for at, address in enumerate(CROWD) if at % 7]
MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")

HEADER = (
    b"From: =?utf-8?q?Gr=C3=BC=C3=9Fe?= <news@example.org>\r\nTo: ann@box.test\r\n"
    b"Subject: one\r\n two\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <%s@a.test>\r\n"
)
BODIES = {
    "dots": b".\r\n..\r\n.dot\r\n\r\n.\r\n\r\n" + b"...\r\n" * 3 + b".\r\n",
    "longest": b"x" * 998 + b"\r\n" + b"." * 998 + b"\r\n" + b"." + b"\xc3\xbc" * 498 + b"\r\n",
    "octets": bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n",
    "blank": b"",
    "blank-lines": b"\r\n\r\n   \r\n\t\r\n\r\n",
    "not-ended": b"first\r\nlast line without an end",
    "ends-in-dot": b"text\r\n.",
    "large": b"".join(b".%07d %064x\r\n" % (at, at * 0x9E3779B97F4A7C15) for at in range(140_000)),
}
TRACE = (b"Return-Path:", b"Delivered-To:", b"Received:", b"\t", b" ")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def behind() -> AsyncIterator[tuple[str, int]]:
    """The SMTP server behind Dovecot's submission: it wants one to greet."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 behind.test\r\n")
        while await reader.readline():
            writer.write(b"250 behind.test\r\n")
        writer.close()

    port = free_port()
    server = await asyncio.start_server(speak, "127.0.0.1", port)
    yield "127.0.0.1", port
    server.close()


@pytest.fixture(scope="module")
def dovecot(behind: tuple[str, int]) -> Iterator[Dovecot]:
    """The one with mailboxes at box.test, on a Unix socket."""
    with neighbour_dovecot(*USERS, *CROWD_USERS, relay=behind) as running:
        yield running


def names(label: str) -> list[str]:
    """The names of a host, which are also the domains that it serves: one for each policy."""
    return [f"{label}.{tls}.test" for tls in POLICIES]


@pytest.fixture(scope="module")
def authority() -> Issued:
    """Who is trusted by relay."""
    return issue("authority", ca=True)


@pytest.fixture(scope="module")
def encrypted(authority: Issued) -> Iterator[dict[str, Dovecot]]:
    """Three that offer STARTTLS, by what is right or wrong with their certificate."""
    shown = {
        "good": issue("good", *names("good"), issuer=authority),
        "expired": issue("expired", *names("expired"), issuer=authority, days=-1),
        "selfsigned": issue("selfsigned", *names("selfsigned")),
    }
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                neighbour_dovecot(
                    *(f"ann@{domain}" for domain in names(name)),
                    certificate=certificate.pem_with_key(),
                )
            )
            for name, certificate in shown.items()
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(
    tmp_path_factory: pytest.TempPathFactory,
    dovecot: Dovecot,
    encrypted: dict[str, Dovecot],
    authority: Issued,
) -> AsyncIterator[System]:
    """One relay whose mail for box.test goes to a socket, that for others over TCP and TLS."""
    folder = tmp_path_factory.mktemp("dovecot")
    trusted = folder / "authority.pem"
    trusted.write_bytes(authority.pem)
    config = BOXES.replace("{socket}", str(dovecot.lmtp)) + "".join(
        BOXES_BY_TLS.format(name=name, tls=tls, port=running.lmtp_port)
        for name, running in encrypted.items()
        for tls in POLICIES
    )
    async with running_system(folder, RELAY_CONFIG=config, SSL_CERT_FILE=str(trusted)) as relay:
        for name in itertools.chain(*map(names, encrypted)):
            relay.sink.set_dns(name, "A", "127.0.0.1")
        yield relay
    assert not relay.complaints()


async def stored(dovecot: Dovecot, user: str) -> list[bytes]:
    """The messages of a mailbox, the same by IMAP and by POP3."""
    by_imap = await asyncio.to_thread(dovecot.by_imap, user)
    by_pop3 = await asyncio.to_thread(dovecot.by_pop3, user)
    assert by_imap == by_pop3
    return by_imap


async def test_every_octet_comes_back_by_imap_and_pop3(system: System, dovecot: Dovecot) -> None:
    sent = {name: HEADER % name.encode() + b"\r\n" + body for name, body in BODIES.items()}
    for content in sent.values():
        draft = msgspec.structs.replace(system.draft(["ann@box.test"]), content=content)
        await system.until_delivered(await system.submitter.submit(draft))
    boxed = await stored(dovecot, "ann@box.test")
    assert len(boxed) == len(sent)
    for name, content in sent.items():
        # What has no line end at its end gets one: without it there is no end of DATA.
        whole = content if content.endswith(b"\r\n") else content + b"\r\n"
        (found,) = (one for one in boxed if b"<%s@a.test>" % name.encode() in one)
        trace = found.removesuffix(whole)
        assert len(trace) == len(found) - len(whole), name
        assert all(line.startswith(TRACE) for line in trace.splitlines()), name


async def test_each_of_several_recipients_has_dovecots_own_answer(
    system: System, dovecot: Dovecot
) -> None:
    text = "longer than the small box\r\n" * 200
    to = ["bob@box.test", "nobody@box.test", f"{SMALL_BOX}@box.test", "cy@box.test"]
    receipt = await system.submit(to, text=text)
    states = ("delivered", "failed", "failed", "delivered")
    await system.until(receipt, dict(zip(to, states, strict=True)))
    for user in ("bob@box.test", "cy@box.test"):
        (found,) = await stored(dovecot, user)
        assert found.endswith(f"\r\n\r\n{text}\r\n".encode())
    assert await stored(dovecot, f"{SMALL_BOX}@box.test") == []

    told = {event.data["address"]: event for event in await system.events("recipient.failed")}
    # One before the content, one behind it: that of LMTP, for one of three.
    for address, command, code, enhanced, reason in (
        (to[1], "RCPT", 550, "5.1.1", "no_such_mailbox"),
        (to[2], "end-of-data", 552, "5.2.2", "mailbox_full"),
    ):
        data = told[address].data
        reply = {name: data["reply"][name] for name in ("command", "code", "enhanced")}
        assert reply == {"command": command, "code": code, "enhanced": enhanced}
        assert (data["reason"], data["scope"], data["attempt"]) == (reason, "recipient", 1)


async def test_a_hundred_recipients_of_whom_some_are_unknown(
    system: System, dovecot: Dovecot
) -> None:
    receipt = await system.submit(CROWD, text="to many")
    states = {a: "delivered" if a in CROWD_USERS else "failed" for a in CROWD}
    await system.until(receipt, states)
    looked_at = CROWD_USERS[::6]
    each = [await asyncio.to_thread(dovecot.by_imap, user) for user in looked_at]
    assert all(len(boxed) == 1 and boxed[0].endswith(b"to many\r\n") for boxed in each)


async def test_wished_reports_say_that_the_mail_is_in_its_mailbox(
    system: System, dovecot: Dovecot
) -> None:
    dsn = Dsn("HDRS", "order-7", (RecipientDsn("S"), RecipientDsn("SF")))
    to = ["eve@box.test", "noone@box.test"]
    receipt = await system.submit(to, sender="me@home.test", ingress="smtp", dsn=dsn)
    reports = await asyncio.to_thread(
        lambda: system.sink.receipts(recipient="me@home.test", at_least=2, timeout_s=30)
    )
    await system.until(receipt, {"eve@box.test": "delivered", "noone@box.test": "failed"})
    found = {}
    for report in reports:
        content = system.sink.content(report.number)
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        about, recipient = list(message.iter_parts())[1].get_payload()
        assert about["Original-Envelope-Id"] == "order-7"
        found[recipient["Final-Recipient"]] = (recipient["Action"], recipient["Status"])
    assert found == {
        "rfc822; eve@box.test": ("delivered", "2.0.0"),
        "rfc822; noone@box.test": ("failed", "5.1.1"),
    }


async def test_addresses_in_utf8_fail_where_dovecot_does_not_offer_smtputf8(
    system: System, dovecot: Dovecot
) -> None:
    receipt = await system.submit(["jürgen@box.test"])
    await system.until(receipt, {"jürgen@box.test": "failed"})
    (event,) = await system.until_event("recipient.failed", address="jürgen@box.test")
    assert (event.data["reason"], event.data["attempt"]) == ("smtputf8_unsupported", 1)
    assert "MAIL" not in event.data["dialogue"]

    # A header in UTF-8 that came without SMTPUTF8 is 8-bit content, as everywhere.
    content = HEADER.replace(b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße".encode()) % b"raw" + b"\r\n"
    draft = msgspec.structs.replace(
        system.draft(["dan@box.test"]), content=content, accepts_smtputf8=False
    )
    await system.until_delivered(await system.submitter.submit(draft))
    (found,) = await stored(dovecot, "dan@box.test")
    assert found.endswith(content)


async def test_certificates_count_as_much_as_the_route_says(
    system: System, encrypted: dict[str, Dovecot]
) -> None:
    system.expects("site.breaker")
    refused = {
        "ann@expired.verified.test": "certificate has expired",
        "ann@selfsigned.verified.test": "self-signed certificate",
    }
    to = [f"ann@{domain}" for domain in itertools.chain(*map(names, encrypted))]
    receipt = await system.submit(to)
    await system.until(receipt, {address: "delivered" for address in to if address not in refused})
    for address, why in refused.items():
        wait = await system.until_waiting(receipt, address, "tls_failed")
        assert f"certificate not accepted: {why}" in wait.text
    told = {
        event.data["address"]: event.data["tls"]
        for event in await system.events("recipient.delivered")
        if event.data["queue_id"] == receipt.id
    }
    for address, tls in told.items():
        assert tls["policy"] in address and tls["verified"] == ("verified" in address)
    for name, running in encrypted.items():
        for domain in names(name):
            boxed = await stored(running, f"ann@{domain}")
            assert len(boxed) == (f"ann@{domain}" in told)


async def login(dovecot: Dovecot, password: str, *mechanisms: str) -> str:
    """Log in at Dovecot's submission; the command that we said, or the reply that refused us."""
    account = Credentials(USERS[0], password, mechanisms=mechanisms)
    dialogue = Dialogue("relay.test", tls=TlsPolicy.OFF, credentials=account)
    endpoint = Endpoint("localhost", "127.0.0.1", dovecot.submission_port)
    try:
        session = await open_session(endpoint, dialogue)
    except SessionFailed as failed:
        return str(failed)
    said = next(line for line in session.opening if line.startswith("> AUTH"))
    await session.close()
    return said.removesuffix(" ***")


async def test_dovecot_lets_us_in_by_each_of_its_mechanisms(dovecot: Dovecot) -> None:
    assert await login(dovecot, PASSWORD) == "> AUTH SCRAM-SHA-256"
    each = [await login(dovecot, PASSWORD, name) for name in MECHANISMS]
    assert each == [f"> AUTH {name}" for name in MECHANISMS]
    refused = await login(dovecot, "wrong", "SCRAM-SHA-256")
    assert refused.startswith("auth: 535 5.7.8")
