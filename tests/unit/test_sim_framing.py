"""Framing and examination of contents, without sockets."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.sim.content import examine
from relay.sim.framing import InputBuffer


def stuff(content):
    """The wire form of lines, written independently of the code under test."""
    lines = content.split(b"\r\n")[:-1]
    dotted = [b"." + line if line.startswith(b".") else line for line in lines]
    return b"".join(line + b"\r\n" for line in dotted) + b".\r\n"


LINES = st.lists(
    st.sampled_from([b"", b".", b"..", b"a", b".b", b"c.", b"x\n.", b"y\r"]), max_size=8
)


@given(LINES, LINES, st.lists(st.integers(0, 40), max_size=6))
def test_take_content_gives_back_what_was_stuffed_at_any_segmentation(first, second, cuts):
    contents = [b"".join(line + b"\r\n" for line in lines) for lines in (first, second)]
    wire = stuff(contents[0]) + stuff(contents[1])
    places = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    buffer, found = InputBuffer(), []
    for start, end in itertools.pairwise(places):
        buffer.feed(wire[start:end])
        while len(buffer) and (content := buffer.take_content()) is not None:
            found.append(content)
    assert found == contents and len(buffer) == 0


def test_take_line_and_take_content_alternate():
    buffer = InputBuffer()
    for octet in b"DATA\r\n..a\r\n.\r\nQUIT\r\n":
        buffer.feed(bytes([octet]))
    assert buffer.take_line() == b"DATA\r\n"
    assert buffer.take_content() == b".a\r\n"
    assert buffer.take_line() == b"QUIT\r\n"
    assert buffer.take_line() is None


@pytest.mark.parametrize("wire", [b"a\n.\n", b"a\r\n.\n", b"a\n.\r\n", b"a\r.\r", b"a.\r\n"])
def test_take_content_ends_at_nothing_but_crlf_dot_crlf(wire):
    buffer = InputBuffer()
    buffer.feed(wire)
    assert buffer.take_content() is None


@pytest.mark.parametrize(
    ("header", "campaign"),
    [
        (b"X-Relay-Campaign: spring\r\n", "spring"),
        (b"x-campaign: summer\r\n", "summer"),
        (b"Feedback-ID: autumn:tenant:bulk:relay\r\n", "autumn"),
        (b"Subject: x-campaign: none\r\n", ""),
    ],
)
def test_examine_reads_the_campaign(header, campaign):
    content = b"From: a@b.test\r\n" + header + b"\r\nX-Campaign: body\r\n"
    assert examine(content, declared_8bit=False).campaign == campaign


def test_examine_reads_a_message_id_folded_behind_its_name():
    content = b"Message-ID:\r\n <a@b>\r\n\r\n"
    assert examine(content, declared_8bit=False).message_id == "<a@b>"


@pytest.mark.parametrize("lengths", [(998,), (998, 0, 998), (1, 998, 997, 3)])
def test_examine_takes_lines_up_to_the_limit(lengths):
    content = b"".join(b"x" * length + b"\r\n" for length in lengths)
    assert examine(content, declared_8bit=False).flags == ()
    long = content + b"x" * 999 + b"\r\n"
    assert examine(long, declared_8bit=False).flags == ("line_too_long",)
    assert examine(b"x" * 999 + b"\r\n" + content, declared_8bit=False).flags == ("line_too_long",)
