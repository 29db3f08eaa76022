"""How lists and things are shown: tables on a terminal, tabs in a pipe, JSON where asked for."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TextIO

import typer

AsJson = Annotated[bool, typer.Option("--json", help="As JSON; lists as JSON Lines.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def print_json(value: Any, stream: TextIO | None = None) -> None:
    """One JSON object on one line, to standard output where nothing else is given."""
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), file=stream)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal, lines with tabs between elsewhere."""
    cells = [[_plain(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [list(columns), *cells]:
            print("\t".join(row))
        return
    for line in table_lines(columns, cells, shutil.get_terminal_size().columns):
        print(line)


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """The lines of a table; where it is wider than `width`, columns that say nothing are left out,
    and if that does not do, each row's last cell stands below it.
    """
    shown = list(range(len(columns)))
    if _width(columns, rows, shown) > width:
        silent = {at for at in shown if all(row[at] in _NOTHING for row in rows)}
        shown = [at for at in shown if at not in silent] or shown
    below = shown.pop() if len(shown) > 1 and _width(columns, rows, shown) > width else None
    widths = {at: _column_width(columns, rows, at) for at in shown}

    def line(row: Sequence[str]) -> str:
        return _GAP.join(_aligned(columns[at], row[at], widths[at]) for at in shown).rstrip()

    yield line(columns)
    for row in rows:
        yield line(row)
        if below is not None and row[below] not in _NOTHING:
            yield from textwrap.wrap(
                row[below], max(width, 20), initial_indent="    ", subsequent_indent="    "
            )


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    return sum(_column_width(columns, rows, at) for at in shown) + len(_GAP) * (len(shown) - 1)


def _column_width(columns: Sequence[str], rows: Sequence[Sequence[str]], at: int) -> int:
    return max(len(columns[at]), *(len(row[at]) for row in rows), 0)


def _aligned(column: str, cell: str, width: int) -> str:
    return cell.rjust(width) if column in _NUMBERS else cell.ljust(width)


_GAP = "  "
#: Cells that tell nothing.
_NOTHING = frozenset({"", "-", "0"})
_NUMBERS = frozenset({"ready", "retry", "deferred", "held", "claimed", "attempt"})


def when(moment: str | None) -> str:
    """An RFC 3339 time for people: `2026-10-02 09:14:07 UTC, 3m ago`; `-` for none."""
    if moment is None:
        return "-"
    at = datetime.fromisoformat(moment).astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC, {age(moment)}"


def wait_text(wait: dict[str, Any] | None) -> str:
    """Why something waits, and until when; empty where it does not."""
    if wait is None:
        return ""
    until = f" ({age(wait['until'])})" if wait["until"] else ""
    return f"{wait['text']}{until}"


def age(moment: str | None) -> str:
    """How long ago, or how soon, an RFC 3339 time is: `3m ago`, `in 20s`, `-` for none."""
    if moment is None:
        return "-"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    return f"{_rough(seconds)} ago" if seconds >= 0 else f"in {_rough(-seconds)}"


def _rough(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal before something that cannot be undone; elsewhere `--yes` must be given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Say --yes where nobody can be asked")
    typer.confirm(question, abort=True)


def _plain(text: str) -> str:
    """A cell without what could act on a terminal or break the line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
