"""`relay suppress`: who gets no mail, and why; put there, taken off, listed, imported, exported."""

import contextlib
import csv
import io
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TextIO

import msgspec
import typer

from relay.cli.api import DEFAULT_API, Api, ApiUrl, Refused
from relay.cli.faults import CommandFailed
from relay.cli.show import AsJson, Yes, age, confirm, print_json, print_table, when
from relay.ingress.suppression_entry import SuppressionEntry, suppression_of
from relay.model.errors import SubmissionRefused
from relay.model.suppression import suppression_name as _name

suppress_app = typer.Typer(
    help="Who gets no mail: look, put on the list, take off it.", no_args_is_help=True
)

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="An address, or a domain.")]
COLUMNS = ("address", "reason", "origin", "since", "until", "evidence", "note")
#: What other exports call the column.
_ADDRESS_COLUMNS = ("address", "email", "email address", "emailaddress", "recipient")
#: Entries of one request.
_PAGE = 1000


@suppress_app.command("add")
def add(
    address: Address,
    reason: Annotated[
        str, typer.Option(help="invalid, bounced, blocked, spam, unsubscribed or other.")
    ] = "other",
    note: Annotated[str, typer.Option(help="A line about why.")] = "",
    duration: Annotated[
        str,
        typer.Option("--duration", "--for", metavar="DURATION", help="Such as 30d; else for good."),
    ] = "",
    cancel_queued: Annotated[
        bool, typer.Option("--cancel-queued", help="Cancel what is queued for it, too.")
    ] = False,
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Let an address, or everybody of a domain, get no more mail."""
    said = {"address": address, "reason": reason, "note": note, "duration": duration}
    with Api(api) as relay:
        entry = relay.post("suppressions", said=said)
        cancelled = _cancel_queued(relay, entry["address"]) if cancel_queued else 0
    if as_json:
        print_json({**entry, **({"cancelled": cancelled} if cancel_queued else {})})
        return
    until = f"until {when(entry['until'])}" if entry["until"] else "for good"
    print(f"{entry['address']} gets no mail {until} ({entry['reason']})")
    if cancel_queued:
        print(f"cancelled: {cancelled} recipient{'' if cancelled == 1 else 's'} that waited")


@suppress_app.command("remove")
def remove(
    addresses: Annotated[
        list[str], typer.Argument(metavar="ADDRESS...", help="Addresses, or domains.")
    ],
    yes: Yes = False,
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Let addresses get mail again; who had complained is asked about first."""
    with Api(api) as relay:
        for address in addresses:
            entry = relay.get("suppressions", address)
            if entry["origin"] == "complaint" and entry["address"] == _name(address):
                confirm(f"{entry['address']} called your mail spam; mail it again?", yes=yes)
            relay.delete("suppressions", address)
            if as_json:
                print_json({"address": _name(address), "removed": 1})
            else:
                print(f"{_name(address)} may get mail again")


@suppress_app.command("list")
def list_(
    reason: Annotated[str, typer.Option(help="Such as spam.")] = "",
    origin: Annotated[str, typer.Option(help="manual, bounce, complaint or import.")] = "",
    domain: Annotated[str, typer.Option(help="Domain of the address.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """List who gets no mail, newest first."""
    with Api(api) as relay:
        entries = list(_entries(relay, limit, reason=reason, origin=origin, domain=domain))
    if as_json:
        for entry in entries:
            print_json(entry)
        return
    rows = [
        (
            entry["address"],
            entry["reason"],
            entry["origin"],
            age(entry["since"]),
            age(entry["until"]),
            entry["note"] or "-",
        )
        for entry in entries
    ]
    print_table(("address", "reason", "origin", "since", "ends", "note"), rows)


@suppress_app.command("show")
def show(address: Address, api: ApiUrl = DEFAULT_API, as_json: AsJson = False) -> None:
    """Show what keeps an address from mail: its own entry, or that of its domain."""
    with Api(api) as relay:
        entry = relay.get("suppressions", address)
    if as_json:
        print_json(entry)
        return
    for name in COLUMNS:
        value = entry[name]
        if name in ("since", "until"):
            value = when(value) if value else "for good"
        if value:
            print(f"{name:<9} {value}")


@suppress_app.command("import")
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV, or - for standard input.")],
    reason: Annotated[str, typer.Option(help="Of rows that name none.")] = "other",
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Take over another list: CSV with a line of names (address, reason, since, …), or addresses.

    Nothing is taken over where a row is at fault.
    """
    rows = list(_rows(_read(file), reason))
    added = changed = 0
    with Api(api) as relay:
        for first in range(0, len(rows), _PAGE):
            page = rows[first : first + _PAGE]
            done = relay.post("suppressions", "import", said={"suppressions": page})
            added, changed = added + done["added"], changed + done["changed"]
    if as_json:
        print_json({"rows": len(rows), "added": added, "changed": changed})
    else:
        print(f"imported: {added} new, {changed} changed, {len(rows) - added - changed} as before")


@suppress_app.command("export")
def export(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="Else standard output.")] = "-",
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Write the whole list as CSV, as `import` takes it, or as JSON Lines."""
    with Api(api) as relay:
        if file == "-":
            _write(sys.stdout, _entries(relay, sys.maxsize), as_json=as_json)
            return
        with Path(file).open("w", encoding="utf-8", newline="") as stream:
            _write(stream, _entries(relay, sys.maxsize), as_json=as_json)


def _write(stream: TextIO, entries: Iterator[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for entry in entries:
            print_json(entry, stream)
        return
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)


def _cancel_queued(relay: Api, name: str) -> int:
    """Cancel the recipients of an address, or of a domain, that are not done; how many."""
    cancelled, cursor = 0, ""
    while True:
        page = relay.get("messages", domain=name.rpartition("@")[2], limit=_PAGE, cursor=cursor)
        for message in page["messages"]:
            for item in message["recipients"]:
                is_meant = name.startswith("@") and item["address"].endswith(name)
                if item["finished_at"] or not (is_meant or _name(item["address"]) == name):
                    continue
                with contextlib.suppress(Refused):  # it was done meanwhile
                    cancelled += relay.delete("messages", item["id"])["changed"]
        cursor = page["next"]
        if not cursor:
            return cancelled


def _entries(relay: Api, limit: int, **which: str) -> Iterator[dict[str, Any]]:
    """Entries that fit, page by page."""
    cursor, left = "", limit
    while left > 0:
        page = relay.get("suppressions", **which, limit=min(left, _PAGE), cursor=cursor)
        yield from page["suppressions"]
        left, cursor = left - len(page["suppressions"]), page["next"]
        if not cursor:
            return


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandFailed(f"{file}: is not UTF-8 text", os.EX_DATAERR) from None


def _rows(text: str, reason: str) -> Iterator[dict[str, Any]]:
    """The rows as the API takes them; CommandFailed names the line of the first fault."""
    reader = csv.reader(io.StringIO(text, newline=""))
    names: list[str] | None = None
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if names is None:
            names = _names(cells)
            if names is not None:
                continue
            names = ["address"]
        given = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        row = {"address": "", "reason": reason}
        row |= {name: value for name, value in given.items() if name in COLUMNS and value}
        try:
            yield _checked(row)
        except (SubmissionRefused, ValueError) as fault:
            sentence = f"line {reader.line_num}: {fault}; nothing was imported"
            raise CommandFailed(sentence, os.EX_DATAERR) from None


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    for name in {"since", "until"} & row.keys():
        try:
            row[name] = datetime.fromisoformat(row[name]).isoformat()
        except ValueError:
            raise ValueError(
                f"{name}: {row[name][:40]!r} is no time; write it as RFC 3339"
            ) from None
    try:
        suppression_of(msgspec.convert(row, SuppressionEntry))
    except msgspec.ValidationError as error:
        raise ValueError(str(error).replace("`", "").replace("$.", "")) from None
    return row


def _names(cells: list[str]) -> list[str] | None:
    """The names of the columns; None where the first line is no line of names."""
    names = [cell.strip().lower() for cell in cells]
    for name in _ADDRESS_COLUMNS:
        if name in names:
            names[names.index(name)] = "address"
            return names
    return None
