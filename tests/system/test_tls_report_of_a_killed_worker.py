"""A worker that is killed while it posts a report leaves it to another, who says what it may be."""

import asyncio
import gzip
import json
from pathlib import Path

from relay.policy.tls_report import day_of
from relay.sim.certificates import Certificates
from relay.store.tls_counts import TlsCounts
from tests.support.https_server import HttpsServer, answer
from tests.support.system import System, running_system
from tests.support.tls_report import check_report

DAY_S = 86_400


async def until_posted(posts: HttpsServer, times: int) -> None:
    async with asyncio.timeout(60):
        while len(posts.requests) < times:
            await asyncio.sleep(0.02)


async def end_claims(system: System) -> bytes | None:
    """Let the killed worker's claim be over, as it is after two minutes; its mark."""
    store = system.store
    (post,) = await store.wire.call("KEYS", f"{store.p}tls-post:*")
    for claim in await store.wire.call("KEYS", f"{store.p}tls-posting:*"):
        await store.wire.call("DEL", claim)
    mark: bytes | None = await store.wire.call("HGET", post, "sending")
    return mark


async def test_report_of_a_worker_that_was_killed_while_it_posted_is_posted_once_more(
    tmp_path: Path,
) -> None:
    certificates = Certificates()
    posts = HttpsServer(answer(status="200 OK"))
    posts.gate = asyncio.Event()
    async with (
        posts.running(certificates.context_for("reports.test")),
        running_system(tmp_path, RELAY_TLS_REPORTS="true") as system,
    ):
        await system.shift_clock((DAY_S / 2 - await system.store.now()) % DAY_S)  # it is noon
        asks = f'"v=TLSRPTv1; rua=https://reports.test:{posts.port}/tls"'
        system.sink.set_dns("_smtp._tls.plain.test", "TXT", asks)
        system.sink.set_dns("reports.test", "A", "127.0.0.1")
        known = Path(system.environment["SSL_CERT_FILE"])
        known.write_bytes(known.read_bytes() + certificates.authority_pem)
        await system.until_delivered(await system.submit(["ann@plain.test"]))
        async with asyncio.timeout(30):
            while not await TlsCounts(system.store).some(day_of(await system.store.now()), 1):
                await asyncio.sleep(0.1)

        await system.shift_clock(DAY_S)
        await until_posted(posts, 1)
        system.kill_worker(system.workers[0])
        was_posting = await end_claims(system) == b"1"
        await system.shift_clock(301)  # if it was slow to die it has put the report off
        posts.gate.set()
        system.expects("tls_report.uncertain")
        system.start_worker()
        await until_posted(posts, 2)
        async with asyncio.timeout(30):
            while await system.store.wire.call("ZCARD", f"{system.store.p}tls-posts"):
                await asyncio.sleep(0.1)
        first, second = (json.loads(gzip.decompress(body)) for body in posts.bodies)
        check_report(first)
        assert first == second
        if was_posting:
            (told,) = await system.logged(1, event="tls_report.uncertain")
            assert told["domain"] == "plain.test"
        assert system.complaints() == []
    certificates.close()
