"""The dialogue of a delivery as it comes in (`relay send --trace`), with its times."""

from collections.abc import Iterator
from typing import Any

from relay.cli.show import print_json


def tell_dialogue(event: dict[str, Any], *, as_json: bool) -> None:
    """Print what an event `session.dialogue` tells."""
    if as_json:
        print_json({"type": event["type"], "timestamp": event["timestamp"], **event["data"]})
        return
    for line in dialogue_lines(event["data"]):
        print(line, flush=True)


def dialogue_lines(data: dict[str, Any]) -> Iterator[str]:
    """The event for people, a line each; what others wrote cannot act on a terminal."""
    for line in _lines(data):
        yield "".join(char if char.isprintable() else "?" for char in line)


def _lines(data: dict[str, Any]) -> Iterator[str]:
    entries = data["entries"]
    if entries and entries[0]["stage"] == "connect":
        yield f"  {_about(data)}"
    for entry in entries:
        stage, took = entry["stage"], f"{entry['after_s'] * 1000:.1f} ms"
        for line in entry["lines"] or [""]:
            yield f"    {stage:<9} {took:>10}  {line}".rstrip()
            stage = took = ""


def _about(data: dict[str, Any]) -> str:
    """Whom we speak to, how, and for whom."""
    remote, tls, before = data["remote"], data["tls"], data["messages_before"]
    how = "in clear"
    if tls:
        checked = "verified" if tls["verified"] else "not verified"
        how = f"{tls['version']} {tls['cipher']}, {checked}"
    opened = "new" if not before else f"open, {before} message{'s' if before > 1 else ''} before"
    whom = ", ".join(data["recipients"][:3]) + (", …" if len(data["recipients"]) > 3 else "")
    return f"{remote['host']} [{remote['ip']}]:{remote['port']} ({opened}; {how}) for {whom}"
