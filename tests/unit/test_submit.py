"""The single door: what is refused, what is added, how class, expiry and destination are chosen."""

from typing import Any

import dkim
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.ingress.draft import RawMessage, draft_of_raw
from relay.ingress.labels import Labels
from relay.ingress.submit import Draft, Submitter
from relay.ingress.trace import Origin
from relay.model.address import Address, parse_address
from relay.model.errors import MessageTooLarge, SubmissionRefused
from relay.model.message import Submission
from relay.policy.route import RouteTable
from relay.settings.schema import Delivery, Headers, Limits, Route, Settings
from relay.smtp.dkim import SigningRules, sign
from relay.smtp.dkim_key import make_key
from tests.support.acceptor import MemoryAcceptor

SETTINGS = Settings(
    delivery=Delivery(hostname="relay.example"),
    limits=Limits(message_size=10_000, recipients=5),
    routes=(Route(domain=".corp.test", smarthost="smtp://hub.test", name="hub"),),
)
ANN = parse_address("ann@gmail.test")
HEADER = b"From: a@example.org\r\nTo: ann@gmail.test\r\n"


def draft(content: bytes = HEADER + b"\r\nhi\r\n", *to: Address, **more: Any) -> Draft:
    fields: dict[str, Any] = {
        "reverse_path": parse_address("a@example.org"),
        "forward_paths": to or (ANN,),
        "content": content,
        "ingress": "smtp",
        "origin": Origin("ESMTP", "client.test", "192.0.2.1"),
        **more,
    }
    return Draft(**fields)


def prepared(*args: Any, **more: Any) -> Submission:
    submitter = Submitter(SETTINGS, MemoryAcceptor(), RouteTable.from_settings(SETTINGS))
    return submitter.prepare(draft(*args, **more), now=1795237006.0).submission


def codes(*args: Any, **more: Any) -> list[str]:
    with pytest.raises(SubmissionRefused) as refused:
        prepared(*args, **more)
    return [finding.code for finding in refused.value.findings]


def test_trace_fields_stand_on_top_with_the_queue_id() -> None:
    made = prepared()
    lines = made.content.split(b"\r\n")
    assert lines[0] == b"Received: from client.test ([192.0.2.1])"
    assert lines[1] == f"\tby relay.example (relay) with ESMTP id {made.queue_id};".encode()
    assert lines[2] == b"\tSat, 21 Nov 2026 04:56:46 +0000"
    assert lines[3] == b"Date: Sat, 21 Nov 2026 04:56:46 +0000"
    assert lines[4] == f"Message-ID: <{made.queue_id}@relay.example>".encode()
    assert made.message_id == f"<{made.queue_id}@relay.example>"
    assert made.content.endswith(HEADER + b"\r\nhi\r\n")


def test_date_and_message_id_of_the_sender_stay() -> None:
    header = HEADER + b"Date: Fri, 20 Nov 2026 00:00:00 +0000\r\nMessage-ID:\r\n <mine@x>\r\n"
    made = prepared(header + b"\r\nhi\r\n")
    assert made.message_id == "<mine@x>"
    assert made.content.count(b"Date:") == made.content.count(b"Message-ID:") == 1


def with_feedback_id(*args: Any, **more: Any) -> bytes:
    settings = Settings(headers=Headers("{campaign}:{class}:acme1"))
    submitter = Submitter(settings, MemoryAcceptor(), RouteTable())
    return submitter.prepare(draft(*args, **more)).submission.content


def test_feedback_id_is_added_by_campaign_and_class_where_it_is_asked_for() -> None:
    labels = Labels(mail_class="bulk", campaign="spring")
    assert b"\r\nFeedback-ID: spring:bulk:acme1\r\n" in with_feedback_id(labels=labels)
    assert b"Feedback-ID" not in prepared(labels=labels).content


def test_feedback_id_of_the_sender_stays_and_a_report_gets_none() -> None:
    given = with_feedback_id(HEADER + b"FEEDBACK-ID: mine:own01\r\n\r\nhi\r\n")
    assert given.lower().count(b"feedback-id:") == 1 and b"mine:own01" in given
    assert b"Feedback-ID" not in with_feedback_id(reverse_path=None)


def test_hello_name_cannot_write_into_the_header() -> None:
    made = prepared(origin=Origin("ESMTP", "a)\r\nBcc: x (é", "::1"))
    assert b"Received: from a???Bcc:?x??? ([IPv6:::1])\r\n\tby" in made.content


