"""The sink as a whole: receipts, control port, address pool, settings, life cycle."""

import asyncio
import http.client
import ipaddress
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time

import pytest
from sim_dialogue import Dialogue

from relay.model.errors import ConfigError
from relay.settings.schema import Sink as Settings
from relay.sim.client import SinkClient, SinkError
from relay.sim.receipts import Limits, ReceiptFilter
from relay.sim.server import EPHEMERAL, Sink, background_sink

RUNS_ON_BOTH_LOOPS = True


@pytest.fixture
async def sink():
    async with Sink() as running:
        yield running


async def deliver(sink, *recipients, message_id="<m@x>", host="mx1.a.test", count=1):
    async with Dialogue(sink, host) as peer:
        await peer.hello()
        for _ in range(count):
            content = f"Message-ID: {message_id}\r\nFeedback-ID: spring:t:b:relay\r\n\r\nhi\r\n"
            assert (await peer.send(*recipients, content=content.encode())).startswith("250")


# ---- receipts


async def test_receipts_are_found_by_every_filter(sink):
    await deliver(sink, "anna@a.test", message_id="<1@x>")
    await deliver(sink, "bob@b.test", message_id="<2@x>", host="mx2.b.test")
    for wanted in (
        ReceiptFilter(recipient="BOB@b.test"),
        ReceiptFilter(domain="b.test"),
        ReceiptFilter(host="mx2.b.test"),
        ReceiptFilter(message_id="2@x"),
        ReceiptFilter(session=2),
        ReceiptFilter(after=1),
        ReceiptFilter(campaign="spring", after=1),
    ):
        assert [r.number for r in sink.mailbox.receipts(wanted)] == [2]
    assert len(sink.mailbox.receipts(ReceiptFilter(reverse_path="from@sender.test"))) == 2
    assert sink.mailbox.receipts(ReceiptFilter(domain="c.test")) == []


async def test_receipts_wait_until_they_have_come(sink):
    async def later():
        await asyncio.sleep(0.05)
        await deliver(sink, "anna@a.test")

    task = asyncio.create_task(later())
    assert len(await sink.mailbox.wait(1, timeout_s=5)) == 1
    await task
    with pytest.raises(TimeoutError, match=r"1 of 2 receipts after 0\.05 s"):
        await sink.mailbox.wait(2, timeout_s=0.05)


async def test_mailbox_counts_duplicates_by_message_id_and_recipient(sink):
    await deliver(sink, "anna@a.test", "bob@a.test", message_id="<1@x>")
    await deliver(sink, "anna@a.test", message_id="<2@x>")
    await deliver(sink, "Anna@a.test", message_id="<1@x>")
    assert sink.mailbox.counters.duplicates == 1
    assert sink.mailbox.counts() == {"anna@a.test": 3, "bob@a.test": 1}
    assert sink.mailbox.counts("b.test") == {}


async def test_mailbox_keeps_counts_when_receipts_and_contents_are_dropped():
    limits = Limits(receipts=3, contents=2)
    async with Sink(limits=limits) as sink:
        await deliver(sink, "anna@a.test", count=5)
        assert [r.number for r in sink.mailbox.receipts()] == [3, 4, 5]
        assert [sink.mailbox.content(n) is None for n in (3, 4, 5)] == [True, False, False]
        assert sink.mailbox.count("anna@a.test") == 5


async def test_mailbox_is_bounded_in_octets_and_in_recipients():
    async with Sink(limits=Limits(contents_octets=150, counted=2)) as sink:
        await deliver(sink, "a@a.test", "b@a.test", "c@a.test", count=3)
        assert sink.mailbox.content(1) is None and sink.mailbox.content(3) is not None
        assert len(sink.mailbox.counts()) == 2
        assert sink.mailbox.counters.uncounted == 3
        sink.mailbox.clear()
        assert sink.mailbox.counts() == {} and sink.mailbox.receipts() == []


# ---- the address pool


async def test_pool_shares_addresses_when_it_is_full_but_never_across_scripts():
    async with Sink(max_addresses=8) as sink:
        plain = {sink.address_of(f"mx1.d{n}.test") for n in range(50)}
        assert len(plain) <= 8
        scripted = sink.address_of("mx1.greeting5.test")
        assert scripted not in plain
        assert sink.address_of("mx1.dead.test") not in plain
        async with Dialogue(sink, "mx1.d49.test") as peer:
            assert (await peer.reply()).startswith("220")
        async with Dialogue(sink, "mx1.greeting5.test") as peer:
            assert (await peer.reply()).startswith("554")


