"""MX records become an order to try and the identity of a site (RFC 5321 §5.1, RFC 7505)."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.mx import cut_own, is_null_mx, order_hosts, preference_groups, site_name

RECORDS = [(20, "b.example."), (10, "A1.example."), (10, "a2.example"), (30, "c.example")]


def test_hosts_are_grouped_by_preference_best_first() -> None:
    assert preference_groups(RECORDS) == (
        ("a1.example", "a2.example"),
        ("b.example",),
        ("c.example",),
    )


def test_equal_hosts_are_shuffled_and_never_cross_preferences() -> None:
    firsts = {order_hosts(RECORDS, random=random.Random(seed))[0] for seed in range(20)}
    assert firsts == {("a1.example", "a2.example"), ("a2.example", "a1.example")}
    for seed in range(20):
        groups = order_hosts(RECORDS, random=random.Random(seed))
        assert groups[1:] == (("b.example",), ("c.example",))


def test_host_listed_twice_is_tried_once_at_its_best_preference() -> None:
    assert preference_groups([(20, "x"), (10, "X."), (20, "y")]) == (("x",), ("y",))


def test_own_host_cuts_itself_and_all_that_is_not_better() -> None:
    groups = preference_groups(RECORDS)
    assert cut_own(groups, ["B.example."]) == (("a1.example", "a2.example"),)
    assert cut_own(groups, ["a2.example"]) == ()
    assert cut_own(groups, ["elsewhere.example"]) == groups


@pytest.mark.parametrize(
    ("records", "null"),
    [
        ([(0, ".")], True),
        ([(0, "")], True),
        ([(10, ".")], True),
        ([(0, "."), (10, "a.example")], False),
        ([(0, "a.example")], False),
        ([], False),
    ],
)
def test_null_mx_is_a_single_record_for_the_root(
    records: list[tuple[int, str]], null: bool
) -> None:
    assert is_null_mx(records) is null


def test_root_among_real_hosts_is_ignored() -> None:
    assert preference_groups([(0, "."), (10, "a.example")]) == (("a.example",),)


def test_no_more_than_a_hundred_records_are_looked_at() -> None:
    records = [(1, f"h{n}.example") for n in range(500)]
    assert sum(map(len, preference_groups(records))) == 100


def test_site_is_named_by_its_first_host_and_a_digest() -> None:
    name = site_name(preference_groups(RECORDS))
    host, _, digest = name.partition("~")
    assert host == "a1.example"
    assert len(digest) == 8 and int(digest, 16) >= 0


def test_site_differs_where_preferences_differ() -> None:
    assert site_name([["a", "b"]]) != site_name([["a"], ["b"]])
    assert site_name([["a"]]) != site_name([["a"], ["b"]])


def test_site_without_hosts_is_refused() -> None:
    with pytest.raises(ValueError, match="no MX hosts"):
        site_name([])


_HOSTS = st.sampled_from([f"mx{n}.example" for n in range(8)])
_RECORDS = st.lists(st.tuples(st.integers(0, 3), _HOSTS), min_size=1, max_size=12)


@given(_RECORDS, st.integers(0, 2**32))
def test_site_name_is_stable_under_order(records: list[tuple[int, str]], seed: int) -> None:
    shuffled = records.copy()
    random.Random(seed).shuffle(shuffled)
    groups = order_hosts(shuffled, random=random.Random(seed))
    assert site_name(groups) == site_name(preference_groups(records))


@given(_RECORDS, _HOSTS, st.integers(0, 2**32))
def test_order_loses_no_host_and_never_names_ourselves(
    records: list[tuple[int, str]], own: str, seed: int
) -> None:
    groups = order_hosts(records, random=random.Random(seed))
    flat = [host for group in groups for host in group]
    assert sorted(flat) == sorted({host for _, host in records})
    cut = order_hosts(records, own_names=[own], random=random.Random(seed))
    assert all(own not in group for group in cut)
    assert sum(map(len, cut)) <= len(flat)
