"""The feedback window against what Postfix's scheduler is known to do."""

from hypothesis import given
from hypothesis import strategies as st

from relay.policy.window import INITIAL, LIMIT, Window, failed, revived, succeeded


def test_window_grows_by_one_after_about_a_window_of_successes() -> None:
    window, sizes = Window(), []
    for _ in range(30):
        window = succeeded(window, busy=window.size)
        sizes.append(window.size)
    assert sizes[3] == INITIAL
    assert sizes[4] == INITIAL + 1
    assert sizes == sorted(sizes)


def test_window_does_not_run_ahead_of_the_real_load() -> None:
    window = Window(size=12)
    for _ in range(500):
        window = succeeded(window, busy=2, initial=5)
    assert window.size == 12


def test_window_shrinks_at_the_first_failure_and_then_once_per_window() -> None:
    window, sizes = Window(size=10), []
    for _ in range(11):
        window = failed(window, cohort_limit=0)
        sizes.append(window.size)
    assert sizes[0] == 9
    assert sizes.count(9) == 8
    assert sizes[-1] == 8


def test_success_forgives_failed_cohorts() -> None:
    window = failed(failed(Window()))
    assert window.failed_cohorts > 0
    assert succeeded(window, busy=1).failed_cohorts == 0


def test_ten_failed_windows_in_a_row_stop_the_destination() -> None:
    window, failures = Window(size=LIMIT), 0
    while not window.is_dead:
        window = failed(window)
        failures += 1
    assert 60 < failures < 200  # a single bad minute does not stop a large destination


def test_single_connection_dies_after_ten_failures() -> None:
    window = Window(size=1)
    for _ in range(9):
        window = failed(window)
        assert window.size == 1
    assert failed(window).is_dead


def test_dead_destination_comes_back_with_its_real_load_or_as_new() -> None:
    dead = Window(size=0)
    assert succeeded(dead, busy=3).size == 3
    assert succeeded(dead, busy=0).size == INITIAL
    assert failed(dead) == dead
    assert revived() == Window()


@given(st.lists(st.booleans(), max_size=400), st.integers(1, 50), st.integers(1, 10))
def test_window_stays_between_one_and_its_limit(
    talks: list[bool], limit: int, initial: int
) -> None:
    window = revived(initial=min(initial, limit))
    for did_talk in talks:
        if did_talk:
            window = succeeded(window, busy=max(window.size, 1), limit=limit, initial=initial)
        else:
            window = failed(window)
            if window.is_dead:
                window = revived(initial=min(initial, limit))
        assert 1 <= window.size <= limit
        assert 0 <= window.failure <= 1.5
        assert 0 <= window.success < 1
