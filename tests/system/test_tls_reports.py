"""Domains that ask for it are told once a day how TLS with them went; others cost nothing."""

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
from tests.support.system import System, running_system

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
}
#: Whose mail waits, because the domain's policy is enforced.
WAITS = "expiredcert.mtasts.test"


def told(report: dict[str, Any]) -> tuple[str, tuple[str, int, set[str]]]:
    """The domain of a report, and what it says."""
    (policy,) = report["policies"]
    about, summary = policy["policy"], policy["summary"]
    types = {detail["result-type"] for detail in policy["failure-details"]}
    failed = sum(detail["failed-session-count"] for detail in policy["failure-details"])
    assert summary["total-failure-session-count"] == failed
    good = summary["total-successful-session-count"]
    return about["policy-domain"], (about["policy-type"], good, types)


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
    async with running_system(tmp_path, workers=2, **variables) as system:
        system.expects("site.breaker")
        await system.shift_clock(
            (43_200 - await system.store.now()) % 86_400
        )  # no midnight is near
        for domain in EXPECTED:
            system.sink.set_dns(f"_smtp._tls.{domain}", "TXT", ASKS)
        receipts = {name: await system.submit([f"a@{name}"]) for name in (*EXPECTED, "quiet.test")}
        await system.until_delivered(*(r for name, r in receipts.items() if name != WAITS))
        await system.until_waiting(receipts[WAITS], f"a@{WAITS}", "tls_failed")

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
        assert system.complaints() == []
