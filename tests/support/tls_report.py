"""What RFC 8460 §4.4 demands of a report's JSON, checked field by field."""

import datetime
import ipaddress
from typing import Any

#: §4.3: all result types that there are.
RESULT_TYPES = {
    "starttls-not-supported",
    "certificate-host-mismatch",
    "certificate-expired",
    "certificate-not-trusted",
    "validation-failure",
    "tlsa-invalid",
    "dnssec-invalid",
    "dane-required",
    "sts-policy-fetch-error",
    "sts-policy-invalid",
    "sts-webpki-invalid",
}
_POLICY_TYPES = {"sts", "tlsa", "no-policy-found"}
_DETAILS = {
    "result-type",
    "sending-mta-ip",
    "receiving-mx-hostname",
    "receiving-mx-helo",
    "receiving-ip",
    "failed-session-count",
    "additional-information",
    "failure-reason-code",
}


def check_report(report: dict[str, Any]) -> None:
    """AssertionError where the report is not one of the standard."""
    assert report.keys() == {
        "organization-name",
        "date-range",
        "contact-info",
        "report-id",
        "policies",
    }
    for key in ("organization-name", "contact-info", "report-id"):
        assert isinstance(report[key], str) and report[key], key
    local, at, domain = report["contact-info"].partition("@")
    assert local and at and domain
    start, end = (_moment(report["date-range"][f"{key}-datetime"]) for key in ("start", "end"))
    assert report["date-range"].keys() == {"start-datetime", "end-datetime"}
    assert start.time() == datetime.time(0, 0, 0)
    assert end - start == datetime.timedelta(days=1, seconds=-1)
    assert isinstance(report["policies"], list) and report["policies"]
    for policy in report["policies"]:
        _check_policy(policy)


def _check_policy(found: dict[str, Any]) -> None:
    assert found.keys() <= {"policy", "summary", "failure-details"}
    policy, summary = found["policy"], found["summary"]
    assert policy.keys() == {"policy-type", "policy-string", "policy-domain", "mx-host"}
    assert policy["policy-type"] in _POLICY_TYPES
    assert isinstance(policy["policy-domain"], str) and policy["policy-domain"]
    for key in ("policy-string", "mx-host"):
        assert isinstance(policy[key], list), key
        assert all(isinstance(item, str) for item in policy[key]), key
    assert summary.keys() == {"total-successful-session-count", "total-failure-session-count"}
    assert all(type(count) is int and count >= 0 for count in summary.values())
    details = found["failure-details"]
    assert isinstance(details, list)
    for one in details:
        _check_details(one)
    failed = sum(one["failed-session-count"] for one in details)
    assert summary["total-failure-session-count"] == failed


def _check_details(details: dict[str, Any]) -> None:
    assert {"result-type", "failed-session-count"} <= details.keys() <= _DETAILS
    assert details["result-type"] in RESULT_TYPES
    assert type(details["failed-session-count"]) is int and details["failed-session-count"] > 0
    for key in ("sending-mta-ip", "receiving-ip"):
        if key in details:
            ipaddress.ip_address(details[key])
    texts = details.keys() - {"failed-session-count"}
    assert all(isinstance(details[key], str) and details[key] for key in texts)


def _moment(text: str) -> datetime.datetime:
    assert text.endswith("Z"), text
    return datetime.datetime.fromisoformat(text)
