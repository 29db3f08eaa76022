"""Reports of a day that is over: each is sent once to each who asked, by mail and by HTTPS."""

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from scripted_dns import ScriptedDns, serving
from scripted_smtp import Certificate
from structlog.testing import capture_logs

from relay.delivery import tls_results
from relay.delivery.directory import load_directory
from relay.delivery.tls_report_sender import TlsReportSender
from relay.delivery.tls_results import TlsResults
from relay.net import https, tls_report_post
from relay.net.resolver import Resolver
from relay.policy.tls_report import SUCCESS, Failure, day_of, delay_of, field_of
from relay.settings.schema import Delivery, Dns, Mode, Settings, Tls
from relay.store.clock import steady_s
from relay.store.queue import Store
from relay.store.tls_counts import TlsCounts
from relay.store.work import Work
from tests.store.mail import shift, worker
from tests.support.https_server import HttpsServer, answer
from tests.support.tls_report import check_report

PATIENT = Dns(timeout=20.0, lifetime=30.0)
DAY_S = 86_400
TAKEN, BUSY = answer(status="201 Created"), answer(status="503 Busy")


def settings(*, allow_private: bool = True) -> Settings:
    delivery = Delivery(mode=Mode.LIVE, hostname="relay.test", allow_private=allow_private)
    return Settings(dns=PATIENT, delivery=delivery, tls=Tls(reports=True))


@pytest.fixture
async def dns_server() -> AsyncIterator[ScriptedDns]:
    async with serving() as server:
        server.add("reports.a.test", "A", "127.0.0.1")
        yield server


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy is no server that is silent."""
    monkeypatch.setattr(https, "_STEP_S", 60.0)
    monkeypatch.setattr(tls_report_post, "POST_S", 90.0)


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    certificate = Certificate(tmp_path, "reports.a.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    return certificate


class Workers:
    """Processes that share a store: each has its own connections and resolver."""

    def __init__(self, dns_server: ScriptedDns, url: str) -> None:
        self._dns_server = dns_server
        self._url = url
        self._closers: list[Any] = []

    async def work(self) -> Work:
        store = await Store.connect(self._url, "sink", client_name="test")
        self._closers.append(store.close)
        return await worker(store)

    async def sender(self, how: Settings | None = None) -> TlsReportSender:
        return TlsReportSender(self._directory(how or settings()), await self.work())

    async def results(self) -> TlsResults:
        return TlsResults(self._directory(settings()), await self.work())

    def _directory(self, how: Settings) -> Any:
        resolver = Resolver(PATIENT, nameservers=(self._dns_server.nameserver,))
        self._closers.append(resolver.aclose)
        return load_directory(how, resolver, signs=False)

    async def close(self) -> None:
        for close in reversed(self._closers):
            await close()


@pytest.fixture
async def workers(store: Store, dns_server: ScriptedDns, redis_server) -> AsyncIterator[Workers]:
    made = Workers(dns_server, redis_server.url)
    yield made
    await made.close()


async def counted(store: Store, *domains: str) -> str:
    """Sessions with the domains yesterday; the day. It is five hours past midnight now."""
    await shift(store, (5 * 3600 - await store.now()) % DAY_S)
    day = day_of(await store.now() - DAY_S)
    failure = field_of(Failure("certificate-expired", "mx.a.test", "192.0.2.1"))
    for domain in domains:
        await TlsCounts(store).add(
            day,
            domain,
            b'["sts",["mode: enforce"],["mx.a.test"]]',
            {
                SUCCESS: 3,
                failure: 2,
            },
        )
    return day


def asks(dns_server: ScriptedDns, *uris: str, domain: str = "a.test") -> None:
    dns_server.add(f"_smtp._tls.{domain}", "TXT", f'"v=TLSRPTv1; rua={",".join(uris)}"')


def url(server: HttpsServer, path: str = "/tls") -> str:
    return f"https://reports.a.test:{server.port}{path}"


async def asked(server: HttpsServer, times: int) -> None:
    async with asyncio.timeout(30):
        while len(server.requests) < times:
            await asyncio.sleep(0.01)


async def heard(results: TlsResults) -> str:
    """Tell a worker the time by the store, as its ticker does; the day."""
    clock, asked_at = results._work.store.clock, steady_s()
    clock._ahead_s = None
    clock.heard(await results._work.store.now(), asked_at=asked_at)
    return day_of(clock.now())


async def taken_over(store: Store) -> None:
    """What a worker claimed that is gone is another's: its claims have run out."""
    for pattern in ("tls-posting:*", "tls-made:*"):
        for key in await store.wire.call("KEYS", f"{store.p}{pattern}"):
            if await store.wire.call("GET", key) == b"":
                await store.wire.call("DEL", key)


