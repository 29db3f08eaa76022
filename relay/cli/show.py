"""How lists and things are shown: tables on a terminal, tabs in a pipe, JSON where asked for."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="As JSON; lists as JSON Lines.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def print_json(value: Any) -> None:
    """One JSON object on one line."""
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal, lines with tabs between elsewhere."""
    rows = [[_plain(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [list(columns), *rows]:
            print("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        is_number = column in _NUMBERS
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


_NUMBERS = frozenset({"ready", "retry", "deferred", "held", "claimed", "recipients", "size"})


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
