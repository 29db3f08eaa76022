"""`relay status`: whether relay is up and what lies in its queue."""

import os
from typing import Any

import typer

from relay.cli.api import DEFAULT_API, Api, ApiUrl
from relay.cli.show import AsJson, age, print_json


def status(api: ApiUrl = DEFAULT_API, as_json: AsJson = False) -> None:
    """Say what relay does; exit code 69 where it is down, 75 where it has no worker or store."""
    with Api(api) as relay:
        about = relay.get("status")
    if as_json:
        print_json(about)
    else:
        _tell(api, about)
    if not about["workers"]:
        raise typer.Exit(os.EX_TEMPFAIL)


def _tell(api: str, about: dict[str, Any]) -> None:
    mode = "sink: no mail leaves the machine" if about["mode"] == "sink" else about["mode"]
    workers = len(about["workers"])
    print(f"relay {about['version']} at {api} ({mode})")
    print(f"  workers     {workers or 'none: mail is accepted and waits'}")
    print(f"  queues      {about['queues']:,}, oldest message {age(about['oldest_at'])}")
    if about["suspensions"]:
        print(f"  suspended   {about['suspensions']:,} (relay queue suspensions)")
    print(f"  recipients  {_counts(about['states']) or 'none under way'}")
    print(f"  ended       {_counts(about['ended']) or 'none yet'}")


def _counts(of: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in of.items() if count)
