"""Replies from octets: what is accepted, what is refused, and the bounds."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.errors import RemoteProtocolError
from relay.model.reply import Reply
from relay.smtp.reply_reader import LINE_OCTETS, REPLY_OCTETS, TEXT_OCTETS, ReplyReader


def read(octets: bytes, command: str = "RCPT") -> list[Reply]:
    """All replies, read three ways that must agree: whole, octet by octet, with a tail behind."""
    results = []
    for blocks in ([octets], [bytes([octet]) for octet in octets]):
        reader = ReplyReader()
        replies = []
        for block in blocks:
            reader.feed(block)
            while (reply := reader.next_reply(command)) is not None:
                replies.append(reply)
        assert not reader.has_rest
        results.append(replies)
    reader = ReplyReader()
    reader.feed(octets + b"250 tail")
    replies = []
    while (reply := reader.next_reply(command)) is not None:
        replies.append(reply)
    assert reader.has_rest
    results.append(replies)
    assert results[0] == results[1] == results[2]
    return results[0]


def one(octets: bytes, command: str = "RCPT") -> Reply:
    [reply] = read(octets, command)
    return reply


def test_reply_of_one_line_is_read() -> None:
    assert one(b"250 2.1.5 Ok\r\n") == Reply(250, "2.1.5", ("Ok",), "RCPT")


def test_reply_of_several_lines_gives_up_its_enhanced_codes() -> None:
    reply = one(b"550-5.7.1 first\r\n550-5.7.1 second\r\n550 5.7.1 third\r\n")
    assert reply == Reply(550, "5.7.1", ("first", "second", "third"), "RCPT")


@pytest.mark.parametrize("octets", [b"250\r\n", b"250 \r\n", b"250\n", b"250 \n"])
def test_reply_without_text_is_a_reply(octets: bytes) -> None:
    assert one(octets) == Reply(250, None, ("",), "RCPT")


@pytest.mark.client_row("C12")
def test_text_that_begins_with_digits_is_text() -> None:
    assert one(b"250-234 Text\r\n250 OK\r\n").lines == ("234 Text", "OK")


@pytest.mark.parametrize(
    ("line", "enhanced", "text"),
    [
        (b"550 4.2.2 full", "5.0.0", "full"),
        (b"250 5.1.1 odd", "2.0.0", "odd"),
        (b"550 5.1.1", "5.1.1", ""),
        (b"550 5.1.1.7 host", None, "5.1.1.7 host"),
        (b"550 5.1 host", None, "5.1 host"),
        (b"550 3.1.1 x", None, "3.1.1 x"),
        (b"354 2.0.0 go", None, "2.0.0 go"),
    ],
)
def test_enhanced_code_must_fit_the_reply(line: bytes, enhanced: str | None, text: str) -> None:
    reply = one(line + b"\r\n")
    assert (reply.enhanced, reply.text) == (enhanced, text)


def test_greeting_and_ehlo_have_no_enhanced_code() -> None:
    assert one(b"220 2.0.0 mx\r\n", "greeting").lines == ("2.0.0 mx",)
    assert one(b"250 2.0.0 mx\r\n", "EHLO").lines == ("2.0.0 mx",)


@pytest.mark.parametrize(
    "octets",
    [
        b"bogus\r\n",
        b"2200 mx\r\n",
        b"220_mx\r\n",
        b"850 x\r\n",
        b"150 x\r\n",
        b"000 x\r\n",
        b"25 x\r\n",
        b"\r\n",
        b" 250 x\r\n",
        b"+50 x\r\n",
        b"250-a\r\n550 b\r\n",
        b"\xb2\xb5\xb0 x\r\n",
    ],
)
@pytest.mark.client_row("C1", "C4", "C11", "C21")
def test_malformed_reply_is_refused_for_good(octets: bytes) -> None:
    reader = ReplyReader()
    reader.feed(octets)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            reader.next_reply("RCPT")
    reader.feed(b"250 ok\r\n")
    with pytest.raises(RemoteProtocolError):
        reader.next_reply("RCPT")


@pytest.mark.client_row("C16")
def test_control_and_8_bit_octets_become_question_marks() -> None:
    assert one(b"550 a\x00b\x1bc\xffd\re\tf\r\n").text == "a?b?c?d?e f"


@pytest.mark.parametrize("length", [512, 2048, LINE_OCTETS - 10])
@pytest.mark.client_row("C13")
def test_long_line_is_accepted_and_its_text_truncated(length: int) -> None:
    reply = one(b"550 " + b"x" * length + b"\r\n")
    assert reply.code == 550
    assert len(reply.text) == min(length, TEXT_OCTETS)


@pytest.mark.parametrize("ending", [b"", b"\r\n"])
@pytest.mark.client_row("C14")
def test_endless_line_is_refused(ending: bytes) -> None:
    reader = ReplyReader()
    with pytest.raises(RemoteProtocolError, match="longer than"):
        for _ in range(LINE_OCTETS // 100 + 2):
            reader.feed(b"250" + b"x" * 97 + ending[:0])
            reader.next_reply("RCPT")
    reader = ReplyReader()
    reader.feed(b"550 " + b"x" * LINE_OCTETS + ending)
    with pytest.raises(RemoteProtocolError, match="longer than"):
        reader.next_reply("RCPT")


@pytest.mark.client_row("C15")
def test_ten_thousand_lines_are_classified_by_code_with_bounded_text() -> None:
    reader = ReplyReader()
    reader.feed(b"550-no\r\n" * 10_000 + b"550 no\r\n")
    reply = reader.next_reply("RCPT")
    assert reply is not None
    assert reply.code == 550
    assert sum(len(line) + 1 for line in reply.lines) <= TEXT_OCTETS + 1


def test_endless_reply_is_refused() -> None:
    reader = ReplyReader()
    line = b"550-" + b"x" * 1000 + b"\r\n"
    with pytest.raises(RemoteProtocolError, match="reply longer"):
        for _ in range(REPLY_OCTETS // len(line) + 2):
            reader.feed(line)
            reader.next_reply("RCPT")


def test_same_line_answers_each_command_by_its_name() -> None:
    reader = ReplyReader()
    for command in ("MAIL", "RCPT", "RCPT", "MAIL"):
        reader.feed(b"250 ok\r\n")
        reply = reader.next_reply(command)
        assert reply is not None
        assert reply.command == command


def test_line_inside_a_reply_never_comes_from_the_memo() -> None:
    reader = ReplyReader()
    reader.feed(b"250 ok\r\n550-no\r\n250 ok\r\n")
    assert reader.next_reply("RCPT") is not None
    with pytest.raises(RemoteProtocolError, match="mixes codes"):
        reader.next_reply("RCPT")


pieces = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            b"250 ok\r\n",
            b"250-a\r\n",
            b"550 5.1.1 no\r\n",
            b"250",
            b"\r\n",
            b"\n",
            b"-",
            b"x" * 9000,
        ]
    ),
)


@given(st.lists(pieces, max_size=30))
def test_reader_survives_anything_in_bounded_memory(blocks: list[bytes]) -> None:
    reader = ReplyReader()
    with contextlib.suppress(RemoteProtocolError):
        for block in blocks:
            reader.feed(block)
            while (reply := reader.next_reply("RCPT")) is not None:
                assert 200 <= reply.code <= 599
                assert all(line.isascii() and line.isprintable() for line in reply.lines)
            assert len(reader._buffer) <= LINE_OCTETS + len(block)
            assert sum(map(len, reader._lines)) <= TEXT_OCTETS


@given(st.lists(pieces, max_size=10))
@pytest.mark.client_row("C18")
def test_reader_does_not_depend_on_segments(blocks: list[bytes]) -> None:
    def outcome(segments: list[bytes]) -> list[object]:
        reader = ReplyReader()
        seen: list[object] = []
        try:
            for segment in segments:
                reader.feed(segment)
                while (reply := reader.next_reply("RCPT")) is not None:
                    seen.append(reply)
        except RemoteProtocolError:
            seen.append("refused")
        return seen

    octets = b"".join(blocks)
    assert outcome([octets]) == outcome([bytes([octet]) for octet in octets]) == outcome(blocks)