async def test_pool_binds_a_thousand_hosts(sink):
    addresses = {sink.address_of(f"mx1.d{n}.test") for n in range(1000)}
    assert len(addresses) == 1000
    async with Dialogue(sink, "mx1.d999.test") as peer:
        assert (await peer.reply()).startswith("220 mx1.d999.test")


async def test_pool_listens_on_loopback_only(sink):
    sink.address_of("mx1.a.test")
    sink.address_of("mx1.blackhole.test")
    sink.address_of("mx1.ipv6only.test")
    bound = {sock.getsockname()[0] for sock in sink._pool._sockets.values()}
    assert len(bound) == 4
    assert all(ipaddress.ip_address(address).is_loopback for address in bound)


# ---- settings and life cycle


async def test_sink_names_the_setting_whose_port_is_taken(sink):
    for setting in ("dns", "smtp", "control"):
        port = getattr(sink, f"{setting}_port")
        values = dict.fromkeys(("dns", "smtp", "control"), "127.0.0.1:0")
        values[setting] = f"127.0.0.1:{port}"
        with pytest.raises(ConfigError, match=rf"sink\.{setting}: 127\.0\.0\.1:{port} is in use"):
            await Sink(Settings(**values)).start()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:25", "nonsense", "127.0.0.1:99999"])
async def test_sink_binds_nothing_but_loopback(address):
    settings = Settings(dns="127.0.0.1:0", smtp=address, control="127.0.0.1:0")
    with pytest.raises(ConfigError, match=r"sink\.smtp: .* write a loopback address"):
        await Sink(settings).start()


async def test_sink_stops_with_connections_open():
    sink = await Sink().start()
    async with Dialogue(sink, "mx1.a.test") as peer, Dialogue(sink, "mx1.tarpit.test"):
        await peer.hello()
        peer.writer.write(b"STARTTLS\r\n")
        await peer.reply()
        await asyncio.wait_for(sink.stop(), 5)
        await sink.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", sink.smtp_port)


