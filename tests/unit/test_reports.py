"""Who is told what by mail: NOTIFY against what came of a recipient (RFC 3461 §5.2)."""

import email
import email.policy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.reports import with_reports
from relay.model.dsn import RecipientDsn
from relay.model.message import ClaimedMessage, ClaimedRecipient, Outcome, Submission
from relay.model.reply import Reply
from relay.model.state import State
from relay.model.verdict import Scope, Severity, Verdict
from relay.policy.route import RouteTable
from relay.settings.schema import Reports, Settings


class Postmaster(msgspec.Struct, frozen=True):
    """A host that writes reports."""

    hello_name: str
    routes: RouteTable
    settings: Settings


SETTINGS = Settings(reports=Reports(per_sender=7))
US = Postmaster("relay.example", RouteTable.from_settings(SETTINGS), SETTINGS)

TAKEN = Reply(250, "2.6.0", ("queued as 1",), "end-of-data")
REFUSED = Reply(550, "5.1.1", ("nobody",), "RCPT")
VERDICTS = {
    State.DELIVERED: Verdict(Severity.SUCCESS, Scope.MESSAGE, "delivered", "Taken.", TAKEN),
    State.FAILED: Verdict(Severity.PERMANENT, Scope.RECIPIENT, "no_such_mailbox", "No.", REFUSED),
    State.EXPIRED: Verdict(Severity.TRANSIENT, Scope.HOST, "connect_failed", "Nobody there."),
    State.DEFERRED: Verdict(Severity.TRANSIENT, Scope.RECIPIENT, "greylisted", "Later."),
    State.READY: Verdict(Severity.TRANSIENT, Scope.LOCAL, "given_back", "Later."),
}


def message(*notify: str, **more: Any) -> ClaimedMessage:
    """A message by SMTP whose recipients asked this."""
    recipients = tuple(
        ClaimedRecipient(
            number, f"r{number}@x.test", "x.test", 1, 0, "t||x.test", RecipientDsn(asked)
        )
        for number, asked in enumerate(notify, 1)
    )
    values: dict[str, Any] = {
        "queue_id": "01J",
        "reverse_path": "me@home.test",
        "recipients": recipients,
        "content": b"Subject: hi\r\n\r\nbody\r\n",
        "size": 20,
        "created": 1e9,
        "expires": 2e9,
        "message_id": "<1@home.test>",
        "mail_class": "transactional",
        "tenant": "default",
        "campaign": "",
        "wants_dsn": True,
    }
    return ClaimedMessage(**values | more)


def outcome(number: int, state: State, *, success: str = "relayed", **more: Any) -> Outcome:
    values: dict[str, Any] = {
        "verdict": VERDICTS[state],
        "event": {"address": f"r{number}@x.test", "remote": {"host": "mx.x.test"}},
    }
    return Outcome(
        queue_id="01J",
        number=number,
        attempt=1,
        state=state,
        success_action=success,
        **values | more,
    )


def told(report: Submission) -> dict[str, str]:
    """Action by address, of a report."""
    parsed = email.message_from_bytes(report.content, policy=email.policy.default)
    _, machine, _ = parsed.iter_parts()
    _, *blocks = machine.get_payload()
    return {str(item["Final-Recipient"])[8:]: str(item["Action"]) for item in blocks}


def actions(outcomes: list[Outcome], about: ClaimedMessage) -> dict[str, str]:
    groups = with_reports(outcomes, [about], US)
    assert sorted(id(item) for part, _ in groups for item in part) == sorted(map(id, outcomes))
    return {k: v for _, reports in groups for item in reports for k, v in told(item).items()}


#: What a recipient that asked this is told of, for each end: by whom DSN is not offered, offered.
EXPECTED = {
    "": ("", "", "failed"),
    "N": ("", "", ""),
    "S": ("relayed", "", ""),
    "F": ("", "", "failed"),
    "D": ("", "", ""),
    "SF": ("relayed", "", "failed"),
    "SFD": ("relayed", "", "failed"),
    "FD": ("", "", "failed"),
}


@pytest.mark.parametrize("notify", EXPECTED)
def test_notify_decides_what_is_told(notify: str) -> None:
    not_offered, offered, failed = EXPECTED[notify]
    about = message(notify)
    cases = [
        (outcome(1, State.DELIVERED), not_offered),
        (outcome(1, State.DELIVERED, success=""), offered),
        (outcome(1, State.FAILED), failed),
        (outcome(1, State.FAILED, success=""), failed),
        (outcome(1, State.EXPIRED), failed),
        (outcome(1, State.DEFERRED), ""),
        (outcome(1, State.READY), ""),
    ]
    for end, action in cases:
        expected = {"r1@x.test": action} if action else {}
        assert actions([end], about) == expected, end.state


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(EXPECTED)),
            st.sampled_from(list(VERDICTS)),
            st.sampled_from(["", "relayed"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_each_recipient_is_told_of_as_if_he_were_the_only_one(
    cases: list[tuple[str, State, str]],
) -> None:
    about = message(*(notify for notify, _, _ in cases))
    outcomes = [
        outcome(number, state, success=success)
        for number, (_, state, success) in enumerate(cases, 1)
    ]
    expected: dict[str, str] = {}
    for item in outcomes:
        expected |= actions([item], about)
    assert actions(outcomes, about) == expected


@pytest.mark.parametrize("more", [{"reverse_path": ""}, {"wants_dsn": False}])
def test_nobody_is_told_without_a_return_address_or_where_no_report_is_due(
    more: dict[str, Any],
) -> None:
    about = message("SFD", "", **more)
    outcomes = [outcome(1, State.DELIVERED), outcome(2, State.FAILED)]
    assert actions(outcomes, about) == {}


def test_assumed_delivery_is_no_success() -> None:
    lost = Verdict(Severity.TRANSIENT, Scope.MESSAGE, "uncertain", "No reply.", uncertain=True)
    assert actions([outcome(1, State.DELIVERED, verdict=lost)], message("S")) == {}


def test_report_is_bounded_and_has_a_null_reverse_path() -> None:
    ((_, [report]),) = with_reports([outcome(1, State.FAILED)], [message("")], US)
    assert report.reverse_path is None and not report.wants_dsn
    assert [str(path) for path in report.forward_paths] == ["me@home.test"]
    assert (report.reports_on, report.hourly_limit) == ("01J", 7)


def test_report_of_success_tells_the_reply_and_by_whom() -> None:
    ((_, [report]),) = with_reports([outcome(1, State.DELIVERED)], [message("S", envid="Q+2B")], US)
    text = report.content.decode()
    for line in (
        "Original-Envelope-Id: Q+",
        "Action: relayed",
        "Status: 2.6.0",
        "Remote-MTA: dns; mx.x.test",
        "Diagnostic-Code: smtp; 250 2.6.0 queued as 1",
    ):
        assert f"\r\n{line}\r\n" in text


def test_last_host_on_the_way_makes_it_delivered() -> None:
    assert actions([outcome(1, State.DELIVERED, success="delivered")], message("S")) == {
        "r1@x.test": "delivered"
    }