async def test_report_is_posted_and_mailed_once_however_many_workers_look(
    store: Store, workers: Workers, dns_server: ScriptedDns, trusted: Certificate
) -> None:
    async with HttpsServer(TAKEN).running(trusted.server) as server:
        asks(dns_server, url(server, "/tls?from=relay"), "mailto:tls@a.test", url(server, "/2"))
        day = await counted(store, "a.test", "quiet.test")
        senders = [await workers.sender() for _ in range(3)]
        for _ in range(2):
            await asyncio.gather(*(sender.send_due() for sender in senders))
        assert sorted(head.split(" ")[1] for head in server.requests) == ["/2", "/tls?from=relay"]
    head = server.requests[0].lower()
    assert head.startswith("post /")
    assert f"\r\nhost: reports.a.test:{server.port}\r\n" in head
    assert "\r\ncontent-type: application/tlsrpt+gzip\r\n" in head
    first, second = (json.loads(gzip.decompress(body)) for body in server.bodies)
    assert first == second
    check_report(first)
    assert first["report-id"] == f"{day}.a.test"
    assert first["policies"][0]["summary"] == {
        "total-successful-session-count": 3,
        "total-failure-session-count": 2,
    }
    queued = await store.wire.call("ZRANGE", f"{store.p}unrouted", 0, -1)
    assert queued == [b"~a.test"]  # it goes, whatever becomes of TLS
    assert await TlsCounts(store).some(day, 10) == []


async def test_report_that_is_not_taken_is_posted_again_later_and_for_a_day(
    store: Store, workers: Workers, dns_server: ScriptedDns, trusted: Certificate
) -> None:
    async with HttpsServer(BUSY, BUSY, TAKEN).running(trusted.server) as server:
        asks(dns_server, url(server))
        await counted(store, "a.test")
        sender = await workers.sender()
        for expected in (1, 1):
            await sender.send_due()
            assert len(server.requests) == expected
        for wait_s, expected in ((301, 2), (301, 2), (300, 3), (DAY_S, 3)):
            await shift(store, wait_s)
            await sender.send_due()
            assert len(server.requests) == expected, wait_s
    assert len(set(server.bodies)) == 1


@pytest.mark.parametrize(
    "reply",
    [
        answer(status="302 Found", more="Location: https://127.0.0.1/\r\n"),
        answer(status="404 Not Found"),
        b"220 smtp.test ESMTP\r\n",
        b"",
    ],
    ids=["redirect", "404", "smtp", "nothing"],
)
async def test_report_that_nobody_ever_takes_is_given_up_after_a_day(
    store: Store,
    workers: Workers,
    dns_server: ScriptedDns,
    trusted: Certificate,
    reply: bytes,
) -> None:
    async with HttpsServer(reply).running(trusted.server) as server:
        asks(dns_server, url(server))
        await counted(store, "a.test")
        sender = await workers.sender()
        for _ in range(20):
            await sender.send_due()
            await shift(store, 4 * 3600)
        assert 5 <= len(server.requests) <= 8
    assert await store.wire.call("ZCARD", f"{store.p}tls-posts") == 0


async def test_report_never_goes_to_a_private_address_in_live_mode(
    store: Store, workers: Workers, dns_server: ScriptedDns, trusted: Certificate
) -> None:
    async with HttpsServer(TAKEN).running(trusted.server) as server:
        asks(dns_server, url(server))
        await counted(store, "a.test")
        await (await workers.sender(settings(allow_private=False))).send_due()
        assert server.requests == []
    assert await store.wire.call("ZCARD", f"{store.p}tls-posts") == 1


async def test_report_goes_only_to_who_has_the_name_that_the_domain_gave(
    store: Store,
    workers: Workers,
    dns_server: ScriptedDns,
    trusted: Certificate,
    tmp_path: Path,
) -> None:
    other = Certificate(tmp_path, "other.test")
    async with HttpsServer(TAKEN).running(other.server) as server:
        asks(dns_server, url(server))
        await counted(store, "a.test")
        await (await workers.sender()).send_due()
        assert server.requests == []


async def test_report_of_a_worker_that_vanished_while_it_posted_is_posted_once_more(
    store: Store, workers: Workers, dns_server: ScriptedDns, trusted: Certificate
) -> None:
    server = HttpsServer(TAKEN)
    server.gate = asyncio.Event()
    async with server.running(trusted.server):
        asks(dns_server, url(server))
        await counted(store, "a.test")
        killed = asyncio.create_task((await workers.sender()).send_due())
        await asked(server, 1)
        killed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killed
        server.gate.set()
        other = await workers.sender()
        await other.send_due()
        assert len(server.requests) == 1
        await taken_over(store)
        with capture_logs() as told:
            await other.send_due()
        await taken_over(store)
        await other.send_due()
        assert len(server.requests) == 2
    assert server.bodies[0] == server.bodies[1]
    assert [line["event"] for line in told] == ["tls_report.uncertain", "tls_report.sent"]


