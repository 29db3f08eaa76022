"""Quantities as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.units import (
    format_duration,
    parse_duration_s,
    parse_rate_per_s,
    parse_size_octets,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("250ms", 0.25),
        ("90s", 90),
        ("5m", 300),
        (" 1h 30m ", 5400),
        ("1h30m", 5400),
        ("2 days", 172800),
        ("1.5 hours", 5400),
        ("1W", 604800),
    ],
)
def test_duration_reads_human_forms(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5 5", "-5m", "5x", "5m*", "1e5s", "five", "٣m"])
def test_duration_refuses_what_is_none_and_shows_a_correct_one(text: str) -> None:
    with pytest.raises(ValueError, match="write for example '5m'"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("1048576", 1048576),
        ("25 MiB", 25 * 1024**2),
        ("25M", 25 * 1024**2),
        ("10 MB", 10_000_000),
        ("512k", 524288),
        ("1.5GiB", 1610612736),
    ],
)
def test_size_reads_human_forms(text: str, octets: int) -> None:
    assert parse_size_octets(text) == octets


@pytest.mark.parametrize("text", ["", "MiB", "5 parsecs", "-1", "1 2"])
def test_size_refuses_what_is_none_and_shows_a_correct_one(text: str) -> None:
    with pytest.raises(ValueError, match="write for example '25 MiB'"):
        parse_size_octets(text)


@pytest.mark.parametrize(
    ("text", "per_s"),
    [("100/min", 100 / 60), ("5/s", 5), ("3600/h", 1), ("1/30s", 1 / 30), ("2 / second", 2)],
)
def test_rate_reads_human_forms(text: str, per_s: float) -> None:
    assert parse_rate_per_s(text) == pytest.approx(per_s)


@pytest.mark.parametrize("text", ["", "100", "100/", "/min", "100/parsec", "100/0s", "fast"])
def test_rate_refuses_what_is_none_and_shows_a_correct_one(text: str) -> None:
    with pytest.raises(ValueError, match="write for example '100/min'"):
        parse_rate_per_s(text)


@given(st.integers(min_value=0, max_value=10**8))
def test_duration_survives_being_written_and_read(seconds: int) -> None:
    assert parse_duration_s(format_duration(seconds)) == seconds
