"""Programs ask for reports in fields of their own; what comes of them is what SMTP would say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.ingress.draft import RawMessage, draft_of_message, draft_of_raw
from relay.ingress.message import Message
from relay.ingress.report_fields import ReportFields, dsn_of
from relay.ingress.submit import Prepared, Submitter
from relay.model.dsn import Dsn, RecipientDsn, decode_xtext, is_envid
from relay.model.errors import SubmissionRefused
from relay.policy.route import RouteTable
from relay.settings.schema import Delivery, Settings
from tests.support.acceptor import MemoryAcceptor

SETTINGS = Settings(delivery=Delivery(hostname="relay.example"))
CONTENT = b"From: a@b.test\r\nSubject: x\r\n\r\nhi\r\n"


def prepared(**fields: Any) -> Prepared:
    submitter = Submitter(SETTINGS, MemoryAcceptor(), RouteTable.from_settings(SETTINGS))
    message = Message(from_="a@b.test", to=["c@d.test", "c@d.test", "e@d.test"], text="x", **fields)
    return submitter.prepare(draft_of_message(message, ingress="http", hostname="relay.example"))


def test_message_that_asks_gets_reports_from_any_door() -> None:
    made = prepared(notify=["success", "failure"], report_content="full", envelope_id="order 17")
    asked = (RecipientDsn("SF"),) * 2
    assert made.submission.dsn == Dsn("FULL", "order+2017", asked)
    assert made.submission.wants_dsn
    assert made.submission.delay_notice_after_s == SETTINGS.retry.delay_notice


@pytest.mark.parametrize("fields", [{}, {"notify": ["never"]}, {"envelope_id": "17"}])
def test_message_that_asks_for_none_gets_none_from_doors_with_events(fields: Any) -> None:
    assert not prepared(**fields).submission.wants_dsn


def test_finished_message_asks_by_the_same_fields() -> None:
    fields = ReportFields(("delay",), "headers", "17")
    raw = RawMessage(content=CONTENT, recipients=("c@d.test",), reports=fields)
    assert draft_of_raw(raw, ingress="http").dsn == Dsn("HDRS", "17", (RecipientDsn("D"),))
    raw = RawMessage(content=CONTENT, recipients=("c@d.test",))
    assert draft_of_raw(raw, ingress="http").dsn is None


def test_every_fault_is_told_with_its_field() -> None:
    fields = ReportFields(("never", "delay"), "all", "é")
    raw = RawMessage(content=CONTENT, recipients=("nobody",), reports=fields)
    with pytest.raises(SubmissionRefused) as refused:
        draft_of_raw(raw, ingress="http")
    found = [finding.field for finding in refused.value.findings]
    assert found == ["to[0]", "notify", "report_content", "envelope_id"]


@given(st.text(max_size=120))
def test_envelope_id_comes_through_or_is_refused(text: str) -> None:
    try:
        dsn = dsn_of(ReportFields(envelope_id=text), 1)
    except SubmissionRefused:
        return
    assert dsn is None if not text else dsn is not None
    if dsn is not None:
        assert is_envid(dsn.envid) and decode_xtext(dsn.envid) == text