async def test_report_that_workers_vanish_over_is_given_up(
    store: Store, workers: Workers, dns_server: ScriptedDns, trusted: Certificate
) -> None:
    server = HttpsServer(TAKEN)
    server.gate = asyncio.Event()
    async with server.running(trusted.server):
        asks(dns_server, url(server))
        await counted(store, "a.test")
        sender = await workers.sender()
        for times in (1, 2):
            killed = asyncio.create_task(sender.send_due())
            await asked(server, times)
            killed.cancel()
            await asyncio.gather(killed, return_exceptions=True)
            await taken_over(store)
        with capture_logs() as told:
            await sender.send_due()
        assert [line["event"] for line in told] == ["tls_report.given_up"]
        assert len(server.requests) == 2
    assert await store.wire.call("ZCARD", f"{store.p}tls-posts") == 0


async def test_worker_killed_while_it_makes_a_report_leaves_it_to_another(
    store: Store, workers: Workers, dns_server: ScriptedDns, trusted: Certificate
) -> None:
    async with HttpsServer(TAKEN).running(trusted.server) as server:
        asks(dns_server, url(server), "mailto:tls@a.test")
        day = await counted(store, "a.test")
        first, second = await workers.sender(), await workers.sender()
        first._counts.end = _killed  # type: ignore[method-assign]
        with pytest.raises(RuntimeError):
            await first.send_due()
        await second.send_due()
        assert await TlsCounts(store).some(day, 10) == ["a.test"]
        await taken_over(store)
        await second.send_due()
        assert len(server.requests) == 1
    assert await TlsCounts(store).some(day, 10) == []


async def _killed(_day: str, _domain: str) -> None:
    raise RuntimeError("killed")


async def test_report_waits_for_the_dns_that_says_who_wants_it(
    store: Store, workers: Workers, dns_server: ScriptedDns, trusted: Certificate
) -> None:
    async with HttpsServer(TAKEN).running(trusted.server) as server:
        asks(dns_server, url(server))
        dns_server.fail("_smtp._tls.a.test", "TXT")
        await counted(store, "a.test")
        await (await workers.sender()).send_due()
        assert server.requests == []
        del dns_server._scripts["_smtp._tls.a.test", "TXT"]
        await taken_over(store)
        await (await workers.sender()).send_due()
        assert len(server.requests) == 1


async def test_day_is_told_whole_and_alone_though_workers_count_across_midnight(
    store: Store, workers: Workers, dns_server: ScriptedDns, trusted: Certificate
) -> None:
    async with HttpsServer(TAKEN).running(trusted.server) as server:
        asks(dns_server, url(server))
        await shift(store, (DAY_S - 600 - await store.now()) % DAY_S)
        one, two = await workers.results(), await workers.results()
        before = await heard(one)
        assert await heard(two) == before
        one.not_admitted("a.test", "before midnight")
        two.not_admitted("a.test", "before midnight")
        await one.flush()
        await shift(store, 620)
        for results in (one, two):
            assert await heard(results) != before
            results.not_admitted("a.test", "after midnight")
        await asyncio.gather(one.flush(), two.flush())

        sender = await workers.sender()
        await shift(store, delay_of("a.test") - 620)
        await sender.send_due()
        assert server.requests == []
        await shift(store, 1200)
        await sender.send_due()
        (report,) = (json.loads(gzip.decompress(body)) for body in server.bodies)
        check_report(report)
        assert report["report-id"] == f"{before}.a.test"
        assert report["date-range"]["start-datetime"] == f"{before}T00:00:00Z"
        (policy,) = report["policies"]
        (detail,) = policy["failure-details"]
        assert detail["failed-session-count"] == 2
        assert detail["failure-reason-code"] == "before midnight"

        late = field_of(Failure("certificate-expired"))
        one._pending[before, "a.test"] = Counter({(None, late): 1})
        await one.flush()
        await taken_over(store)
        await sender.send_due()
        assert len(server.requests) == 1
        assert await TlsCounts(store).some(before, 10) == []


async def test_who_is_slow_to_take_a_report_holds_back_neither_others_nor_counts(
    store: Store,
    workers: Workers,
    dns_server: ScriptedDns,
    trusted: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_results, "FLUSH_EVERY_S", 0.01)
    server = HttpsServer(TAKEN)
    server.gate = asyncio.Event()
    async with server.running(trusted.server):
        asks(dns_server, url(server, "/1"), url(server, "/2"))
        await counted(store, "a.test")
        results = await workers.results()
        today = await heard(results)
        running = asyncio.create_task(results.run())
        await asked(server, 2)
        results.not_admitted("a.test", "none")
        async with asyncio.timeout(30):
            while not await TlsCounts(store).read(today, "a.test"):
                await asyncio.sleep(0.01)
        server.gate.set()
        async with asyncio.timeout(30):
            while await store.wire.call("ZCARD", f"{store.p}tls-posts"):
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(server.requests) == 2
