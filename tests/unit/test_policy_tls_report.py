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
    Rua,
    Tally,
    day_of,
    delay_of,
    field_of,
    make_report,
    read_rua,
    result_of,
)
from tests.support.tls_report import check_report

FAILURE = Failure("certificate-expired", "mx1.a.test", "192.0.2.1", "192.0.2.9", "has expired")


STS = Policy("sts", ("version: STSv1", "mode: enforce"), ("mx1.a.test", "*.b.test"))
TLSA = Policy("tlsa", ("3 1 1 00ff",), ("mx2.a.test",))


def report(*more: Tally) -> DomainReport:
    counts = {SUCCESS: 7, field_of(FAILURE): 2, field_of(Failure("starttls-not-supported")): 1}
    return make_report(
        "a.test",
        "2026-11-21",
        [Tally(STS, counts), *more],
        organization="relay.example",
        contact="postmaster@relay.example",
    )


@pytest.mark.parametrize(
    ("texts", "addresses", "urls"),
    [
        (["v=TLSRPTv1; rua=mailto:tls@a.test"], ("tls@a.test",), ()),
        (
            ["v=TLSRPTv1;rua=mailto:tls@a.test,MAILTO:b@c.test;"],
            ("tls@a.test", "b@c.test"),
            (),
        ),
        (
            ["v=TLSRPTv1; rua=https://a.test/r,mailto:tls@a.test"],
            ("tls@a.test",),
            ("https://a.test/r",),
        ),
        (["v=spf1 -all", "v=TLSRPTv1; rua=mailto:tls@a.test"], ("tls@a.test",), ()),
        (["v=TLSRPTv1; rua=https://a.test/r,https://a.test/r"], (), ("https://a.test/r",)),
        (["v=TLSRPTv1; rua=HTTPS://A.test:443"], (), ("https://a.test/",)),
        (["v=TLSRPTv1; rua=https://a.test:8443/r?x=1"], (), ("https://a.test:8443/r?x=1",)),
        (["v=TLSRPTv1; rua=http://a.test/r"], (), ()),
        (["v=TLSRPTv1; rua=https://me:secret@a.test/r"], (), ()),
        (["v=TLSRPTv1; rua=https://a.test/r#part"], (), ()),
        (["v=TLSRPTv1; rua=https://a.test:0/"], (), ()),
        (["v=TLSRPTv1; rua=https://a.test:99999/"], (), ()),
        (["v=TLSRPTv1; rua=https://[::1]/r,https://10.0.0.1/r"], (), ()),
        (["v=TLSRPTv1; rua=https:///r"], (), ()),
        (["v=TLSRPTv1; rua=https://a.test/r\r\nHost: b.test"], (), ()),
        (["v=TLSRPTv1; rua=https://a.test/" + "r" * 600], (), ()),
        (["v=TLSRPTv1; rua=mailto:not an address"], (), ()),
        (["v=TLSRPTv1; rua=mailto:a@b.test\r\nBcc: c@d.test"], (), ()),
        (["v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:c@d.test"], (), ()),
        (["v=TLSRPTv2; rua=mailto:a@b.test"], (), ()),
        (["v=TLSRPTv1;"], (), ()),
        ([], (), ()),
    ],
)
def test_record_names_who_wants_reports(
    texts: list[str], addresses: tuple[str, ...], urls: tuple[str, ...]
) -> None:
    rua = read_rua(texts)
    assert rua == Rua(addresses, urls)
    assert bool(rua) is bool(addresses or urls)


def test_record_with_many_addresses_costs_few_reports() -> None:
    many = ",".join(f"mailto:a{number}@b.test,https://b.test/{number}" for number in range(1000))
    rua = read_rua([f"v=TLSRPTv1; rua={many}"])
    assert len(rua.addresses) + len(rua.urls) == 5


def test_reports_are_made_minutes_to_hours_after_midnight_and_not_all_at_once() -> None:
    delays = {delay_of(f"{number}.test") for number in range(200)}
    assert len(delays) > 190
    assert all(300 <= delay <= 300 + 4 * 3600 for delay in delays)
    assert max(delays) - min(delays) > 3 * 3600
    assert delay_of("a.test") == delay_of("a.test")


def test_policy_of_a_report_is_bounded_whatever_the_domain_publishes() -> None:
    kept = Policy("tlsa", ("x" * 2000, *["3 1 1 00"] * 500), tuple(["mx.a.test"] * 500)).cut()
    assert (kept.type, len(kept.lines), len(kept.hosts)) == ("tlsa", 64, 64)
    assert set(kept.lines) == {"3 1 1 00"}


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


def test_report_passes_the_standards_check_whatever_was_counted() -> None:
    sparse = Tally(Policy("sts"), {field_of(Failure("sts-policy-invalid", reason="no mx")): 3})
    whole = report(Tally(TLSA, {SUCCESS: 1}), sparse, Tally(Policy(), {}))
    octets = msgspec.json.encode(whole)
    check_report(json.loads(octets))
    assert [one["policy"]["policy-type"] for one in json.loads(octets)["policies"]] == [
        "sts",
        "tlsa",
        "sts",
        "no-policy-found",
    ]


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
    assert message["TLS-Required"] == "No"
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
