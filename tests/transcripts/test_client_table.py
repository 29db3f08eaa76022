"""Every row of the client's table is proved by a test."""

from collections.abc import Callable

from client_table import ROWS, claims


def test_every_row_is_claimed_by_a_test(tell: Callable[[object], None]) -> None:
    found = claims()
    assert [row for row in ROWS if row not in found] == []
    assert set(found) <= set(ROWS), "a test claims a row that the table does not have"
    tests = {name for names in found.values() for name in names}
    tell(f"client table: {len(found)} of {len(ROWS)} rows proved by {len(tests)} tests")


def test_rows_are_numbered_without_a_gap() -> None:
    assert list(ROWS) == [f"C{number}" for number in range(1, len(ROWS) + 1)]
    assert len(ROWS) == 99
