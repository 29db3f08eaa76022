"""A real MTA understands what we ask of reports, and we what it asks (RFC 3461 §5.2)."""

import email
import email.policy
import smtplib
from email.message import EmailMessage

import pytest

from tests.support.ports import free_port
from tests.support.postfix import SINK_DOMAIN, neighbour_postfix, why_not
from tests.support.system import System
from tests.system.conftest import Start

ROUTES = f"""
[[routes]]
domain = "{SINK_DOMAIN}"
smarthost = "smtp://127.0.0.1:PORT"
tls = "off"
"""


def send(port: int, envelope_id: str, to: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("me.test")
        assert client.mail("me@home.test", ["RET=HDRS", f"ENVID={envelope_id}"])[0] == 250
        parameters = ["NOTIFY=SUCCESS,FAILURE", f"ORCPT=rfc822;{envelope_id}+2Bold@old.test"]
        assert client.rcpt(to, parameters)[0] == 250
        assert client.data("Subject: hi\r\n\r\nbody\r\n")[0] == 250


def reports(system: System, at_least: int) -> dict[str, dict[str, str]]:
    """The fields of each report that came, by the envelope id that came back."""
    found = {}
    for receipt in system.sink.receipts(recipient="me@home.test", at_least=at_least, timeout_s=30):
        assert receipt.reverse_path == ""
        content = system.sink.content(receipt.number)
        report = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(report, EmailMessage)
        _, machine, _ = report.iter_parts()
        message, about = machine.get_payload()
        found[message["Original-Envelope-Id"]] = {**message, **about}
    return found


@pytest.mark.skipif(bool(why_not()), reason=why_not())
async def test_parameters_go_to_postfix_and_come_from_it(start: Start) -> None:
    port = free_port()
    system = await start(RELAY_CONFIG=ROUTES.replace("PORT", str(port)))
    listener = system.start_smtpd()
    with neighbour_postfix(port=port, receiver=("127.0.0.1", listener)):
        # We pass the wish on, Postfix delivers, and its report comes back through us.
        send(listener, "ours", f"ann@{SINK_DOMAIN}")
        # Postfix passes the wish on, the receiver knows no DSN, and the report is ours.
        send(port, "its", "ann@shop.test")
        found = reports(system, 2)
    assert {name: fields["Action"] for name, fields in found.items()} == {
        "ours": "delivered",
        "its": "relayed",
    }
    assert found["ours"]["Reporting-MTA"] == "dns; postfix.example"
    assert found["its"]["Reporting-MTA"] == "dns; relay.example"
    for name, fields in found.items():
        assert fields["Original-Recipient"].replace(" ", "") == f"rfc822;{name}+old@old.test"
