"""Line ends, dot-stuffing and the final dot, at every split."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.smtp.content import (
    ContentEncoder,
    has_nul,
    is_8bit,
    is_normal,
    normalize,
    wire_octets,
)

tricky = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\xff"]),
    max_size=12,
).map(b"".join)


def wire(*blocks: bytes) -> bytes:
    encoder = ContentEncoder()
    return b"".join([*map(encoder.encode, blocks), encoder.finish()])


def receive(octets: bytes) -> bytes:
    """What a strict receiver makes of the wire form: lines by CRLF, dots un-stuffed."""
    assert octets.endswith(b".\r\n")
    lines = octets.split(b"\r\n")
    end = lines.index(b".")
    assert lines[end:] == [b".", b""], "an end of data before the end"
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])


def reference_normalize(content: bytes) -> bytes:
    result = bytearray()
    previous = 0
    for octet in content:
        if octet == 0x0A and previous == 0x0D:
            pass
        elif octet in b"\r\n":
            result += b"\r\n"
        else:
            result.append(octet)
        previous = octet
    return bytes(result)


@given(tricky)
@pytest.mark.client_row("C53")
def test_normalize_equals_the_octet_by_octet_reference(content: bytes) -> None:
    assert normalize(content) == reference_normalize(content)


@given(tricky)
def test_normalized_content_is_normal_and_stays_the_same_object(content: bytes) -> None:
    normal = normalize(content)
    assert is_normal(normal)
    assert normalize(normal) is normal
    assert is_normal(content) == (normal == content)


@given(tricky)
@pytest.mark.client_row("C56")
def test_encoded_content_is_the_same_at_every_split(content: bytes) -> None:
    whole = wire(content)
    for split in range(len(content) + 1):
        assert wire(content[:split], content[split:]) == whole
    assert wire(*(content[i : i + 1] for i in range(len(content)))) == whole


@given(tricky, st.lists(st.integers(0, 40), max_size=5))
def test_encoded_content_is_the_same_in_any_blocks(content: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(content)]
    blocks = [content[start:end] for start, end in itertools.pairwise(edges)]
    assert wire(*blocks) == wire(content)


@given(tricky)
def test_nothing_bare_leaves_and_the_receiver_gets_one_message(content: bytes) -> None:
    octets = wire(content)
    assert is_normal(octets)
    expected = normalize(content)
    if expected and not expected.endswith(b"\n"):
        expected += b"\r\n"
    assert receive(octets) == expected
    assert wire_octets(content) == len(expected)


@pytest.mark.parametrize("end", [b"\n.\r\n", b"\r.\r\n", b"\n.\n", b"\r\n.\n", b"\r\n.\r"])
@pytest.mark.client_row("C54")
def test_smuggled_end_of_data_arrives_as_content(end: bytes) -> None:
    assert receive(wire(b"a" + end + b"MAIL FROM:<x>\r\n")).count(b".\r\n") == 1


@pytest.mark.parametrize(
    ("content", "octets"),
    [
        (b"", b".\r\n"),
        (b"\r\n", b"\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a\r", b"a\r\n.\r\n"),
        (b"a\r\r\n", b"a\r\n\r\n.\r\n"),
    ],
)
@pytest.mark.client_row("C55", "C57", "C58")
def test_last_line_and_first_dot_are_completed_once(content: bytes, octets: bytes) -> None:
    assert wire(content) == octets


def test_nul_and_8_bit_octets_are_reported() -> None:
    assert has_nul(b"a\0b")
    assert not has_nul(b"ab")
    assert is_8bit(b"\x80")
    assert not is_8bit(b"\x7f")
