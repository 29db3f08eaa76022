"""Whose mailbox is not there, or who calls our mail spam, gets no more: until he is taken off."""

import json
import smtplib
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay import Message, Relay
from relay.model.errors import SubmissionRefused
from tests.support.doors import relay
from tests.support.ports import free_port
from tests.support.system import System, running_system

SECRET = "a secret of more than 16 octets"
COMPLAINTS = "complaints@bounces.example.org"
ARF = Path(__file__).parents[1] / "unit" / "data" / "reports" / "arf-rfc5965.eml"
ANN, GONE = "Ann@shop.test", "reject@shop.test"


def by_smtp(port: int, sender: str, to: str, content: bytes) -> tuple[int, str]:
    """Send a message; the last reply."""
    with smtplib.SMTP("127.0.0.1", port, timeout=15) as client:
        client.ehlo("mx.example.net")
        client.mail(sender)
        code, text = client.rcpt(to)
        if code == 250:
            code, text = client.data(content)
        return code, text.decode()


def seen(system: System, address: str) -> int:
    """How often the receiver took mail for an address."""
    return len(system.sink.receipts(recipient=address))


def listed(api: str) -> dict[str, dict[str, Any]]:
    run = relay("suppress", "list", "--json", api=api)
    assert run.code == 0, run
    return {entry["address"]: entry for entry in map(json.loads, run.out.splitlines())}


async def test_hard_bounce_and_complaint_end_the_mail_of_an_address_until_it_is_removed(
    tmp_path: Path,
) -> None:
    intake = free_port()
    settings = {
        "RELAY_SUPPRESSION_BOUNCES": "on",
        "RELAY_ENVELOPE_VERP_TRANSACTIONAL": "recipient",
        "RELAY_ENVELOPE_VERP_SECRETS": SECRET,
        "RELAY_ENVELOPE_BOUNCE_DOMAIN": "bounces.example.org",
        "RELAY_INTAKE_LISTEN": f"127.0.0.1:{intake}",
        "RELAY_INTAKE_ADDRESSES": COMPLAINTS,
    }
    async with running_system(tmp_path, **settings) as system:
        door = system.start_smtpd()
        api = f"http://127.0.0.1:{system.start_http()}"

        first = await system.submit([ANN, GONE])
        await system.until(first, {ANN: "delivered", GONE: "failed"})
        await a_hard_bounce_is_not_tried_again(system, api)
        await its_sender_by_smtp_is_told(system)
        await a_complaint_ends_the_mail(system, api, intake)
        refused_at_every_door(system, api, door)
        await who_is_removed_gets_mail_again(system, api)

        counted(api, bounced=2, spam=4)


async def a_hard_bounce_is_not_tried_again(system: System, api: str) -> None:
    (failed,) = await system.events("recipient.failed")
    entry = listed(api)[GONE]
    assert (entry["reason"], entry["origin"]) == ("bounced", "bounce")
    assert entry["evidence"] == failed.id
    assert entry["note"].startswith("550 5.1.1") and entry["until"] is not None

    refusals = system.sink.refusals("shop.test")
    assert sum(refusals.values()) == 1
    second = await system.submit([GONE, "bob@shop.test"])
    assert [item.status for item in second.recipients] == ["suppressed", "ready"]
    views = await system.until(second, {GONE: "suppressed", "bob@shop.test": "delivered"})
    assert (views[GONE].attempt, views[GONE].reason) == (0, "bounced")
    assert (seen(system, "bob@shop.test"), seen(system, GONE)) == (1, 0)
    assert system.sink.refusals("shop.test") == refusals  # nobody asked for him again
    (told,) = await system.events("recipient.suppressed")
    assert (told.data["address"], told.data["evidence"]) == (GONE, failed.id)


async def its_sender_by_smtp_is_told(system: System) -> None:
    await system.submit([GONE, "tom@shop.test"], ingress="smtp", sender="me@home.test")
    (seen,) = system.sink.receipts(recipient="me@home.test", at_least=1)
    assert seen.reverse_path == ""
    report = system.sink.content(seen.number)
    assert report.count(b"Final-Recipient:") == report.count(f"; {GONE}\r\n".encode()) == 1
    assert b"Action: failed\r\nStatus: 5.7.1\r\n" in report
    assert b"the address is on the suppression list" in report


async def a_complaint_ends_the_mail(system: System, api: str, intake: int) -> None:
    (receipt,) = system.sink.receipts(recipient=ANN)
    report = ARF.read_bytes().replace(b"b-token@bounces.example.org", receipt.reverse_path.encode())
    assert by_smtp(intake, "", COMPLAINTS, report)[0] == 250
    (complained,) = await system.until_event("recipient.complained", address=ANN)
    entry = listed(api)["ann@shop.test"]
    assert (entry["reason"], entry["origin"], entry["until"]) == ("spam", "complaint", None)
    assert entry["evidence"] == complained.id
    mixed = await system.submit(["ANN@shop.test", "eve@shop.test"])
    assert [item.status for item in mixed.recipients] == ["suppressed", "ready"]
    await system.until(mixed, {"eve@shop.test": "delivered"})


def refused_at_every_door(system: System, api: str, door: int) -> None:
    """A message to nobody else leaves nothing: its sender is told at once."""
    said = {"from": "news@example.org", "to": [ANN], "text": "hello"}
    answer = httpx.post(f"{api}/v1/messages", json=said, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (422, "recipient_suppressed")
    assert answer.json()["errors"][0]["field"] == "to"
    code, text = by_smtp(door, "me@example.org", ANN, b"Subject: hi\r\n\r\nhello\r\n")
    assert code == 550 and text.startswith("5.7.1 ann@shop.test is on the suppression list")
    assert "\n" not in text
    with (
        Relay(system.redis.url, settings=system.settings) as python,
        pytest.raises(SubmissionRefused),
    ):
        python.send(Message(from_="news@example.org", to=ANN, text="hello"))


def counted(api: str, **expected: int) -> None:
    figures = httpx.get(f"{api}/metrics", trust_env=False).text
    for reason, count in expected.items():
        assert f'relay_suppressed_total{{reason="{reason}"}} {float(count)}' in figures


async def who_is_removed_gets_mail_again(system: System, api: str) -> None:
    assert seen(system, ANN) == 1
    asked = relay("suppress", "remove", ANN, api=api)
    assert asked.code == 64 and "called your mail spam" in asked.err
    assert relay("suppress", "remove", ANN, "--yes", api=api).code == 0
    await system.until_delivered(await system.submit([ANN]))
    assert seen(system, ANN) == 2
    (removed,) = await system.events("suppression.removed")
    assert (removed.data["entry"], removed.data["actor"]) == ("ann@shop.test", "http")
