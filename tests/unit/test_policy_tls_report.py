"""TLS reports: who wants them, what a failure is called, and the JSON of RFC 8460."""

import email
import gzip
import json
from email import policy as email_policy

import msgspec
import pytest

from relay.delivery.tls_report_mail import compose_tls_report
from relay.model.address import parse_address
from relay.policy.tls_report import (
    SUCCESS,
    DomainReport,
    Failure,
    Policy,
    day_of,
    field_of,
    make_report,
    read_rua,
    result_of,
)

FAILURE = Failure("certificate-expired", "mx1.a.test", "192.0.2.1", "192.0.2.9", "has expired")


def report() -> DomainReport:
    return make_report(
        "a.test",
        "2026-11-21",
        {SUCCESS: 7, field_of(FAILURE): 2, field_of(Failure("starttls-not-supported")): 1},
        Policy("sts", ("version: STSv1", "mode: enforce"), ("mx1.a.test", "*.b.test")),
        organization="relay.example",
        contact="postmaster@relay.example",
        report_id="2026-11-21.a.test",
    )


@pytest.mark.parametrize(
    ("texts", "addresses"),
    [
        (["v=TLSRPTv1; rua=mailto:tls@a.test"], ("tls@a.test",)),
        (["v=TLSRPTv1;rua=mailto:tls@a.test,MAILTO:b@c.test;"], ("tls@a.test", "b@c.test")),
        (["v=TLSRPTv1; rua=https://a.test/r,mailto:tls@a.test"], ("tls@a.test",)),
        (["v=spf1 -all", "v=TLSRPTv1; rua=mailto:tls@a.test"], ("tls@a.test",)),
        (["v=TLSRPTv1; rua=https://a.test/r"], ()),
        (["v=TLSRPTv1; rua=mailto:not an address"], ()),
        (["v=TLSRPTv1; rua=mailto:a@b.test\r\nBcc: c@d.test"], ()),
        (["v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:c@d.test"], ()),
        (["v=TLSRPTv2; rua=mailto:a@b.test"], ()),
        (["v=TLSRPTv1;"], ()),
        ([], ()),
    ],
)
def test_record_names_the_addresses_that_want_reports(
    texts: list[str], addresses: tuple[str, ...]
) -> None:
    assert read_rua(texts) == addresses


def test_record_with_many_addresses_costs_few_reports() -> None:
    many = ",".join(f"mailto:a{number}@b.test" for number in range(1000))
    assert len(read_rua([f"v=TLSRPTv1; rua={many}"])) == 5


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ("certificate not accepted: certificate has expired", "certificate-expired"),
        ("certificate not accepted: self-signed certificate", "certificate-not-trusted"),
        (
            "certificate not accepted: unable to get local issuer certificate",
            "certificate-not-trusted",
        ),
        (
            "certificate not accepted: Hostname mismatch, certificate is not valid for 'a.test'.",
            "certificate-host-mismatch",
        ),
        (
            "certificate not accepted: the certificate is not for mx.a.test",
            "certificate-host-mismatch",
        ),
        ("TLS handshake failed: wrong version number", "validation-failure"),
        (
            "certificate not accepted: no TLSA record stands for the server's certificate",
            "validation-failure",
        ),
    ],
)
def test_failure_is_told_by_the_word_of_the_standard(words: str, result: str) -> None:
    assert result_of(words) == result


def test_report_has_the_shape_of_the_standard() -> None:
    assert json.loads(msgspec.json.encode(report())) == {
        "organization-name": "relay.example",
        "date-range": {
            "start-datetime": "2026-11-21T00:00:00Z",
            "end-datetime": "2026-11-21T23:59:59Z",
        },
        "contact-info": "postmaster@relay.example",
        "report-id": "2026-11-21.a.test",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: enforce"],
                    "policy-domain": "a.test",
                    "mx-host": ["mx1.a.test", "*.b.test"],
                },
                "summary": {
                    "total-successful-session-count": 7,
                    "total-failure-session-count": 3,
                },
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "failed-session-count": 2,
                        "sending-mta-ip": "192.0.2.9",
                        "receiving-mx-hostname": "mx1.a.test",
                        "receiving-ip": "192.0.2.1",
                        "failure-reason-code": "has expired",
                    },
                    {"result-type": "starttls-not-supported", "failed-session-count": 1},
                ],
            }
        ],
    }


def test_message_carries_the_report_as_the_standard_asks() -> None:
    to = parse_address("tls@a.test")
    message_id, content = compose_tls_report(
        report(), "a.test", to, hostname="relay.example", now=1_800_000_000.0
    )
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    assert b"\n" not in content.replace(b"\r\n", b"")
    message = email.message_from_bytes(content, policy=email_policy.SMTP)
    assert not message.defects
    assert message["Message-ID"] == message_id
    assert [one.addr_spec for one in message["To"].addresses] == ["tls@a.test"]
    assert message["From"].addresses[0].addr_spec == "postmaster@relay.example"
    assert message["TLS-Report-Domain"] == "a.test"
    assert message["TLS-Report-Submitter"] == "relay.example"
    assert message["Subject"] == (
        "Report Domain: a.test Submitter: relay.example "
        "Report-ID: <2026-11-21.a.test@relay.example>"
    )
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "tlsrpt"
    text, attached = message.iter_parts()
    assert "7 went well, 3 failed" in text.get_content()
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    name = attached.get_filename()
    assert name.startswith("relay.example!a.test!1795219200!1795305599!")
    assert name.endswith(".json.gz")
    octets = gzip.decompress(attached.get_content())
    assert msgspec.json.decode(octets, type=DomainReport) == report()


def test_day_is_one_of_utc() -> None:
    assert day_of(1795219200.0) == "2026-11-21"
    assert day_of(1795219199.9) == "2026-11-20"
