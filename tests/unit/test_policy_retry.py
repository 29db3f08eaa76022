"""Retry schedules, hints and jitter; the backoff of breakers."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.errors import ConfigError
from relay.model.reply import Reply
from relay.model.verdict import Scope, Severity, Verdict
from relay.policy.breaker import CEILING_S, open_for_s
from relay.policy.reasons import verdict
from relay.policy.retry import HINT_CEILING_S, HINT_FLOOR_S, Schedule, delay, is_probe
from relay.settings.schema import Retry

DEFAULT = Schedule.parse(Retry().bulk)


def deferred(
    command: str = "RCPT",
    *,
    code: int = 450,
    scope: Scope = Scope.RECIPIENT,
    hint_s: float | None = None,
) -> Verdict:
    reply = Reply(code, None, ("x",), command)
    return verdict(Severity.TRANSIENT, scope, "deferred", reply, retry_after_s=hint_s)


def lost() -> Verdict:
    return verdict(Severity.TRANSIENT, Scope.CONNECTION, "connection_lost")


def exact(step: int, cause: Verdict, schedule: Schedule = DEFAULT) -> float | None:
    return delay(
        step,
        cause,
        schedule=schedule,
        first_after_rcpt_s=60.0,
        jitter=0.0,
        random=random.Random(1),
    )


def test_schedule_reads_a_list_and_repeats_its_last_delay() -> None:
    schedule = Schedule.parse("5m 15m 1h*")
    assert [schedule.delay_s(step) for step in range(5)] == [300, 900, 3600, 3600, 3600]
    assert str(schedule) == "5m 15m 1h*"


def test_schedule_without_a_star_ends() -> None:
    schedule = Schedule.parse("30s, 1h 30m")
    assert [schedule.delay_s(step) for step in range(4)] == [30, 3600, 1800, None]
    assert exact(9, lost(), schedule) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("5m* 15m", r"only the last delay may repeat, but '5m\*' is followed by '15m'"),
        ("5m 15x*", "'15x' has the unknown unit 'x'"),
        ("5m 0*", "'0' would retry without a pause"),
        ("5m **", r"'\*\*' is not a delay"),
        ("5m *", "'' is not a duration"),
        ("-5m", "'-5m' is not a duration"),
        ("often", "'often' is not a duration"),
    ],
)
def test_fault_of_a_schedule_is_named_with_key_and_example(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Schedule.parse(text, key="retry.bulk")
    assert str(caught.value).startswith("retry.bulk: ")
    assert "5m 15m 30m 1h 2h 4h*" in str(caught.value)


def test_likely_greylisting_is_probed_after_a_minute_before_the_list_begins() -> None:
    assert [exact(step, deferred()) for step in range(4)] == [60, 300, 900, 1800]


def test_other_deferrals_follow_the_list_at_once() -> None:
    assert [exact(step, lost()) for step in range(3)] == [300, 900, 1800]


@pytest.mark.parametrize(
    ("cause", "probe"),
    [
        (deferred("RCPT"), True),
        (deferred("end-of-data", scope=Scope.MESSAGE), True),
        (deferred("MAIL", scope=Scope.MESSAGE), False),
        (deferred("RCPT", code=421, scope=Scope.CONNECTION), False),
        (deferred("end-of-data", scope=Scope.SOURCE), False),
        (deferred("RCPT", code=550), False),
        (lost(), False),
    ],
)
def test_only_a_4yz_of_rcpt_or_dot_counts_as_greylisting(cause: Verdict, probe: bool) -> None:
    assert is_probe(cause) is probe


def test_probe_never_waits_longer_than_the_list() -> None:
    assert exact(0, deferred(), Schedule.parse("10s 1h*")) == 10


def test_hint_of_the_receiver_replaces_the_first_delays() -> None:
    assert exact(0, deferred(hint_s=300)) == 300
    assert exact(2, deferred(hint_s=300)) == 300


def test_hint_repeated_again_and_again_cannot_shorten_the_list() -> None:
    assert exact(5, deferred(hint_s=60)) == exact(5, deferred())
    assert exact(5, deferred(hint_s=4 * 3600 + 1)) == 4 * 3600 + 1


@given(st.floats(min_value=0, max_value=1e9), st.integers(0, 20))
def test_hint_is_clamped(hint_s: float, step: int) -> None:
    waits = exact(step, deferred(hint_s=hint_s))
    assert waits is not None
    assert HINT_FLOOR_S <= waits <= HINT_CEILING_S


@given(st.integers(0, 2**32), st.floats(30, 3600), st.integers(0, 2))
def test_we_never_come_before_the_time_that_the_receiver_named(
    seed: int, hint_s: float, step: int
) -> None:
    waits = delay(
        step,
        deferred(hint_s=hint_s),
        schedule=DEFAULT,
        first_after_rcpt_s=60.0,
        jitter=0.1,
        random=random.Random(seed),
    )
    assert waits is not None
    assert hint_s <= waits <= hint_s * 1.1 + 1e-6


_LISTS = st.lists(st.integers(1, 10**6), min_size=1, max_size=8).map(sorted)


@given(_LISTS, st.integers(0, 2**32), st.booleans())
def test_rising_list_gives_rising_delays_within_its_bounds(
    delays: list[int], seed: int, probing: bool
) -> None:
    schedule = Schedule.parse(" ".join(f"{d}s" for d in delays) + "*")
    cause = deferred() if probing else lost()
    planned = [exact(step, cause, schedule) for step in range(12)]
    assert planned == sorted(planned, key=lambda d: d or 0)
    for step, base in enumerate(planned):
        waits = delay(
            step,
            cause,
            schedule=schedule,
            first_after_rcpt_s=60.0,
            jitter=0.1,
            random=random.Random(seed),
        )
        assert base is not None and waits is not None
        assert 0.9 * base <= waits <= 1.1 * base + 1e-9


@given(_LISTS, st.booleans())
def test_schedule_survives_being_written_and_read(delays: list[int], repeats: bool) -> None:
    schedule = Schedule(tuple(map(float, delays)), repeats)
    assert Schedule.parse(str(schedule)) == schedule


def test_breaker_opens_longer_each_time_up_to_a_quarter_of_an_hour() -> None:
    assert [open_for_s(n) for n in (0, 1, 2, 3)] == [0, 15, 60, 135]
    assert open_for_s(8) == open_for_s(10**9) == CEILING_S == 900


@given(st.integers(0, 10**6))
def test_breaker_backoff_never_falls(failures: int) -> None:
    assert 0 <= open_for_s(failures) <= open_for_s(failures + 1) <= CEILING_S
