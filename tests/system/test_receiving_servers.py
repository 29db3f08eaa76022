"""Postfix, Exim and OpenSMTPD take what relay sends, and what they store is what was sent.

One server and one relay of each kind play all scenarios. What comes of each is the table of
docs/interop.md.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from relay.ingress.submit import Draft
from relay.ingress.trace import Origin
from relay.model.address import parse_address, parse_reverse_path
from relay.model.dsn import Dsn, RecipientDsn
from relay.model.message import Receipt
from tests.support.receivers.exim import EximReceiver
from tests.support.receivers.opensmtpd import OpenSmtpdReceiver
from tests.support.receivers.postfix import PostfixReceiver
from tests.support.receivers.receiver import (
    ALIAS,
    CERTIFICATES,
    GOOD,
    PASSWORD,
    UNKNOWN,
    USER,
    Receiver,
    Stored,
    running,
)
from tests.support.system import System, running_system

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT = Path(__file__).parents[2] / "docs/interop.md"
WRONG = "wr0ng,x"

#: What a certificate that is no good is refused for, in OpenSSL's words.
FAULTS = {"expired": "certificate has expired", "selfsigned": "self-signed certificate"}
#: What is said where the server's own TLS fails.
BROKEN = "alert internal error"

#: What a server may make of ENVID=Ours+2B17 and ORCPT=rfc822;Old+2Bann@… in its reports.
RETURNED = {
    ("Ours+17", "rfc822;Old+ann"): "both",
    ("Ours+2B17", "rfc822;Old+2Bann"): "both, left in xtext",
    ("", ""): "neither",
}

_ROUTE = """
[[routes]]
domain = "{domain}"
name = "{domain}"
smarthost = "smtp://{host}:{port}"
"""


def routes(receiver: Receiver) -> str:
    """A domain for each way to reach the server."""
    ports = receiver.ports
    text = _ROUTE.format(domain=receiver.domain("plain"), host="127.0.0.1", port=ports.plain)
    text += 'tls = "off"\n'
    for kind, port in zip(CERTIFICATES, ports.by_certificate, strict=True):
        for tls in ("opportunistic", "verified"):
            domain = receiver.domain(f"{kind}-{tls}")
            text += _ROUTE.format(domain=domain, host=receiver.host(kind), port=port)
            text += f'tls = "{tls}"\n'
    for name, host, password in (("login", GOOD, PASSWORD), ("badlogin", ALIAS, WRONG)):
        domain = receiver.domain(name)
        text += _ROUTE.format(domain=domain, host=receiver.host(host), port=ports.login)
        text += f'username = "{USER}"\npassword = "{password}"\ntls = "verified"\n'
    return text


@pytest.fixture(
    scope="module",
    params=[PostfixReceiver, EximReceiver, OpenSmtpdReceiver],
    ids=lambda one: one.kind,
)
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    if reason := request.param.why_not():
        pytest.skip(reason)
    with running(request.param) as receiver:
        yield receiver


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay(
    receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp(receiver.kind)
    authority = str(receiver.certificates.authority)
    async with running_system(
        folder, RELAY_CONFIG=routes(receiver), SSL_CERT_FILE=authority
    ) as system:
        system.expects("site.breaker")
        for host in (*CERTIFICATES, ALIAS):
            system.sink.set_dns(receiver.host(host), "A", "127.0.0.1")
        yield system
        assert not receiver.repeated()
        assert not system.complaints()


Played = Callable[[str, str], None]


@pytest.fixture
def played(receiver: Receiver, tell: Callable[[object], None]) -> Played:
    """What a scenario calls with its row and its result; the document says the same."""

    def check(scenario: str, result: str) -> None:
        tell(f"interop: {receiver.kind} {receiver.version}: {scenario}: {result}")
        columns, rows = document()
        assert scenario in rows, f"docs/interop.md has no row '{scenario}'"
        server = f"{receiver.kind} {receiver.version}"
        if server in columns:  # another version may do better
            assert rows[scenario][columns.index(server)] == result

    return check


def document() -> tuple[list[str], dict[str, list[str]]]:
    """The table of the document: servers with their versions, and the cells of each scenario."""
    _, section = DOCUMENT.read_text(encoding="utf-8").split("\n## Servers that take relay's mail\n")
    lines = section.splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    (_, *servers), _, *rows = ([cell.strip() for cell in row] for row in cells)
    return [server.lower() for server in servers], {name: row for name, *row in rows}


async def send(
    relay: System, receiver: Receiver, to: list[str], body: bytes = b"hello\r\n", **more: object
) -> tuple[Receipt, bytes]:
    """Submit to addresses; the receipt, and the content as it was handed over."""
    subject = str(more.pop("subject"))
    sender = str(more.pop("sender", f"sender@{receiver.domain('plain')}"))
    content = (
        f"From: <{sender}>\r\nTo: undisclosed-recipients:;\r\nSubject: {subject}\r\n"
        f"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{subject}@relay.example>\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=x-unknown\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\n"
    ).encode() + body
    draft = Draft(
        reverse_path=parse_reverse_path(sender),
        forward_paths=tuple(parse_address(item) for item in to),
        content=content,
        ingress=str(more.pop("ingress", "python")),
        origin=Origin("API"),
        **more,  # type: ignore[arg-type]
    )
    return await relay.submitter.submit(draft), content


async def delivered_as_sent(
    relay: System, receiver: Receiver, domain: str, body: bytes, subject: str
) -> Stored:
    """Deliver to one address; what is stored has the same octets."""
    address = f"ann@{receiver.domain(domain)}"
    receipt, content = await send(relay, receiver, [address], body, subject=subject)
    await relay.until_delivered(receipt)
    (stored,) = receiver.until_stored(subject)
    assert stored.submitted == content
    assert stored.recipient == address
    assert stored.reverse_path == f"sender@{receiver.domain('plain')}"
    return stored


#: What must not change on its way, nor end the message: see RFC 5321 §4.5.2, §4.5.3.1.6.
AWKWARD = b"\r\n".join(
    [
        b".",
        b"..",
        b".leading dot",
        b"From the beginning",
        b" leading blank",
        b"trailing blanks \t ",
        b"\t",
        b"",
        b"x" * 998,
        b"." * 998,
        b"QUIT",
        b"",
        b".",
        b"the end without a line end",
    ]
)


async def test_lines_of_every_kind_arrive_as_they_were(
    relay: System, receiver: Receiver, played: Played
) -> None:
    address = f"ann@{receiver.domain('plain')}"
    receipt, content = await send(relay, receiver, [address], AWKWARD, subject="awkward")
    await relay.until_delivered(receipt)
    (stored,) = receiver.until_stored("awkward")
    assert stored.submitted == content + b"\r\n"
    (event,) = await relay.until_event("recipient.delivered", queue_id=receipt.id)
    assert event.data["tls"] is None
    played("plain, awkward lines", "the same octets")


async def test_octets_above_127_arrive_as_they_were(
    relay: System, receiver: Receiver, played: Played
) -> None:
    body = bytes(range(128, 256)) + b"\r\n" + "grüße\r\n".encode() + b"\xff\xfe\r\n"
    await delivered_as_sent(relay, receiver, "plain", body, "eightbit")
    receiver.until_logged(receiver.eight_bit_in_log)
    played("8BITMIME", "the same octets")


@pytest.mark.parametrize("certificate", CERTIFICATES)
async def test_certificate_counts_where_it_is_demanded(
    relay: System, receiver: Receiver, played: Played, certificate: str
) -> None:
    subject = f"tls-{certificate}"
    address = f"ann@{receiver.domain(f'{certificate}-verified')}"
    demanding, _ = await send(relay, receiver, [address], subject=f"{subject}-verified")
    if fault := FAULTS.get(certificate, "" if receiver.has_tls else BROKEN):
        waiting = await relay.until_waiting(demanding, address, "tls_failed")
        assert fault in waiting.text
        result = f"waits: {fault}"
    else:
        tls = await delivered_over_tls(relay, receiver, demanding, f"{subject}-verified")
        assert (tls["policy"], tls["verified"]) == ("verified", True)
        assert tls["peer_name"] == receiver.host(certificate)
        result = f"{tls['version']}, verified"
    played(f"STARTTLS, {certificate} certificate, verified", result)

    # Mail to the same server that demands less gets through meanwhile.
    address = f"ann@{receiver.domain(f'{certificate}-opportunistic')}"
    careless, _ = await send(relay, receiver, [address], subject=subject)
    if receiver.has_tls:
        tls = await delivered_over_tls(relay, receiver, careless, subject)
        assert (tls["policy"], tls["verified"]) == ("opportunistic", False)
        result = f"{tls['version']}, not verified"
    else:
        await relay.until_delivered(careless)
        (event,) = await relay.until_event("recipient.delivered", queue_id=careless.id)
        assert event.data["tls"] is None and BROKEN in event.data["clear_because"]
        result = "in clear, as its handshake fails"
    played(f"STARTTLS, {certificate} certificate, opportunistic", result)
    opened = {line["key"] for line in relay.log_lines() if line["event"] == "site.breaker"}
    assert not {key for key in opened if key.startswith("site:") and not key.endswith("~verified")}
    assert bool(receiver.stored(f"{subject}-verified")) is not bool(fault)


async def delivered_over_tls(
    relay: System, receiver: Receiver, receipt: Receipt, subject: str
) -> dict[str, object]:
    """What is told of the TLS of a delivery; the server says the same of version and cipher."""
    await relay.until_delivered(receipt)
    (event,) = await relay.until_event("recipient.delivered", queue_id=receipt.id)
    (stored,) = receiver.until_stored(subject)
    said = receiver.tls_in_trace.search(stored.trace)
    assert said is not None, stored.trace
    tls: dict[str, object] = event.data["tls"]
    assert str(tls["version"]).endswith(said["version"].decode())
    assert str(tls["cipher"]).endswith(said["cipher"].decode())
    return tls


async def test_login_lets_mail_in_and_a_wrong_one_keeps_it(
    relay: System, receiver: Receiver, played: Played
) -> None:
    address = f"ann@{receiver.domain('badlogin')}"
    kept, _ = await send(relay, receiver, [address], subject="badlogin")
    reason = "authentication_failed" if receiver.has_tls else "tls_failed"
    waiting = await relay.until_waiting(kept, address, reason)
    if receiver.has_tls:
        assert "535" in waiting.text
        (paused,) = await relay.until_event("route.paused")
        assert paused.data["site"] == f"{receiver.host(ALIAS)}:{receiver.ports.login}"
    result = "waits: the route is paused" if receiver.has_tls else "waits: TLS fails"
    played("AUTH, wrong password", result)

    address = f"ann@{receiver.domain('login')}"
    receipt, _ = await send(relay, receiver, [address], subject="login")
    if receiver.has_tls:
        await relay.until_delivered(receipt)
        receiver.until_stored("login")
        mechanism = receiver.until_logged(receiver.login_in_log)[1]
        (event,) = await relay.until_event("recipient.delivered", queue_id=receipt.id)
        assert event.data["tls"]["verified"] is True
        assert PASSWORD not in relay.worker_log.read_text()
        result = f"delivered, by {mechanism.upper()}"
    else:
        # Never in clear: neither password nor mail.
        await relay.until_waiting(receipt, address, "tls_failed")
        assert "AUTH" not in receiver.log().upper()
        result = "waits: TLS fails"
    played("AUTH, right password", result)
    assert receiver.stored("badlogin") == []
    assert (await relay.recipients(kept))[f"ann@{receiver.domain('badlogin')}"].status == "ready"


async def test_address_beyond_ascii_goes_where_it_can(
    relay: System, receiver: Receiver, played: Played
) -> None:
    address = f"jörg@{receiver.domain('plain')}"
    sender = f"global@{receiver.domain('plain')}"
    receipt, content = await send(
        relay, receiver, [address], subject="grüße", sender=sender, ingress="smtp"
    )
    if receiver.has_smtputf8:
        await relay.until_delivered(receipt)
        (stored,) = receiver.until_stored("grüße")
        assert (stored.recipient, stored.submitted) == (address, content)
        result = "delivered"
    else:
        await relay.until(receipt, {address: "failed"})
        (event,) = await relay.until_event("recipient.failed", queue_id=receipt.id)
        assert event.data["reason"] == "smtputf8_unsupported"
        assert event.data["reply"] is None
        (report,) = receiver.until_reports(sender)
        assert b"\r\nStatus: 5.6.7\r\n" in report.content
        assert receiver.stored("grüße") == []
        result = "failed, 5.6.7"
    played("SMTPUTF8", result)


async def test_hundred_recipients_have_each_his_own_verdict(
    relay: System, receiver: Receiver, played: Played
) -> None:
    """Thirty are unknown: Postfix closes the session behind the twentieth refusal."""
    domain = receiver.domain("plain")
    known = {f"box-{number}@{domain}" for number in range(70)}
    unknown = {f"{UNKNOWN}-{number}@{domain}" for number in range(30)}
    receipt, content = await send(relay, receiver, sorted(known | unknown), subject="hundred")
    ends = dict.fromkeys(known, "delivered") | dict.fromkeys(unknown, "failed")
    await relay.until(receipt, ends)
    stored = receiver.until_stored("hundred", len(known))
    assert {one.recipient for one in stored} == known
    assert {one.submitted for one in stored} == {content}
    failed = await relay.until_event("recipient.failed", len(unknown), queue_id=receipt.id)
    assert {event.data["address"] for event in failed} == unknown
    assert {event.data["reply"]["code"] for event in failed} == {550}
    receiver.until_logged(receiver.pipelining_in_log)
    receiver.until_logged(receiver.closing_in_log)
    played("100 recipients, 30 of them unknown", "70 delivered once, 30 failed")


async def test_ten_megabytes_arrive_as_they_were(
    relay: System, receiver: Receiver, played: Played
) -> None:
    lines = b"".join(b".%07d%s\r\n" % (number, b"x" * 70) for number in range(1000))
    body = lines * (10_000_000 // len(lines))
    await delivered_as_sent(relay, receiver, "plain", body, "large")
    receiver.until_logged(receiver.chunks_in_log)
    by = "BDAT" if receiver.chunks_in_log else "DATA"
    played("10 MB", f"the same octets, by {by}")


async def test_server_sends_the_reports_that_were_asked_for(
    relay: System, receiver: Receiver, played: Played
) -> None:
    domain = receiver.domain("plain")
    sender = f"dsn@{domain}"
    asked = {
        f"ann@{domain}": RecipientDsn("SF", f"rfc822;Old+2Bann@{domain}"),
        f"bob@{domain}": RecipientDsn("F"),
        f"cai@{domain}": RecipientDsn("N"),
        f"{UNKNOWN}@{domain}": RecipientDsn("SF"),
    }
    dsn = Dsn("HDRS", "Ours+2B17", tuple(asked.values()))
    receipt, _ = await send(
        relay, receiver, list(asked), subject="dsn", sender=sender, ingress="smtp", dsn=dsn
    )
    ends = {address: "delivered" for address in asked if UNKNOWN not in address}
    await relay.until(receipt, ends | {f"{UNKNOWN}@{domain}": "failed"})
    stored = receiver.until_stored("dsn", len(ends))
    assert {one.recipient for one in stored} == set(ends)
    # Ours of the refused one, theirs of the delivered one who asked; nobody writes another.
    reports = [one.report for one in receiver.until_reports(sender, 2)]
    told = {report["final-recipient"].partition(";")[2].strip(): report for report in reports}
    assert {address: report["action"] for address, report in told.items()} == {
        f"ann@{domain}": "delivered",
        f"{UNKNOWN}@{domain}": "failed",
    }
    theirs, ours = told[f"ann@{domain}"], told[f"{UNKNOWN}@{domain}"]
    assert ours["reporting-mta"] == "dns; relay.example"
    assert ours["original-envelope-id"] == "Ours+17"
    assert theirs["reporting-mta"] == f"dns; {receiver.kind}.example"
    original = theirs.get("original-recipient", "").partition("@")[0]
    returned = theirs.get("original-envelope-id", ""), original
    played("DSN, who is reported of", "those who asked, no others")
    played("DSN, ENVID and ORCPT that come back", RETURNED[returned])
