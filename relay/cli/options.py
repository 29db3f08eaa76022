"""Options that every verb of the daemon kind takes, and the settings that they lead to."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from relay.settings.loader import Loaded
    from relay.settings.schema import Settings

Config = Annotated[
    str, typer.Option("--config", metavar="FILE", help="Configuration file (or RELAY_CONFIG).")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting; repeatable."),
]


def read_settings(config: str, changes: list[str] | None, **flags: Any) -> "Loaded":
    """File < environment < `--set` < the verb's own flags (`delivery__mode="live"`)."""
    from relay.settings.loader import load

    return load(config or None, as_flags(changes) | named_flags(flags))


def as_flags(changes: list[str] | None) -> dict[str, Any]:
    """`["smtp.listen=127.0.0.1:25"]` as a mapping; a usage error where one has no `=`."""
    flags = {}
    for change in changes or []:
        name, equals, value = change.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set {change}: write --set section.key=value")
        flags[name.strip()] = value.strip()
    return flags


def named_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Those of a verb's flags that were given, by the name of their setting."""
    return {name.replace("__", "."): value for name, value in flags.items() if value is not None}


def start_daemon(service: str, config: str, changes: list[str] | None) -> "Settings":
    """What every daemon with a store does first: settings that hold, an explicit mode, the log."""
    from relay.cli.check import check
    from relay.model.errors import ConfigError
    from relay.telemetry.lines import SHARED_BLOCK
    from relay.telemetry.log import configure_logging

    loaded = read_settings(config, changes)
    settings = loaded.settings
    if settings.delivery.mode is None:
        raise ConfigError(
            "delivery.mode: is not set, and only `relay up` has a default; set "
            "RELAY_DELIVERY_MODE=sink (no mail leaves the machine) or live"
        )
    if not settings.redis.url:
        raise ConfigError(
            "redis.url: is not set; `relay up` starts a private Redis, the other daemons need one"
        )
    check(loaded, signs=service == "worker")
    configure_logging(settings, service=service, block=SHARED_BLOCK)
    return settings
