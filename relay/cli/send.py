"""`relay send`: one message by fields or as a file, and with `--wait` what became of it."""

import base64
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from relay.cli.api import DEFAULT_API, Api, ApiUrl
from relay.cli.follow import follow, latest_cursor
from relay.cli.show import AsJson, print_json

#: Fields of a message that a finished one (--eml) leaves to be said.
_ENVELOPE = frozenset(
    {
        *("from", "to", "class", "campaign", "tags", "trace"),
        *("notify", "report_content", "envelope_id"),
    }
)
#: Those that are said once.
_SINGLE = ("from", "class", "campaign", "report_content", "envelope_id")


def send(
    sender: Annotated[
        str | None, typer.Option("--from", metavar="ADDRESS", help='"Name <address>" or address.')
    ] = None,
    to: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Repeatable.")] = None,
    cc: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Repeatable.")] = None,
    bcc: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Repeatable.")] = None,
    reply_to: Annotated[list[str] | None, typer.Option(metavar="ADDRESS")] = None,
    subject: Annotated[str, typer.Option()] = "",
    text: Annotated[str | None, typer.Option(help="The text; - reads standard input.")] = None,
    html: Annotated[str | None, typer.Option(help="The HTML; - reads standard input.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="Repeatable.")
    ] = None,
    attach: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Repeatable.")] = None,
    inline: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An image that the HTML shows as cid:NAME. Repeatable."),
    ] = None,
    eml: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A finished message; - standard input.")
    ] = None,
    header_recipients: Annotated[
        bool, typer.Option("-t", help="With --eml: add the recipients of To, Cc and Bcc.")
    ] = False,
    mail_class: Annotated[
        str | None, typer.Option("--class", help="transactional or bulk.")
    ] = None,
    campaign: Annotated[str, typer.Option()] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None,
    notify: Annotated[
        list[str] | None,
        typer.Option(help="Reports to the sender: never, success, failure, delay. Repeatable."),
    ] = None,
    report_content: Annotated[
        str | None, typer.Option(help="What comes back with a failure: full or headers.")
    ] = None,
    envelope_id: Annotated[str, typer.Option(help="Comes back with all reports.")] = "",
    idempotency_key: Annotated[str, typer.Option(help="A second send with it does nothing.")] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until all recipients are done.")
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="As --wait, and show the dialogue with each host.")
    ] = False,
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="How long to wait.")] = "5m",
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Queue one message; exit code 65 where it is refused, 69 where relay is down, 75 for later.

    With --wait or --trace: 0 all delivered, 67 some failed, 75 some still under way.
    """
    fields = {
        "from": sender,
        "to": to,
        "cc": cc,
        "bcc": bcc,
        "reply_to": reply_to,
        "subject": subject,
        "text": _text(text),
        "html": _text(html),
        "headers": _headers(header or []),
        "attachments": [*map(_attachment, attach or []), *map(_inline, inline or [])],
        "class": mail_class,
        "campaign": campaign,
        "tags": tag,
        "notify": [word for words in notify or [] for word in words.lower().split(",")],
        "report_content": report_content,
        "envelope_id": envelope_id,
        "trace": trace or None,
    }
    given = {name: value for name, value in fields.items() if value not in (None, "", [], {})}
    timeout_s = _duration_s(timeout)
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    if header_recipients and eml is None:
        raise typer.BadParameter("-t goes with --eml FILE")
    with Api(api) as relay:
        cursor = latest_cursor(relay) if wait or trace else ""
        if eml is None:
            accepted = relay.send(_composed(given), headers)
        else:
            query = _envelope(given, header_recipients=header_recipients)
            accepted = relay.post_raw(_read(eml), query, headers)
        _tell(accepted, as_json=as_json)
        if wait or trace:
            raise typer.Exit(follow(relay, accepted, cursor, timeout_s, as_json=as_json))


def _composed(given: dict[str, Any]) -> dict[str, Any]:
    """The message to be composed; its text comes from a pipe where nothing else is given."""
    if "from" not in given:
        raise typer.BadParameter("say --from ADDRESS, or --eml FILE")
    if not given.keys() & {"text", "html", "attachments"}:
        if sys.stdin.isatty():
            raise typer.BadParameter("say --text TEXT or --html HTML, or pipe the text in")
        given["text"] = _text("-")
    return given


def _envelope(given: dict[str, Any], *, header_recipients: bool) -> list[tuple[str, str]]:
    """The query that goes with a finished message."""
    wrong = sorted(given.keys() - _ENVELOPE)
    if wrong:
        raise typer.BadParameter(f"a finished message (--eml) has its own {', '.join(wrong)}")
    if not header_recipients and "to" not in given:
        raise typer.BadParameter(
            "say --to ADDRESS, or -t to send to those in To, Cc and Bcc of the message"
        )
    query = [("to", address) for address in given.get("to", [])]
    query += [("tag", tag) for tag in given.get("tags", [])]
    query += [("notify", word) for word in given.get("notify", [])]
    query += [(name, given[name]) for name in _SINGLE if name in given]
    query += [("trace", "true")] if "trace" in given else []
    return query + ([("header_recipients", "true")] if header_recipients else [])


def _tell(accepted: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(accepted)
        return
    count = accepted["accepted"]
    ended = sum(item["status"] == "suppressed" for item in accepted["recipients"])
    rest = f", {ended} of them on the suppression list" if ended else ""
    whom = f"{count} recipient{'' if count == 1 else 's'}{rest}"
    print(f"{accepted['id']} accepted for {whom}", flush=True)
    for warning in accepted["warnings"]:
        print(f"  warning: {warning['message']}", file=sys.stderr)


def _read(path: Path) -> bytes:
    return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()


def _text(given: str | None) -> str | None:
    return sys.stdin.read() if given == "-" else given


def _headers(lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name.strip() in fields:
            raise typer.BadParameter(f"--header {line!r}: write each once, as 'Name: value'")
        fields[name.strip()] = value.strip()
    return fields


def _attachment(path: Path) -> dict[str, str]:
    return {
        "filename": path.name,
        "content": base64.b64encode(path.read_bytes()).decode("ascii"),
    }


def _inline(path: Path) -> dict[str, str]:
    """A file for `<img src="cid:NAME">`, its name being the file's."""
    return {**_attachment(path), "content_id": path.name}


def _duration_s(text: str) -> float:
    from relay.model.units import parse_duration_s

    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise typer.BadParameter(f"--timeout: {error}") from None
