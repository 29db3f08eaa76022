"""The text form of a lane is its identity in the store."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.lane import Lane

PART = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z"), exclude_characters="|"),
    min_size=1,
    max_size=40,
)


@given(site=PART, pool=PART, security=PART, credentials=PART | st.just(""))
def test_lane_survives_its_text_form(site: str, pool: str, security: str, credentials: str) -> None:
    lane = Lane(site, pool, security, credentials)
    assert Lane.parse(str(lane)) == lane


def test_lane_text_is_site_pool_security_credentials() -> None:
    assert str(Lane("mx.example.org", "news", "required", "ses")) == (
        "mx.example.org|news|required|ses"
    )
    assert str(Lane("relay.example.org:587")) == "relay.example.org:587|default|opportunistic|"


@pytest.mark.parametrize(
    "text",
    ["", "site", "a|b|c", "a|b|c|d|e", "|b|c|d", "a||c|d", "a|b||d", "a b|b|c|d", "a\n|b|c|d"],
)
def test_lane_refuses_text_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="lane"):
        Lane.parse(text)


@pytest.mark.parametrize("site", ["a|b", "a b", "a\r\nb", ""])
def test_lane_never_holds_what_its_text_cannot(site: str) -> None:
    with pytest.raises(ValueError, match="lane"):
        Lane(site)


def test_lane_is_hashable_and_travels_as_msgpack() -> None:
    lane = Lane("mx.example.org")
    assert {lane: 1}[Lane("mx.example.org")] == 1
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(lane), type=Lane) == lane
