"""`relay status`: whether relay is up, and what lies in its queue, asked over HTTP."""

import os
from typing import Annotated, Any

import typer

_DEFAULT_API = "http://127.0.0.1:8425"


def status(
    api: Annotated[
        str, typer.Option("--api", envvar="RELAY_API", metavar="URL", help="Where relay http is.")
    ] = _DEFAULT_API,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say whether relay takes mail and what is in its queue; exit code 69 where it is down."""
    about = _ask(api.rstrip("/"))
    if as_json:
        import json

        print(json.dumps(about, indent=2))
    else:
        print(f"relay {about['version']} at {api}: {'ready' if about['ready'] else 'not ready'}")
        for state, count in about["recipients"].items():
            print(f"  {state:<10} {count:>12,}")
    if not about["ready"]:
        raise typer.Exit(os.EX_TEMPFAIL)


def _ask(api: str) -> dict[str, Any]:
    import httpx

    from relay.cli.faults import CommandFailed

    try:
        with httpx.Client(base_url=api, timeout=5, trust_env=False) as client:
            ready = client.get("/readyz")
            metrics = client.get("/metrics").text
    except httpx.InvalidURL as error:
        raise CommandFailed(f"--api: {api} is no URL: {error}", os.EX_USAGE) from None
    except httpx.HTTPError as error:
        raise CommandFailed(
            f"nothing answers at {api} ({error}); is relay up? (relay up, or --api URL)"
        ) from None
    return {"ready": ready.status_code < 500, **parse_metrics(metrics)}


def parse_metrics(text: str) -> dict[str, Any]:
    """Version and recipients by state out of what /metrics says."""
    from prometheus_client.parser import text_string_to_metric_families

    about: dict[str, Any] = {"version": "", "recipients": {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "relay_build_info":
                about["version"] = sample.labels.get("version", "")
            elif sample.name == "relay_queue_recipients":
                about["recipients"][sample.labels["state"]] = int(sample.value)
    return about
