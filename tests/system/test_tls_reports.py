"""Domains that ask for it are told once a day how TLS with them went, by mail or by HTTPS; others
cost nothing."""

import asyncio
import email
import gzip
import json
from email import policy as email_policy
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.cli.main import run
from relay.sim.certificates import Certificates
from tests.support.https_server import HttpsServer, answer
from tests.support.system import System, running_system
from tests.support.tls_report import check_report

ASKS = '"v=TLSRPTv1; rua=mailto:tls@reports.test"'
#: Domains that ask, and of a report: policy type, successes, types of failures.
EXPECTED = {
    "plain.test": ("no-policy-found", 1, set()),
    "notls.plain.test": ("no-policy-found", 0, {"starttls-not-supported"}),
    "mtasts.test": ("sts", 1, set()),
    "expiredcert.mtasts.test": ("sts", 0, {"certificate-expired"}),
    "mtaststesting.test": ("sts", 0, {"validation-failure"}),
    "badcert.mtaststesting.test": ("sts", 0, {"certificate-host-mismatch"}),
    "notls.mtaststesting.test": ("sts", 0, {"starttls-not-supported"}),
    "dane.test": ("tlsa", 1, set()),
    "danewrong.test": ("tlsa", 0, {"validation-failure"}),
    "danefail.test": ("tlsa", 0, {"dnssec-invalid"}),
}
#: Whose mail waits, because of what the domain publishes, and for which reason.
WAITING = {
    "expiredcert.mtasts.test": "tls_failed",
    "danewrong.test": "tls_failed",
    "danefail.test": "dns_unavailable",
}
#: Who asks for the report by HTTPS, too.
BY_HTTPS = "plain.test"


def told(report: dict[str, Any]) -> tuple[str, tuple[str, int, set[str]]]:
    """The domain of a report, and what it says."""
    check_report(report)
    policies = report["policies"]  # each host's TLSA records are one
    (kind,) = {policy["policy"]["policy-type"] for policy in policies}
    types = {one["result-type"] for policy in policies for one in policy["failure-details"]}
    good = sum(policy["summary"]["total-successful-session-count"] for policy in policies)
    return report["report-id"].partition(".")[2], (kind, good, types)


def attached(content: bytes) -> dict[str, Any]:
    """The report of a message."""
    message = email.message_from_bytes(content, policy=email_policy.SMTP)
    _, attachment = message.iter_parts()  # type: ignore[attr-defined]
    return json.loads(gzip.decompress(attachment.get_content()))


async def until_counted(system: System, api: str) -> None:
    """Wait until every domain that asks has a report."""
    async with httpx.AsyncClient(base_url=api, trust_env=False) as client:
        async with asyncio.timeout(30):
            for domain in EXPECTED:
                while (await client.get(f"/v1/tls-reports/{domain}")).status_code != 200:
                    await asyncio.sleep(0.2)
        assert (await client.get("/v1/tls-reports/quiet.test")).status_code == 404
        assert (await client.get("/v1/tls-reports/plain.test?day=today")).status_code == 422


async def test_reports_are_counted_shown_and_sent_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {
        "RELAY_SINK_HTTPS": "127.0.0.1:{https_port}",
        "RELAY_TLS_REPORTS": "true",
        "RELAY_TLS_DANE": "true",
    }
    certificates = Certificates()
    async with (
        HttpsServer(answer(status="202 Accepted")).running(
            certificates.context_for("reports.test")
        ) as posts,
        running_system(tmp_path, workers=2, **variables) as system,
    ):
        system.expects("site.breaker")
        await system.shift_clock(
            (43_200 - await system.store.now()) % 86_400
        )  # no midnight is near
        for domain in EXPECTED:
            system.sink.set_dns(f"_smtp._tls.{domain}", "TXT", ASKS)
        wanted = ASKS.replace("rua=", f"rua=https://reports.test:{posts.port}/tls,")
        system.sink.set_dns(f"_smtp._tls.{BY_HTTPS}", "TXT", wanted)
        system.sink.set_dns("reports.test", "A", "127.0.0.1")
        known = Path(system.environment["SSL_CERT_FILE"])
        known.write_bytes(known.read_bytes() + certificates.authority_pem)
        receipts = {name: await system.submit([f"a@{name}"]) for name in (*EXPECTED, "quiet.test")}
        sent = [receipt for name, receipt in receipts.items() if name not in WAITING]
        await system.until_delivered(*sent)
        for name, reason in WAITING.items():
            await system.until_waiting(receipts[name], f"a@{name}", reason)

        api = f"http://127.0.0.1:{system.start_http()}"
        await until_counted(system, api)
        capsys.readouterr()
        assert await asyncio.to_thread(run, ["tls-report", "show", "plain.test", "--api", api]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert told(shown) == ("plain.test", EXPECTED["plain.test"])

        await system.shift_clock(86_400)
        wanted = {"recipient": "tls@reports.test"}
        mails = system.sink.receipts(at_least=len(EXPECTED), timeout_s=30, **wanted)
        reports = [attached(system.sink.content(mail.number)) for mail in mails]
        assert dict(map(told, reports)) == EXPECTED
        assert {report["contact-info"] for report in reports} == {"postmaster@relay.example"}
        assert len(system.sink.receipts(**wanted)) == len(EXPECTED)
        async with asyncio.timeout(30):
            while not posts.requests:
                await asyncio.sleep(0.1)
        (body,) = posts.bodies
        posted = json.loads(gzip.decompress(body))
        assert told(posted) == (BY_HTTPS, EXPECTED[BY_HTTPS])
        assert posted in reports
        assert system.complaints() == []
    certificates.close()
