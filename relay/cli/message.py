"""`relay message`: look at messages, and retry, hold, release, cancel or bounce them."""

import os
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from relay.cli.api import DEFAULT_API, Api, ApiUrl, Refused
from relay.cli.faults import CommandFailed
from relay.cli.show import AsJson, Yes, age, confirm, print_json, print_table, wait_text, when

message_app = typer.Typer(help="Look at messages and change their course.", no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Message or recipient.")]
Domain = Annotated[str, typer.Option(help="Domain of a recipient.")]
State = Annotated[str, typer.Option(help="ready, deferred, held, delivered, failed, …")]
Campaign = Annotated[str, typer.Option(help="Campaign.")]
Sender = Annotated[str, typer.Option("--from", help="Reverse-path, or @domain.")]
Recipient = Annotated[str, typer.Option("--to", help="Recipient, or @domain.")]
OlderThan = Annotated[str, typer.Option(help="Age such as 2h.")]
All = Annotated[bool, typer.Option("--all", help="Every message.")]
Reason = Annotated[str, typer.Option(help="Shown with the recipient.")]


@message_app.command("ls")
def ls(
    domain: Domain = "",
    state: State = "",
    campaign: Campaign = "",
    sender: Sender = "",
    recipient: Recipient = "",
    older_than: OlderThan = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """List messages: live ones first, then those finished within the hour."""
    wanted = _filter(domain, state, campaign, sender, recipient, older_than)
    with Api(api) as relay:
        messages = _messages(relay, wanted, limit)
        if as_json:
            for message in messages:
                print_json(message)
            return
        rows = [
            (
                message["id"],
                age(message["created_at"]),
                message["status"],
                message["reverse_path"] or "<>",
                _addresses(message),
                _why(message),
            )
            for message in messages
        ]
    print_table(("id", "accepted", "status", "from", "to", "why"), rows)


@message_app.command("show")
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="Message or recipient.")],
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Show one message: each recipient, what happened last, why it waits, when it is tried."""
    with Api(api) as relay:
        message = relay.get("messages", id)
    if as_json:
        print_json(message)
        return
    for label, value in (
        ("id", message["id"]),
        ("Message-ID", message["message_id"]),
        ("from", message["reverse_path"] or "<>"),
        ("envelope id", message["envelope_id"]),
        ("class", message["class"]),
        ("campaign", message["campaign"]),
        ("tags", ", ".join(message["tags"])),
        ("metadata", ", ".join(f"{name}={value}" for name, value in message["metadata"].items())),
        ("size", f"{message['size_octets']:,} octets"),
        ("accepted", f"{when(message['created_at'])}, by {message['ingress']}"),
        ("expires", when(message["expires_at"]) if _is_open(message) else ""),
    ):
        if value:
            print(f"{label:<11} {value}")
    print()
    rows = [
        (
            item["id"],
            item["address"],
            item["status"],
            str(item["attempt"]),
            _next(item),
            _host(item),
            _told(item),
        )
        for item in message["recipients"]
    ]
    columns = ("recipient", "address", "status", "attempt", "next", "host", "why")
    print_table(columns, rows)


def _verb(name: str, explanation: str, *, takes_reason: bool, asks: bool) -> None:
    """Register one verb; all have the same arguments but `--reason`."""

    def verb(
        ids: Ids = None,
        domain: Domain = "",
        state: State = "",
        campaign: Campaign = "",
        sender: Sender = "",
        recipient: Recipient = "",
        older_than: OlderThan = "",
        everything: All = False,
        reason: Reason = "",
        yes: Yes = False,
        api: ApiUrl = DEFAULT_API,
        as_json: AsJson = False,
    ) -> None:
        if reason and not takes_reason:
            raise typer.BadParameter(f"{name} takes no --reason")
        wanted = _filter(domain, state, campaign, sender, recipient, older_than)
        with Api(api) as relay:
            if ids and (wanted or everything):
                raise typer.BadParameter("give ids or a filter, not both")
            if not ids and not wanted and not everything:
                raise typer.BadParameter(f"say which: an id, a filter, or --all to {name} all")
            targets = list(ids) if ids else _targets(relay, wanted)
            if asks and not ids:
                confirm(f"{name} {len(targets)} messages or recipients?", yes=yes)
            _apply(relay, name, targets, reason, named=bool(ids), as_json=as_json)

    verb.__doc__ = explanation
    message_app.command(name)(verb)


_verb("retry", "Try deferred recipients now.", takes_reason=False, asks=False)
_verb("hold", "Keep recipients from being tried until released.", takes_reason=True, asks=False)
_verb("release", "Let held recipients go on.", takes_reason=False, asks=False)
_verb("cancel", "End recipients without a report to the sender.", takes_reason=True, asks=True)
_verb("bounce", "Fail recipients now.", takes_reason=True, asks=True)


def _apply(
    relay: Api, verb: str, targets: list[str], reason: str, *, named: bool, as_json: bool
) -> None:
    """Apply a verb; what a filter found and does not apply any more is passed over."""
    total, code, last = 0, os.EX_OK, ""
    said = {"reason": reason} if reason else {}
    for target in targets:
        try:
            answer = relay.post("messages", target, verb, said=said)
        except Refused as refused:
            if refused.status not in (404, 409):
                raise
            if named:
                code, last = refused.exit_code, str(refused)
                if len(targets) > 1:
                    typer.echo(f"relay: {refused}", err=True)
            continue
        total += answer["changed"]
        if as_json:
            print_json(answer)
    if code and len(targets) == 1:
        raise CommandFailed(last, code)
    if not as_json:
        print(f"{verb}: {total} recipient{'' if total == 1 else 's'}")
    if code:
        raise typer.Exit(code)


def _filter(
    domain: str, state: str, campaign: str, sender: str, recipient: str, older_than: str
) -> dict[str, str]:
    """The filters that were given, by the names of the API."""
    named = {
        "domain": domain,
        "state": state,
        "campaign": campaign,
        "from": sender,
        "to": recipient,
        "older_than": older_than,
    }
    return {name: value for name, value in named.items() if value}


def _messages(relay: Api, wanted: dict[str, str], limit: int | None = None) -> Iterator[Any]:
    cursor, left = "", limit
    while left is None or left > 0:
        size = 500 if left is None else min(left, 500)
        page = relay.get("messages", **wanted, limit=size, cursor=cursor)
        yield from page["messages"]
        if page["next"] is None:
            return
        cursor = page["next"]
        left = None if left is None else left - len(page["messages"])


def _targets(relay: Api, wanted: dict[str, str]) -> list[str]:
    """Unfinished recipients that fit; a message as a whole where all of its recipients do."""
    targets = []
    for message in _messages(relay, wanted):
        fitting = [item for item in message["recipients"] if _fits(item, wanted)]
        if len(fitting) == len(message["recipients"]):
            targets.append(message["id"])
        else:
            targets += [item["id"] for item in fitting]
    return targets


def _fits(item: dict[str, Any], wanted: dict[str, str]) -> bool:
    to, address = wanted.get("to", ""), item["address"]
    return (
        item["finished_at"] is None
        and (not wanted.get("domain") or address.endswith("@" + wanted["domain"].lower()))
        and wanted.get("state", item["status"]) == item["status"]
        and (not to or (address.endswith(to) if to.startswith("@") else address == to))
    )


def _addresses(message: dict[str, Any]) -> str:
    recipients = message["recipients"]
    if not recipients:
        return ""
    more = f" +{len(recipients) - 1}" if len(recipients) > 1 else ""
    return f"{recipients[0]['address']}{more}"


def _why(message: dict[str, Any]) -> str:
    """What was said of the recipient that needs most attention: open, then failed, then done."""
    ranked = sorted(message["recipients"], key=_need)
    return next((said for item in ranked if (said := _said(item))), "")


def _need(item: dict[str, Any]) -> int:
    if item["finished_at"] is None:
        return 0
    return 2 if item["status"] == "delivered" else 1


def _is_open(message: dict[str, Any]) -> bool:
    return any(item["finished_at"] is None for item in message["recipients"])


def _said(item: dict[str, Any]) -> str:
    """Why it waits, or what happened last; when it is tried next."""
    if item["next_attempt_at"] is not None:
        return f"{_text(item)} (next attempt {age(item['next_attempt_at'])})"
    return wait_text(item["waiting"]) or _text(item)


def _told(item: dict[str, Any]) -> str:
    """Why it waits, or what happened last, and the last reply where that is something else."""
    said, reply = wait_text(item["waiting"]) or _text(item), item["reply"]
    if reply is None or reply["text"] in said:
        return said
    parts = (str(reply["code"]), reply["enhanced"] or "", reply["text"])
    return f"{said} (last reply: {' '.join(part for part in parts if part)})"


def _text(item: dict[str, Any]) -> str:
    return str(item["text"] or item["reason"])


def _host(item: dict[str, Any]) -> str:
    remote = item["remote"]
    return f"{remote['host']} [{remote['ip']}]" if remote is not None else "-"


def _next(item: dict[str, Any]) -> str:
    if item["next_attempt_at"] is not None:
        return age(item["next_attempt_at"])
    waiting = item["waiting"]
    return age(waiting["until"]) if waiting is not None and waiting["until"] else "-"