def test_bcc_and_what_a_receiver_writes_are_removed() -> None:
    header = HEADER + b"Bcc: x@y.z,\r\n z@y.x\r\nReturn-Path: <evil@x>\r\nResent-Bcc: q@r.s\r\n"
    made = prepared(header + b"\r\nBcc: in the body\r\n")
    assert made.content.endswith(HEADER + b"\r\nBcc: in the body\r\n")


def test_line_ends_become_crlf_and_the_last_line_ends() -> None:
    made = prepared(b"From: a@b.test\nSubject: x\n\nbare\rcr\nlf")
    assert made.content.endswith(b"From: a@b.test\r\nSubject: x\r\n\r\nbare\r\ncr\r\nlf\r\n")


def test_recipients_are_collapsed_and_grouped_by_route() -> None:
    bob, eve = parse_address("bob@a.corp.test"), parse_address("eve@b.corp.test")
    made = prepared(HEADER + b"\r\n", ANN, bob, ANN, eve)
    assert made.forward_paths == (ANN, bob, eve)
    assert made.destinations == ("gmail.test", "[hub]", "[hub]")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"List-Unsubscribe: <https://x.test>\r\n", "bulk"),
        (b"Precedence: Bulk\r\n", "bulk"),
        (b"Precedence: first-class\r\n", "transactional"),
        (b"", "transactional"),
    ],
)
def test_class_follows_the_header_unless_said(field: bytes, expected: str) -> None:
    content = HEADER + field + b"\r\n"
    made = prepared(content)
    assert made.mail_class == expected
    retry = SETTINGS.retry
    assert made.expires_after_s == getattr(retry, f"expire_{expected}")
    assert (
        prepared(content, labels=Labels(mail_class="transactional")).mail_class == "transactional"
    )
    assert prepared(content, labels=Labels(mail_class="bulk")).mail_class == "bulk"


def test_dsns_are_for_senders_by_smtp() -> None:
    assert prepared().wants_dsn
    assert prepared().delay_notice_after_s == SETTINGS.retry.delay_notice
    assert not prepared(ingress="http").wants_dsn
    assert prepared(ingress="http").delay_notice_after_s == 0


def test_labels_in_the_header_are_read_and_taken_out() -> None:
    header = (
        b"X-Relay-Campaign: autumn\r\nX-Relay-Tag: a, b\r\nX-Relay-Tag: c\r\n"
        b"X-Relay-Metadata-User: 42\r\nX-Relay-Class: bulk\r\nX-Relay-Idempotency-Key: k\r\n"
    )
    made = prepared(header + HEADER + b"\r\n")
    assert (made.campaign, made.tags, made.metadata) == ("autumn", ("a", "b", "c"), {"user": "42"})
    assert (made.mail_class, made.idempotency_key) == ("bulk", "k")
    assert len(made.digest) == 64
    assert b"X-Relay" not in made.content
    assert made.content.endswith(HEADER + b"\r\n")


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        (Labels(campaign="a b"), "campaign_invalid"),
        (Labels(campaign="a|b"), "campaign_invalid"),
        (Labels(mail_class="urgent"), "class_unknown"),
        (Labels(tags=("",)), "tag_invalid"),
        (Labels(tags=("x\n",)), "tag_invalid"),
        (Labels(tags=("x",) * 21), "too_many_tags"),
        (Labels(metadata={"a b": "x"}), "metadata_key_invalid"),
        (Labels(metadata={"a": "x" * 513}), "metadata_value_invalid"),
        (Labels(idempotency_key="é"), "idempotency_key_invalid"),
        (Labels(idempotency_key="k" * 257), "idempotency_key_invalid"),
    ],
)
def test_label_that_does_not_hold_refuses_the_message(labels: Labels, code: str) -> None:
    assert codes(labels=labels) == [code]


def test_digest_tells_the_same_request_from_another() -> None:
    key = Labels(idempotency_key="k")
    first = prepared(labels=key).digest
    assert prepared(labels=key).digest == first
    assert prepared(HEADER + b"\r\nother\r\n", labels=key).digest != first
    assert prepared(HEADER + b"\r\nhi\r\n", parse_address("b@x.y"), labels=key).digest != first
    assert prepared().digest == ""


def test_limits_are_refused_before_anything_else() -> None:
    with pytest.raises(MessageTooLarge):
        prepared(b"x" * 10_001)
    many = [parse_address(f"u{number}@x.test") for number in range(6)]
    assert codes(HEADER + b"\r\n", *many) == ["too_many_recipients"]
    assert codes(forward_paths=()) == ["recipients_missing"]


