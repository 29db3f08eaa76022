"""`relay queue`: look at queues; suspend, resume and flush them."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from relay.cli.api import DEFAULT_API, Api, ApiUrl
from relay.cli.show import AsJson, Yes, age, confirm, print_json, print_table, wait_text, when

queue_app = typer.Typer(help="Look at queues and stop or hurry them.", no_args_is_help=True)

MailClass = Annotated[str, typer.Option("--class", help="transactional or bulk.")]
Tenant = Annotated[str, typer.Option(help="Tenant.")]
Campaign = Annotated[str, typer.Option(help="Campaign.")]
#: typer takes a bare [word] for markup.
_DESTINATION = r"Domain (~domain: its mail with TLS-Required: No alone), or \[name] of a route."
Destination = Annotated[str, typer.Option("--domain", "--destination", help=_DESTINATION)]
All = Annotated[bool, typer.Option("--all", help="Every queue.")]


@queue_app.command("ls")
def ls(
    mail_class: MailClass = "",
    tenant: Tenant = "",
    campaign: Campaign = "",
    destination: Destination = "",
    limit: Annotated[int, typer.Option(min=1, max=10000, help="At most so many.")] = 1000,
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """List queues: counts by state, the age of the oldest recipient, why it waits."""
    wanted = _filter(mail_class, tenant, campaign, destination)
    with Api(api) as relay:
        queues = relay.get("queues", **wanted, limit=limit)["queues"]
    if as_json:
        for queue in queues:
            print_json(queue)
        return
    rows = [
        (
            queue["class"],
            queue["campaign"] or "-",
            queue["destination"],
            *(str(queue[state]) for state in ("ready", "retry", "deferred", "held", "claimed")),
            age(queue["oldest_at"]),
            age(queue["next_due_at"]),
            _why(queue),
        )
        for queue in queues
    ]
    columns = ("class", "campaign", "destination", "ready", "retry", "deferred", "held", "claimed")
    print_table((*columns, "oldest", "next", "why"), rows)


@queue_app.command("show")
def show(
    destination: Annotated[str, typer.Argument(metavar="DOMAIN", help=_DESTINATION)],
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Show the queues of one destination in full."""
    with Api(api) as relay:
        queues = relay.get("queues", destination=destination)["queues"]
    for queue in queues:
        if as_json:
            print_json(queue)
            continue
        for name, value in _told(queue):
            if value:
                print(f"{name:<11} {value}")
        print()
    if not queues and not as_json:
        print(f"no queue for {destination}: nothing is waiting to go there")


@queue_app.command("suspend")
def suspend(
    mail_class: MailClass = "",
    tenant: Tenant = "",
    campaign: Campaign = "",
    destination: Destination = "",
    everything: All = False,
    reason: Annotated[str, typer.Option(help="Shown wherever something waits for it.")] = "",
    duration: Annotated[
        str, typer.Option("--duration", "--for", metavar="DURATION", help="Such as 4h.")
    ] = "1h",
    yes: Yes = False,
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Stop attempts of the matching queues, present and to come, for a while."""
    wanted = _demanded("suspend", mail_class, tenant, campaign, destination, everything=everything)
    if everything:
        confirm("suspend every queue?", yes=yes)
    said = {**wanted, "duration": duration, **({"reason": reason} if reason else {})}
    with Api(api) as relay:
        suspension = relay.post("suspensions", said=said)
    if as_json:
        print_json(suspension)
    else:
        count, until = suspension["queues"], when(suspension["until"])
        print(
            f"suspended until {until}: {count} queue{'' if count == 1 else 's'} now, "
            f"others as they come; relay queue resume {suspension['id']}"
        )


@queue_app.command("suspensions")
def suspensions(api: ApiUrl = DEFAULT_API, as_json: AsJson = False) -> None:
    """List the suspensions in force."""
    with Api(api) as relay:
        found = relay.get("suspensions")["suspensions"]
    if as_json:
        for suspension in found:
            print_json(suspension)
        return
    columns = ("id", "class", "tenant", "campaign", "destination")
    rows = [
        (*(item[column] or "*" for column in columns), age(item["until"]), item["reason"])
        for item in found
    ]
    rows = [(row[0], *(cell or "*" for cell in row[1:])) for row in rows]
    print_table((*columns, "ends", "reason"), rows)


@queue_app.command("resume")
def resume(
    id: Annotated[str, typer.Argument(metavar="[ID]", help="A suspension.")] = "",
    mail_class: MailClass = "",
    tenant: Tenant = "",
    campaign: Campaign = "",
    destination: Destination = "",
    everything: All = False,
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """End a suspension by its id, those made with exactly these filters, or with --all each."""
    with Api(api) as relay:
        if id:
            resumed = relay.delete("suspensions", id)["resumed"]
        elif everything:
            found = relay.get("suspensions")["suspensions"]
            resumed = sum(relay.delete("suspensions", item["id"])["resumed"] for item in found)
        else:
            wanted = _demanded(
                "resume", mail_class, tenant, campaign, destination, everything=False
            )
            resumed = relay.delete("suspensions", **wanted)["resumed"]
    if as_json:
        print_json({"resumed": resumed})
    else:
        print(f"resumed: {resumed} suspension{'' if resumed == 1 else 's'} ended")


@queue_app.command("flush")
def flush(
    mail_class: MailClass = "",
    tenant: Tenant = "",
    campaign: Campaign = "",
    destination: Destination = "",
    everything: All = False,
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Try the deferred recipients of the matching queues now."""
    wanted = _demanded("flush", mail_class, tenant, campaign, destination, everything=everything)
    with Api(api) as relay:
        flushed = relay.post("queues", "flush", said=wanted)["flushed"]
    if as_json:
        print_json({"flushed": flushed})
    else:
        print(f"flush: {flushed} recipient{'' if flushed == 1 else 's'} tried now")


def _filter(mail_class: str, tenant: str, campaign: str, destination: str) -> dict[str, Any]:
    """The filters that were given, by the names of the API."""
    named = {
        "class": mail_class,
        "tenant": tenant,
        "campaign": campaign,
        "destination": destination,
    }
    return {name: value for name, value in named.items() if value}


def _demanded(
    verb: str, mail_class: str, tenant: str, campaign: str, destination: str, *, everything: bool
) -> dict[str, Any]:
    """The filters; a usage error where neither one nor `--all` was given, or both."""
    wanted = _filter(mail_class, tenant, campaign, destination)
    if not wanted and not everything:
        raise typer.BadParameter(f"say which: a filter, or --all to {verb} every queue")
    if wanted and everything:
        raise typer.BadParameter("give a filter or --all, not both")
    return {**wanted, **({"all": True} if everything else {})}


def _why(queue: dict[str, Any]) -> str:
    return wait_text(queue["suspended"] or queue["waiting"])


def _told(queue: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A queue for people: what it is, what lies in it by state, why it waits."""
    yield "destination", queue["destination"]
    yield "class", queue["class"]
    for name in ("tenant", "campaign", "lane"):
        yield name, queue[name]
    for state in ("ready", "retry", "deferred", "held", "claimed"):
        yield state, str(queue[state] or "")
    yield "oldest", when(queue["oldest_at"])
    yield "next due", when(queue["next_due_at"]) if queue["next_due_at"] else ""
    yield "why", _why(queue)
