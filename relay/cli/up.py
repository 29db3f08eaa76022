"""`relay up`: everything on one machine, supervised, in sink mode unless told otherwise."""

from typing import Annotated, Any

import typer

from relay.cli.options import Changes, Config, as_flags, named_flags


def up(
    config: Config = "",
    changes: Changes = None,
    live: Annotated[
        bool | None,
        typer.Option("--live/--sink", help="Deliver for real, or to the simulated internet."),
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option("--data-dir", metavar="DIR", help="Where the data lies.")
    ] = None,
) -> None:
    """Run everything on this machine: Redis, workers, SMTP, HTTP, and the simulated internet."""
    import asyncio

    from relay.cli.check import check
    from relay.cli.household import Household, prepare
    from relay.settings.loader import load
    from relay.settings.schema import Mode

    mode = {None: None, True: "live", False: "sink"}[live]
    flags: dict[str, Any] = as_flags(changes)
    flags |= named_flags({"delivery__mode": mode, "up__data_dir": data_dir})
    loaded = load(config or None, flags)
    if loaded.settings.delivery.mode is None:
        flags["delivery.mode"] = Mode.SINK.value
        loaded = load(config or None, flags)
    check(loaded)
    household: Household = prepare(loaded, flags)
    raise SystemExit(asyncio.run(household.run()))
