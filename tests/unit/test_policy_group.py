"""Claimed recipients become transactions without losing anybody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.message import ClaimedRecipient
from relay.policy.group import split_recipients


def claimed(*addresses: str) -> list[ClaimedRecipient]:
    return [
        ClaimedRecipient(number, address, "d", 1, 0, "q")
        for number, address in enumerate(addresses, 1)
    ]


def addresses(groups: list[tuple[ClaimedRecipient, ...]]) -> list[list[str]]:
    return [[recipient.address for recipient in group] for group in groups]


def test_transaction_takes_no_more_than_the_limit() -> None:
    groups = split_recipients(claimed("a@x", "b@x", "c@x", "d@x", "e@x"), limit=2)
    assert addresses(groups) == [["a@x", "b@x"], ["c@x", "d@x"], ["e@x"]]


def test_domains_do_not_share_a_transaction() -> None:
    groups = split_recipients(claimed("a@x", "a@y", "b@X"), limit=50)
    assert addresses(groups) == [["a@x", "b@X"], ["a@y"]]


def test_smarthost_takes_several_domains_at_once() -> None:
    groups = split_recipients(claimed("a@x", "a@y", "b@x"), limit=50, several_domains=True)
    assert addresses(groups) == [["a@x", "a@y", "b@x"]]


def test_nobody_makes_no_transaction() -> None:
    assert split_recipients([], limit=1) == []


def test_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="needs room"):
        split_recipients(claimed("a@x"), limit=0)


_ADDRESSES = st.lists(st.sampled_from(["a@x", "b@x", "a@y", "c@Y", '"@z"@x', "a@z"]), max_size=40)


@given(_ADDRESSES, st.integers(1, 10), st.booleans())
def test_grouping_loses_and_repeats_no_recipient(
    names: list[str], limit: int, several: bool
) -> None:
    recipients = claimed(*names)
    groups = split_recipients(recipients, limit=limit, several_domains=several)
    flat = [recipient.number for group in groups for recipient in group]
    assert sorted(flat) == [recipient.number for recipient in recipients]
    for group in groups:
        assert 1 <= len(group) <= limit
        assert [r.number for r in group] == sorted(r.number for r in group)
        if not several:
            assert len({r.address.rpartition("@")[2].lower() for r in group}) == 1