def test_missing_from_is_put_in_where_mail_clients_speak() -> None:
    made = prepared(b"Subject: x\r\n\r\nhi\r\n")
    assert b"\r\nFrom: a@example.org\r\n" in made.content
    assert codes(b"Subject: x\r\n\r\nhi\r\n", ingress="http") == ["from.count"]


@pytest.mark.parametrize("content", [b"", b"\r\n", b"just text\r\n", b"\r\n\r\nbody\r\n"])
def test_message_without_header_is_taken_by_smtp(content: bytes) -> None:
    made = prepared(content)
    header, _, body = made.content.partition(b"\r\n\r\n")
    assert b"From: a@example.org" in header
    assert body == (content.removeprefix(b"\r\n") if content.strip() else b"")


@pytest.mark.client_row("C59")
def test_two_from_fields_a_nul_and_a_loop_are_refused() -> None:
    assert codes(b"From: a@b.c\r\nFrom: d@e.f\r\n\r\n") == ["from.count"]
    assert codes(HEADER + b"\r\na\0b\r\n") == ["body.nul"]
    assert codes(b"Received: x\r\n" * 50 + HEADER + b"\r\n") == ["routing.loop"]
    assert prepared(b"Received: x\r\n" * 49 + HEADER + b"\r\n")


@pytest.mark.client_row("C60")
def test_long_lines_pass_with_a_warning() -> None:
    submitter = Submitter(SETTINGS, MemoryAcceptor(), RouteTable())
    found = submitter.prepare(draft(HEADER + b"\r\n" + b"x" * 2000 + b"\r\n")).warnings
    assert [finding.code for finding in found] == ["line.too_long"]


def test_8bit_and_smtputf8_are_found_where_they_are_needed() -> None:
    plain = prepared()
    assert not plain.is_8bit and not plain.needs_smtputf8
    body = prepared(HEADER + "\r\ngrüße\r\n".encode())
    assert body.is_8bit and not body.needs_smtputf8
    header = HEADER + "Subject: grüße\r\n\r\n".encode()
    assert prepared(header).needs_smtputf8
    assert not prepared(header, accepts_smtputf8=False).needs_smtputf8
    assert prepared(HEADER + b"\r\n", parse_address("jörg@x.test")).needs_smtputf8


def test_raw_message_takes_its_envelope_from_the_header() -> None:
    raw = RawMessage(
        content=b"From x\nFrom: Ann <ann@x.test>\nTo: Bob <bob@y.test>, c@z.test\n"
        b"Cc: d@z.test\nBcc: e@z.test\n\nhi\n",
        recipients=("first@x.test",),
        recipients_from_header=True,
    )
    made = draft_of_raw(raw, ingress="http")
    assert str(made.reverse_path) == "ann@x.test"
    assert [str(path) for path in made.forward_paths] == [
        "first@x.test",
        "bob@y.test",
        "c@z.test",
        "d@z.test",
        "e@z.test",
    ]


@pytest.mark.parametrize("content", [b"no message", b"", b"\xff\xfe", b"a b c\n\nbody\n"])
def test_raw_message_that_is_none_is_refused_with_the_reason(content: bytes) -> None:
    with pytest.raises(SubmissionRefused) as refused:
        draft_of_raw(RawMessage(content=content, recipients=("a@b.test",)), ingress="http")
    (finding,) = refused.value.findings
    assert finding.code == "header.malformed"
    assert "RFC 5322" in finding.message


@pytest.mark.parametrize(
    "content", [HEADER, HEADER[:-2], HEADER + b"Bcc: x@y.test", HEADER + b"\r\n"]
)
@pytest.mark.parametrize("ingress", ["smtp", "http"])
def test_header_alone_is_stored_with_the_empty_line_that_ends_it(
    content: bytes, ingress: str
) -> None:
    made = prepared(content, ingress=ingress).content
    assert made.endswith(b"\r\nTo: ann@gmail.test\r\n\r\n") and made.count(b"\r\n\r\n") == 1
    key = make_key("example.org", "e1", "ed25519")
    signed = sign(made, [key], SigningRules(), now=1795237006.0) + made
    assert dkim.verify(signed, dnsfunc=lambda name, timeout=5: key.record.encode())


@given(
    st.lists(st.sampled_from([b"A: b", b"\r\n", b"\n", b"\r", b" ", b"x", b"\xff"])).map(b"".join)
)
def test_whatever_is_taken_by_smtp_has_an_end_of_its_header(content: bytes) -> None:
    made = prepared(content).content
    header, end, _ = made.partition(b"\r\n\r\n")
    assert end and b"Received: " in header
