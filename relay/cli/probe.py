"""`relay probe`: the road to a domain as mail would find it now; nothing is sent."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from relay.cli.api import DEFAULT_API, Api, ApiUrl
from relay.cli.show import AsJson, print_json

#: Width of the words at the left.
_LABEL = 12


def probe(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="Such as gmail.com.")],
    verify: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Ask a host for it (RCPT, no DATA).")
    ] = "",
    sender: Annotated[
        str, typer.Option("--from", metavar="ADDRESS", help="In whose name; none: <>.")
    ] = "",
    api: ApiUrl = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Look at MX hosts, greetings, extensions, TLS and limits of a domain; no message is sent.

    Exit code 0 where a host is ready for mail (and takes the address), 67 where the address is
    refused for good, 68 where the domain takes no mail, 75 where it may later.
    """
    with Api(api) as relay:
        report = relay.post("probe", said={"domain": domain, "verify": verify, "from": sender})
    if as_json:
        print_json(report)
    else:
        for line in lines_of(report):
            print(line)
    raise typer.Exit(exit_code_of(report))


def exit_code_of(report: dict[str, Any]) -> int:
    """What a script is told of a report."""
    if not report["takes_mail"]:
        verdicts = [report["problem"], *(host["verdict"] for host in report["hosts"])]
        said = [verdict["severity"] for verdict in verdicts if verdict is not None]
        is_final = bool(said) and all(severity == "permanent" for severity in said)
        return os.EX_NOHOST if is_final else os.EX_TEMPFAIL
    recipient = report["recipient"]
    if recipient is None or recipient["accepted"]:
        return os.EX_OK
    is_final = recipient["verdict"]["severity"] == "permanent"
    return os.EX_NOUSER if is_final else os.EX_TEMPFAIL


def lines_of(report: dict[str, Any], now: datetime | None = None) -> Iterator[str]:
    """The report for people, a line each; what others wrote cannot act on a terminal."""
    now = now or datetime.now(UTC)
    for line in _lines(report, now):
        yield "".join(char if char.isprintable() else "?" for char in line)


def _lines(report: dict[str, Any], now: datetime) -> Iterator[str]:
    where = "in the simulated internet" if report["mode"] == "sink" else "live"
    yield f"{report['domain']}, {where}"
    yield from _mx(report)
    yield from _published(report)
    if report["problem"] is not None:
        yield from _judged("no route", report["problem"])
    if report["route"] is not None:
        yield from _route(report["route"])
    for host in report["hosts"]:
        yield ""
        yield from _host(host, now)
    if report["recipient"] is not None:
        yield ""
        yield from _recipient(report["recipient"])
    yield ""
    yield _end(report)


def _mx(report: dict[str, Any]) -> Iterator[str]:
    label = "own host" if report["implicit_mx"] else "MX"
    for mx in report["mx"]:
        addresses = ", ".join(mx["addresses"]) or mx["problem"]
        preference = "" if report["implicit_mx"] else f"{mx['preference']:>5}  "
        yield _line(label, f"{preference}{mx['host']}  {addresses}")
        label = ""


def _published(report: dict[str, Any]) -> Iterator[str]:
    """What the domain itself says of TLS."""
    sts = report["mta_sts"]
    if sts is not None:
        yield _line("MTA-STS", _mta_sts(sts))
        yield _line("TLS-RPT", report["tls_rpt"] or "none")
    if report["mx"]:
        yield from _dane(report["dane"])


def _dane(dane: list[dict[str, Any]]) -> Iterator[str]:
    label = "DANE"
    for host in dane:
        count = len(host["records"])
        found = f"{count} TLSA record{'' if count == 1 else 's'}" if count else "unknown"
        said = "heeded" if host["heeded"] else host["problem"]
        yield _line(label, f"{host['host']}: {found}, {said}")
        label = ""
    if not dane:
        yield _line(label, "none")


def _mta_sts(sts: dict[str, Any]) -> str:
    if not sts["mode"]:
        return f"policy {sts['id']}, not to be had: {sts['problem']}" if sts["id"] else "none"
    days = sts["max_age_s"] // 86400
    holds = f"{days} day{'' if days == 1 else 's'}"
    return f"{sts['mode']}, id {sts['id']}, {holds}: {', '.join(sts['hosts']) or 'no hosts'}"


