"""The minimum of a message at the door (RFC 5322 §2.1.1, §3.6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.lint import HEADER_OCTETS, LINE_OCTETS, lint

GOOD = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: x\r\n\r\nHello\r\n"


def codes(content: bytes) -> list[str]:
    return [finding.code for finding in lint(content)]


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        b"From: a@example.org\r\n\r\n",
        b"From: a@example.org\r\n",
        b"From: a@example.org",
        b"from : a@example.org\r\n\r\nx",
        b"From:\r\n a@example.org\r\n\r\nx",
        b"From: a@example.org\r\nSubject: x\r\n\tFrom: folded\r\n\r\nFrom: body\r\nFrom: body\r\n",
        b"From: a@example.org\r\nReceived: x\r\nReceived: y\r\nComments: a\r\nComments: b\r\n\r\n",
        b"From: a@example.org\r\n\r\nno colon here\r\n",
        b"From: a@example.org\r\nX: " + b"x" * (LINE_OCTETS - 3) + b"\r\n\r\n",
        b"From: \xc3\xa9@example.org\r\n\r\n\xff\r\n",
    ],
)
def test_message_in_order_has_no_findings(content: bytes) -> None:
    assert codes(content) == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "from.count"),
        (b"To: b@example.org\r\n\r\nx", "from.count"),
        (b"\r\nFrom: a@example.org\r\n", "from.count"),
        (b"From: a@example.org\r\nfrom: b@example.org\r\n\r\n", "from.count"),
        (b"From:\r\n\r\nx", "from.empty"),
        (b"To: x\r\nFrom:  \r\n \r\nSubject: x\r\n\r\n", "from.empty"),
        (b"From: a\r\nSubject: x\r\nSUBJECT: y\r\n\r\n", "header.duplicate"),
        (b"From: a\r\nMessage-ID: x\r\nMessage-Id: y\r\n\r\n", "header.duplicate"),
        (b"From: a\r\nContent-Type: x\r\nContent-Type: y\r\n\r\n", "header.duplicate"),
        (b"From: a\r\nno colon\r\n\r\n", "header.malformed"),
        (b"From a@example.org Mon\r\nFrom: a\r\n\r\n", "header.malformed"),
        (b" folded: first\r\nFrom: a\r\n\r\n", "header.malformed"),
        (b"From: a\r\nSub\xc3\xa9: x\r\n\r\n", "header.malformed"),
        (b"From: a\r\n: x\r\n\r\n", "header.malformed"),
        (b"From: a\r\n\r\n" + b"x" * (LINE_OCTETS + 1) + b"\r\n", "line.too_long"),
        (b"From: a\r\nX: " + b"x" * LINE_OCTETS + b"\r\n\r\n", "line.too_long"),
        (b"From: a\r\n" + b"X: x\r\n" * (HEADER_OCTETS // 6 + 1) + b"\r\n", "header.too_large"),
        (b"From: a\r\n\r\nx\ny\r\n", "body.bare_cr_lf"),
        (b"From: a\r\n\r\nx\ry\r\n", "body.bare_cr_lf"),
        (b"From: a\r\n\r\nx\n\ry\r\n", "body.bare_cr_lf"),
        (b"From: a\r\n\r\nx\0y\r\n", "body.nul"),
        (b"Received: x\r\n" * 50 + b"From: a\r\n\r\n", "routing.loop"),
    ],
)
def test_fault_of_a_message_is_found(content: bytes, code: str) -> None:
    assert codes(content) == [code]


def test_forty_nine_servers_are_no_loop() -> None:
    assert codes(b"Received: x\r\n" * 49 + b"From: a\r\n\r\n") == []


def test_finding_says_what_is_wrong_and_how_to_mend_it() -> None:
    [finding] = lint(b"To: b@example.org\r\n\r\nx")
    assert str(finding) == "from: the message has no From fields (give exactly one)"


def test_finding_shows_no_raw_control_characters() -> None:
    [finding] = lint(b"From: a\r\n\x1b[31mred\r\n\r\n")
    assert "\x1b" not in str(finding)


@given(st.lists(st.integers(0, 2100), max_size=6), st.booleans())
def test_long_line_is_found_wherever_it_stands(lengths: list[int], ends: bool) -> None:
    lines = [b"From: a", b"", *(b"x" * length for length in lengths)]
    content = b"\r\n".join(lines) + (b"\r\n" if ends else b"")
    longest = max(lengths, default=0)
    assert ("line.too_long" in codes(content)) is (longest > LINE_OCTETS)


@given(st.binary(max_size=300))
def test_lint_is_total_and_its_findings_are_printable(content: bytes) -> None:
    for finding in lint(content):
        assert str(finding).isprintable()
        assert finding.fix


@given(st.lists(st.sampled_from([b"From: a", b"X: y", b" fold", b"", b"bad", b"\r", b"\n", b"."])))
def test_lint_never_fails_on_odd_structure(lines: list[bytes]) -> None:
    lint(b"\r\n".join(lines))
