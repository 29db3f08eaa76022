"""The DATA reader: one end-of-data wherever segments are cut, and nothing else ends the data."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.ingress.data_reader import DataReader

LIMIT = 1000


def read(wire: bytes, cuts: list[int] | None = None) -> tuple[bytes, bytes] | None:
    """Content and rest of what a client writes in the given segments; None: no end yet."""
    reader = DataReader(LIMIT)
    edges = [0, *sorted(cuts or []), len(wire)]
    for start, end in itertools.pairwise(edges):
        rest = reader.receive(wire[start:end])
        if rest is not None:
            return reader.content(), rest + wire[end:]
    return None


def stuffed(content: bytes) -> bytes:
    """The reference: dot-stuffing by lines that CRLF ends (RFC 5321 §4.5.2)."""
    lines = content.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


@pytest.mark.parametrize("content", [b"a\r\n.b\r\n..\r\n.\r\n", b"", b".\r\n", b"hello\r\n"])
def test_data_split_at_every_octet_is_one_message(content: bytes) -> None:
    wire = stuffed(content) + b".\r\nMAIL FROM:<>\r\n"
    for cut in range(len(wire) + 1):
        assert read(wire, [cut]) == (content, b"MAIL FROM:<>\r\n")
    assert read(wire, list(range(len(wire)))) == (content, b"MAIL FROM:<>\r\n")


@given(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\r\n.", b"x" * 30]), max_size=40
    ),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_data_of_any_octets_comes_out_as_it_was(parts: list[bytes], cuts: list[int]) -> None:
    content = b"".join(parts) + b"\r\n"
    wire = stuffed(content) + b".\r\nQUIT\r\n"
    assert read(wire, [cut % (len(wire) + 1) for cut in cuts]) == (content, b"QUIT\r\n")


@pytest.mark.parametrize(
    "fake",
    [
        b"a\n.\n",
        b"a\n.\r\n",
        b"a\r\n.\n",
        b"a\r.\r",
        b"a\r\n.\r",
        b"a\r\n.\r\r\n",
        b"a\r.\r\n",
        b"a\n\r.\r\n",
    ],
)
def test_only_crlf_dot_crlf_ends_the_data(fake: bytes) -> None:
    assert read(fake + b"b") is None
    found = read(fake + b"b\r\n.\r\n")
    assert found is not None and found[0].endswith(b"b\r\n")


def test_leading_dot_is_removed_once() -> None:
    assert read(b"..a\r\n.b\r\n...\r\n.\r\n") == (b".a\r\nb\r\n..\r\n", b"")


def test_lone_dot_at_once_is_an_empty_message() -> None:
    assert read(b".\r\n") == (b"", b"")


def test_reader_counts_without_the_stuffed_dots() -> None:
    reader = DataReader(8)
    assert reader.receive(b"..a\r\n..\r\n.\r\n") == b""
    assert not reader.is_too_large
    assert reader.content() == b".a\r\n.\r\n"


def test_reader_keeps_little_of_what_is_too_large() -> None:
    reader = DataReader(LIMIT)
    for _ in range(1000):
        assert reader.receive(b"x" * 50 + b"\r\n") is None
    assert reader.is_too_large
    assert len(reader._octets) < 4 * LIMIT
    assert reader.receive(b".\r\nQUIT\r\n") == b"QUIT\r\n"
    assert reader.is_too_large


def test_reader_finds_the_end_cut_anywhere_while_it_drops() -> None:
    for cut in range(1, 5):
        reader = DataReader(10)
        reader.receive(b"y" * 100)
        end = b"\r\n.\r\n"
        assert reader.receive(end[:cut]) is None
        assert reader.receive(end[cut:] + b"NOOP") == b"NOOP"


def test_reader_gives_up_on_what_is_hugely_too_large() -> None:
    reader = DataReader(LIMIT)
    reader.receive(b"x" * (2 * LIMIT + 65536))
    assert not reader.is_hopeless
    reader.receive(b"x")
    assert reader.is_hopeless


def test_reader_drops_when_the_common_room_is_used_up() -> None:
    room = [100]

    def reserve(octets: int) -> bool:
        if octets > room[0]:
            return False
        room[0] -= octets
        return True

    reader = DataReader(LIMIT, reserve)
    assert reader.receive(b"a" * 80) is None
    assert not reader.lacks_room and reader.reserved == 80
    assert reader.receive(b"a" * 80) is None
    assert reader.lacks_room and reader.reserved == 80
    assert reader.receive(b"\r\n.\r\n") == b""
