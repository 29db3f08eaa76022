"""A report that comes to the bounce intake becomes an event, once; a forged one changes nothing."""

import smtplib
from pathlib import Path
from typing import Any

import httpx

from relay.policy.verp import VerpCodec
from tests.support.doors import running_doors
from tests.support.ports import free_port

SECRET = "a secret of more than 16 octets"
CODEC = VerpCodec([SECRET], prefix="b-", lifetime_s=30 * 86400.0)
FOLDER = Path(__file__).parents[1] / "unit" / "data" / "reports"
COMPLAINTS = "complaints@bounces.example.org"
_WAIT_S = 20.0


def fixture(name: str, token: str) -> bytes:
    content = (FOLDER / f"{name}.eml").read_bytes()
    return content.replace(b"b-token@bounces.example.org", token.encode())


def report(port: int, to: str, content: bytes) -> tuple[int, str]:
    """Send a report as servers do, with a null reverse-path; the last reply."""
    with smtplib.SMTP("127.0.0.1", port, timeout=15) as client:
        client.ehlo("mx.example.net")
        code, text = client.mail("")
        assert code == 250, text
        code, text = client.rcpt(to)
        if code == 250:
            code, text = client.data(content)
        return code, text.decode()


def sent(port: int) -> str:
    """Submit a message to two recipients; its queue-id."""
    with smtplib.SMTP("127.0.0.1", port, timeout=15) as client:
        client.ehlo("app.example.org")
        client.mail("news@example.org")
        client.rcpt("ann@example.net")
        client.rcpt("bob@example.net")
        _, text = client.data(b"From: news@example.org\r\nSubject: hi\r\n\r\nhello\r\n")
    return text.decode().rpartition(" ")[2]


def told(http: httpx.Client) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = http.get("/v1/events?limit=1000").json()["events"]
    return [e for e in events if e["type"] in ("recipient.bounced", "recipient.complained")]


def test_reports_become_events_once_and_forged_ones_only_a_figure(tmp_path: Path) -> None:
    with running_doors(tmp_path) as doors:
        doors.environment |= {
            "RELAY_ENVELOPE_VERP_SECRETS": SECRET,
            "RELAY_ENVELOPE_BOUNCE_DOMAIN": "bounces.example.org",
            "RELAY_INTAKE_LISTEN": f"127.0.0.1:{(intake := free_port())}",
            "RELAY_INTAKE_ADDRESSES": COMPLAINTS,
        }
        process, door = doors.start("smtpd")
        queue_id = sent(door)
        ann = CODEC.encode(queue_id, 1, "bounces.example.org")
        bob = CODEC.encode(queue_id, 2, "bounces.example.org")

        bounce = fixture("postfix-user-unknown", ann)
        assert report(intake, ann, bounce)[0] == 250
        assert report(intake, ann, bounce)[0] == 250
        assert report(intake, COMPLAINTS, fixture("arf-rfc5965", bob))[0] == 250
        assert report(intake, bob, fixture("vacation-rfc3834", bob))[0] == 250

        # Whoever has no token is refused; who returns a forged one is not believed.
        forged = ann[:-30] + ("0" if ann[-30] != "0" else "1") + ann[-29:]
        for address in (forged, "ann@example.net", "news@example.org", "b-@bounces.example.org"):
            assert report(intake, address, bounce)[0] == 550
        assert report(intake, COMPLAINTS, fixture("arf-rfc5965", forged))[0] == 250

        # What a door has counted is reported when it ends, if not before.
        process.terminate()
        assert process.wait(_WAIT_S) == 0
        with doors.http() as http:
            bounced, complained = told(http)
            figures = http.get("/metrics").text
        assert bounced["type"] == "recipient.bounced"
        assert bounced["data"]["recipient_id"] == f"{queue_id}.1"
        assert bounced["data"]["reason"] == "no_such_mailbox"
        assert bounced["data"]["reply"]["code"] == 550
        assert complained["type"] == "recipient.complained"
        assert complained["data"]["recipient_id"] == f"{queue_id}.2"
        assert complained["data"]["address"] == "bob@example.net"
        for kind, outcome, count in (
            ("bounce", "new", 1),
            ("bounce", "again", 1),
            ("complaint", "new", 1),
            ("automatic", "ignored", 1),
            ("complaint", "forged", 1),
            ("none", "forged", 4),
        ):
            name = f'relay_incoming_reports_total{{kind="{kind}",outcome="{outcome}"}}'
            assert f"{name} {float(count)}" in figures
