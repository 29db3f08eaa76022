"""`relay config`: what is set and where from, whether it holds, what there is to set."""

from typing import Annotated

import typer

from relay.cli.options import Changes, Config, read_settings

config_app = typer.Typer(help="Show, check and document the configuration.", no_args_is_help=True)


@config_app.command("show")
def show_settings(
    config: Config = "",
    changes: Changes = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each came from.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Print every setting as it is in force; secrets show as ***."""
    from relay.settings.report import as_rows, as_toml

    loaded = read_settings(config, changes)
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(as_rows(loaded)), indent=2).decode())
        return
    print(as_toml(loaded, with_origin=origin), end="")


@config_app.command("check")
def check_settings(config: Config = "", changes: Changes = None) -> None:
    """Read the configuration as the daemons do; one line and exit code 78 where it is wrong."""
    from relay.cli.check import check

    loaded = read_settings(config, changes)
    check(loaded)
    print(f"ok: {loaded.path or 'no file'}, {len(loaded.origins)} settings changed")


@config_app.command("smarthosts")
def list_smarthosts() -> None:
    """Print the smarthosts that are known by name (Markdown); `smarthost = "gmail"` in a route."""
    from relay.settings.reference import smarthosts_table

    print(smarthosts_table(), end="")


@config_app.command("docs")
def document_settings() -> None:
    """Print the reference of all settings (Markdown)."""
    from relay.settings.reference import reference

    print(reference(), end="")