async def test_connection_that_ends_in_the_handshake_is_forgotten(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        assert (await peer.say("STARTTLS")).startswith("220")
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not sink.receiver.connections:
            break
    assert not sink.receiver.connections
    assert sink.receiver.registry.hosts["mx1.a.test"].connections == 0


async def test_sink_frees_its_ports_for_the_next_one():
    async with Sink() as first:
        settings = Settings(
            dns=first.dns_address,
            smtp=f"127.0.0.1:{first.smtp_port}",
            control=first.control_address,
        )
        first.address_of("mx1.a.test")
    async with Sink(settings) as second:
        assert second.smtp_port == first.smtp_port
        second.address_of("mx1.a.test")


# ---- the control port, from a thread or process of its own


@pytest.fixture(scope="module")
def running():
    with background_sink() as client:
        yield client


@pytest.fixture
def client(running):
    running.reset()
    return running


def send(client, *recipients, host="mx1.a.test", message_id="<m@x>"):
    port = client.status()["smtp_port"]
    with smtplib.SMTP(client.address_of(host), port) as smtp:
        content = f"Message-ID: {message_id}\r\n\r\nhi\r\n"
        return smtp.sendmail("me@x.test", recipients, content)


def test_client_gets_receipts_contents_and_counts(client):
    send(client, "anna@a.test", "reject@a.test")
    (receipt,) = client.receipts(recipient="anna@a.test", at_least=1)
    assert receipt.host == "mx1.a.test" and receipt.refused[0].address == "reject@a.test"
    assert client.content(receipt.number) == b"Message-ID: <m@x>\r\n\r\nhi\r\n"
    assert client.counts() == {"anna@a.test": 1}
    assert client.refusals("a.test") == {"reject@a.test": 1}
    assert client.status()["counters"]["messages"] == 1
    assert client.hosts()["mx1.a.test"]["use"]["messages"] >= 1
    client.clear()
    assert client.receipts() == []
    with pytest.raises(SinkError, match="is not kept"):
        client.content(receipt.number)


def test_client_sees_refused_messages_when_asked(client):
    with pytest.raises(smtplib.SMTPDataError):
        send(client, "reject-dot@a.test")
    assert client.receipts() == []
    assert len(client.receipts(accepted=None)) == len(client.receipts(accepted=False)) == 1


def test_client_waits_and_gives_up(client):
    with pytest.raises(TimeoutError, match="0 of 1 receipts"):
        client.receipts(at_least=1, timeout_s=0.05)


def test_client_switches_faults(client):
    row = client.add_fault("a.test", "MAIL", "reply", reply="450 4.2.0 Busy", count=3)
    with pytest.raises(smtplib.SMTPSenderRefused, match="Busy"):
        send(client, "anna@a.test")
    assert [(f.id, f.fired, f.remaining) for f in client.faults()] == [(row.id, 1, 2)]
    client.remove_fault(row.id)
    assert send(client, "anna@a.test") == {}
    client.use_profile("a.test", "outage")
    with pytest.raises(smtplib.SMTPConnectError):
        send(client, "anna@a.test")
    assert client.clear_faults("a.test") == 1
    with pytest.raises(SinkError, match="no fault 999"):
        client.remove_fault(999)
    with pytest.raises(SinkError, match="unknown action 'bang'"):
        client.add_fault("a.test", "MAIL", "bang")
    with pytest.raises(SinkError, match="unknown profile"):
        client.use_profile("a.test", "bang")


def test_client_sets_dns_and_credentials(client):
    client.set_dns("a.test", "MX", "10 mx.elsewhere.test.")
    client.set_dns("b.test", "MX", code="SERVFAIL")
    client.clear_dns()
    with pytest.raises(SinkError, match="unknown response code"):
        client.set_dns("b.test", "MX", code="FOO")
    client.set_credentials("anna", "pass")
    with smtplib.SMTP(client.address_of("smarthost.test"), client.status()["smtp_port"]) as smtp:
        assert smtp.login("anna", "pass")[0] == 235


def test_client_drops_connections(client):
    port = client.status()["smtp_port"]
    with socket.create_connection((client.address_of("mx1.a.test"), port)) as sock:
        assert sock.recv(100).startswith(b"220")
        assert client.drop_connections("mx1.a.test") == 1
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


def test_client_sees_tls_and_a_broken_handshake_on_the_fast_loop(client):
    status = client.status()
    address = client.address_of("mx1.a.test")
    context = ssl.create_default_context(cafile=status["authority"])
    context.check_hostname = False  # smtplib knows the host by its address only
    with smtplib.SMTP(address, status["smtp_port"]) as smtp:
        smtp.starttls(context=context)
        smtp.sendmail("me@x.test", ["anna@a.test"], "Message-ID: <m@x>\r\n\r\nhi\r\n")
    assert client.receipts(at_least=1)[0].tls == "TLSv1.3"
    with socket.create_connection((address, status["smtp_port"])) as sock:
        for line in (b"EHLO x.test\r\n", b"STARTTLS\r\n"):
            sock.recv(4096)
            sock.sendall(line)
        sock.recv(4096)
    for _ in range(100):
        if not (left := client.status()["connections"]):
            break
        time.sleep(0.01)
    assert left == 0


def test_client_says_when_no_sink_answers():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SinkError, match=f"no sink answers at 127.0.0.1:{port}"):
        SinkClient(f"127.0.0.1:{port}").status()


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/nothing", {}, None, 404),
        ("PUT", "/faults", {}, None, 405),
        ("GET", "/status", {"Host": "evil.example"}, None, 403),
        ("GET", "/status", {"Host": "localhost:1"}, None, 200),
        ("POST", "/faults", {"Content-Type": "text/plain"}, b"{}", 415),
        ("POST", "/faults", {"Content-Type": "application/json"}, b"{", 422),
        ("POST", "/faults", {"Content-Type": "application/json"}, b"{}", 422),
        ("POST", "/faults", {"Content-Length": "99999999"}, None, 413),
        ("GET", "/receipts?nonsense=1", {}, None, 422),
        ("GET", "/receipts?limit=many", {}, None, 422),
    ],
)
def test_control_port_refuses_what_it_does_not_know(client, method, path, headers, body, status):
    connection = http.client.HTTPConnection(client.address, timeout=5)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    finally:
        connection.close()


def test_run_sink_runs_as_a_process_and_stops_on_sigterm():
    program = (
        "from relay.settings.schema import Settings, Sink\n"
        "from relay.sim.server import run_sink\n"
        "sink = Sink(dns='127.0.0.1:0', smtp='127.0.0.1:0', control='127.0.0.1:0')\n"
        "ready = lambda sink: print(sink.control_address, flush=True)\n"
        "run_sink(Settings(sink=sink), on_ready=ready)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        client = SinkClient(process.stdout.readline().decode().strip())
        assert client.status()["counters"]["messages"] == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_background_sink_reports_a_taken_port(client):
    settings = Settings(dns="127.0.0.1:0", smtp="127.0.0.1:0", control=client.address)
    with pytest.raises(ConfigError, match=r"sink\.control"), background_sink(settings):
        pass
    assert EPHEMERAL.smtp == "127.0.0.1:0"
