"""`/metrics` tells of all processes what they did, in every family that its document names."""

import asyncio
import re
import time
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.system import System

Samples = dict[str, dict[tuple[str, ...], float]]
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
WAIT_S = 30.0


async def samples(url: str) -> Samples:
    """Values by name and by the values of the labels in the order of their names."""
    async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
        text = (await client.get(f"{url}/metrics")).text
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        if not family.samples:  # of what did not happen here
            found.setdefault(family.name + "_total" * (family.type == "counter"), {})
        found.setdefault(family.name, {})
        for sample in family.samples:
            found.setdefault(sample.name, {})[_values(sample.labels)] = sample.value
    return found


def _values(labels: dict[str, str]) -> tuple[str, ...]:
    return tuple(value for _, value in sorted(labels.items()))


def roles(found: Samples) -> set[str]:
    """Roles of the processes that have reported."""
    return {role for _, _, role in found["relay_process_resident_memory_bytes"]}


async def until_reported(url: str) -> Samples:
    """Processes report every few seconds: wait for one report of the worker after the mail."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        found = await samples(url)
        is_told = found.get("relay_delivery_delay_seconds_count")  # by the worker
        is_told = is_told and found.get("relay_lint_findings_total")  # by the API
        if is_told and "smtpd" in roles(found):
            return found
        await asyncio.sleep(0.25)
    raise AssertionError("no worker has reported")


async def test_metrics_tell_what_all_processes_did(system: System) -> None:
    system.expects("site.breaker")
    url = f"http://127.0.0.1:{system.start_http()}"
    system.start_smtpd()
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        fine = {"from": "a@b.test", "to": ["carl@shop.test"], "text": "x"}
        assert (await client.post("/v1/messages", json=fine)).status_code == 202
        response = await client.post(
            "/v1/messages/raw?to=a@b.test",
            content=b"From: a@b.test\nFrom: c@d.test\n\nx\n",
            headers={"Content-Type": "message/rfc822"},
        )
        assert response.status_code == 422
    to = ["ann@gmail.com", "reject@shop.test", "tempfail@shop.test", "bob@notls.test"]
    receipt = await system.submit([*to, "eve@nxdomain.test", "dan@dead.test"])
    await system.until(
        receipt,
        {
            **dict.fromkeys(("ann@gmail.com", "bob@notls.test"), "delivered"),
            **dict.fromkeys(("reject@shop.test", "eve@nxdomain.test"), "failed"),
        },
    )
    await system.until_event("site.suspended")
    await system.until_event("recipient.delivered", 3)
    found = await until_reported(url)

    # Exact, by the transitions.
    assert found["relay_recipients_total"]["delivered", "google"] == 1
    assert found["relay_recipients_accepted_total"]["transactional", "python"] == 6
    # By the worker.
    assert found["relay_delivery_delay_seconds_count"] == {("google",): 1, ("other",): 2}
    assert found["relay_replies_total"]["550", "5.1.1", "other"] == 1
    assert found["relay_replies_total"]["451", "4.3.0", "other"] >= 1
    assert found["relay_sessions_total"]["google",] == 1
    assert found["relay_session_failures_total"]["connect", "other"] >= 1
    assert found["relay_tls_sessions_total"]["opportunistic", "clear"] == 1
    assert found["relay_tls_sessions_total"]["opportunistic", "no"] >= 1
    phases = {labels[0] for labels in found["relay_attempt_duration_seconds_count"]}
    assert phases >= {"connect", "greeting", "hello", "tls", "envelope", "data", "final"}
    look_ups = found["relay_dns_lookup_duration_seconds_count"]
    assert look_ups["no_name", "MX"] == 1
    assert look_ups["found", "MX"] >= 4
    # By doors.
    assert found["relay_lint_findings_total"]["from.count",] == 1
    # By the store's callers: doors and workers.
    assert {("accept",), ("claim",), ("settle",)} <= found[
        "relay_store_operation_duration_seconds_count"
    ].keys()
    # Of the queue, Redis and the processes.
    # tempfail@ waits for its next attempt or is at it, dan@ waits for his host.
    assert sum(found["relay_queue_recipients"].values()) == 2
    assert found["relay_redis_memory_used_bytes"][()] > 0
    assert found["relay_redis_aof_ok"][()] == 1
    assert roles(found) == {"worker", "http", "smtpd"}
    _as_documented(found)


def _as_documented(found: Samples) -> None:
    """The document names every family, and none that there is not."""
    named = set(re.findall(r"`(relay_[a-z_]+)`", DOCUMENT.read_text(encoding="utf-8")))
    families = {
        name
        for name in found
        if not name.endswith(("_bucket", "_count", "_sum", "_created"))
        # A counter's family goes without the _total that its samples have.
        and f"{name}_total" not in named
    }
    assert families == named