def _route(route: dict[str, Any]) -> Iterator[str]:
    how = f"smarthost {route['destination']}" if route["by_smarthost"] else "by MX"
    provider = f", provider {route['provider']}" if route["provider"] else ""
    yield _line("route", f"{how}, site {route['site']}{provider}")
    source = f" from {route['source']}" if route["source"] else ""
    yield _line("we say", f"EHLO {route['hello_name']}{source}, TLS {route['tls']}")
    yield _line("limits", _limits(route["limits"]))


def _limits(limits: dict[str, Any]) -> str:
    """As a sentence; a rate of 0 is no limit."""
    said = [f"{limits['max_connections']} connections"]
    if limits["connection_rate_per_s"]:
        said.append(f"{_rate(limits['connection_rate_per_s'])} new ones")
    if limits["message_rate_per_s"]:
        said.append(f"{_rate(limits['message_rate_per_s'])} messages")
    said.append(f"{limits['mails_per_connection']} messages on each")
    said.append(f"{limits['recipients_per_transaction']} recipients a message")
    return ", ".join(said)


def _rate(per_s: float) -> str:
    return f"{per_s:.3g}/s" if per_s >= 1 else f"{per_s * 60:.3g}/min"


def _host(host: dict[str, Any], now: datetime) -> Iterator[str]:
    yield f"{host['host']} [{host['ip']}]:{host['port']}"
    spent = ", ".join(f"{phase} {s * 1000:.1f} ms" for phase, s in host["timings"].items())
    if host["greeting"]:
        yield _line("greeting", host["greeting"])
    if host["extensions"]:
        yield _line("offers", ", ".join(host["extensions"]))
    if host["tls"] is not None:
        yield from _tls(host["tls"], now)
    elif host["ready"]:
        why = f": {host['clear_because']}" if host["clear_because"] else ""
        yield _line("TLS", f"none{why}")
    if host["verdict"] is not None:
        yield from _judged(f"no {host['phase']}", host["verdict"])
    if spent:
        yield _line("took", spent)


def _tls(tls: dict[str, Any], now: datetime) -> Iterator[str]:
    yield _line("TLS", f"{tls['version']} {tls['cipher']}")
    certificate = tls["certificate"]
    if certificate is None:
        yield _line("certificate", "unreadable")
        return
    names = certificate["names"]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    yield _line("certificate", f"{', '.join(names[:4])}{more}, issued by {certificate['issuer']}")
    days = (datetime.fromisoformat(certificate["not_after"]) - now).days
    ends = certificate["not_after"][:10]
    holds = f"until {ends} ({days} days)" if days >= 0 else f"expired on {ends}"
    by = " by TLSA records" if tls["policy"] == "dane" else ""
    said = f"verified{by}" if certificate["verified"] else f"not verified: {certificate['problem']}"
    yield _line("", f"{holds}, {said}")


def _recipient(recipient: dict[str, Any]) -> Iterator[str]:
    yield f"{recipient['address']} from <{recipient['reverse_path']}>, asked of {recipient['host']}"
    words = {"success": "taken", "permanent": "refused", "transient": "not now"}
    yield from _judged(words[recipient["verdict"]["severity"]], recipient["verdict"])


def _judged(label: str, verdict: dict[str, Any]) -> Iterator[str]:
    """A verdict as a sentence, and the server's own words below it."""
    judged = "" if verdict["severity"] == "success" else f"{verdict['severity']}, "
    yield _line(label, f"{verdict['text']} ({judged}{verdict['reason']})")
    reply = verdict["reply"]
    if reply is not None:
        parts = (str(reply["code"]), reply["enhanced"] or "", reply["text"])
        yield _line("", " ".join(part for part in parts if part))


def _end(report: dict[str, Any]) -> str:
    ready = sum(host["ready"] for host in report["hosts"])
    if not report["hosts"]:
        return "Mail has nowhere to go."
    return f"{ready} of {len(report['hosts'])} addresses are ready for mail. Nothing was sent."


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}} {text}"
