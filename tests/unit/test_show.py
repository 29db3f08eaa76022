"""How the command line shows lists on a terminal."""

import re
from datetime import UTC, datetime, timedelta

from relay.cli.show import table_lines, wait_text, when

COLUMNS = ("class", "campaign", "destination", "ready", "held", "why")
ROWS = [
    ("transactional", "-", "gmail.test", "12", "0", "no connection to any host (in 5s)"),
    ("bulk", "-", "slow.test", "0", "0", ""),
]


def test_table_that_fits_stands_in_columns_numbers_to_the_right() -> None:
    first, second, third = table_lines(COLUMNS, ROWS, 100)
    assert first.split() == list(COLUMNS)
    assert second.startswith("transactional  -         gmail.test      12     0  no connection")
    assert third == "bulk           -         slow.test        0     0"


def test_table_too_wide_leaves_out_columns_that_say_nothing() -> None:
    lines = list(table_lines(COLUMNS, ROWS, 75))
    assert lines[0].split() == ["class", "destination", "ready", "why"]
    assert max(map(len, lines)) <= 75


def test_table_still_too_wide_has_its_last_column_below() -> None:
    assert list(table_lines(COLUMNS, ROWS, 36)) == [
        "class          destination  ready",
        "transactional  gmail.test      12",
        "    no connection to any host (in",
        "    5s)",
        "bulk           slow.test        0",
    ]


def test_table_without_rows_is_its_head() -> None:
    assert list(table_lines(("id", "why"), [], 80)) == ["id  why"]


def test_time_is_told_to_the_second_and_how_long_ago_it_is() -> None:
    moment = datetime.now(UTC) - timedelta(minutes=10)
    told = when(moment.isoformat())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, 1\dm ago", told)
    assert when(None) == "-"


def test_wait_is_told_with_its_end_where_that_is_known() -> None:
    assert wait_text(None) == ""
    assert wait_text({"text": "resting", "until": None}) == "resting"
    until = (datetime.now(UTC) + timedelta(hours=50)).isoformat()
    assert wait_text({"text": "resting", "until": until}) == "resting (in 2d)"
