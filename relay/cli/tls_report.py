"""`relay tls-report`: what domains are told of our TLS sessions with them (RFC 8460)."""

from typing import Annotated

import typer

from relay.cli.api import DEFAULT_API, Api, ApiUrl
from relay.cli.show import print_json

tls_report_app = typer.Typer(
    help="What domains are told of TLS sessions with them.", no_args_is_help=True
)


@tls_report_app.callback()
def tls_report() -> None:
    """What domains are told of TLS sessions with them (TLS-RPT, RFC 8460)."""


@tls_report_app.command()
def show(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="Such as gmail.com.")],
    day: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", help="A day of UTC; today where none is given.")
    ] = "",
    api: ApiUrl = DEFAULT_API,
) -> None:
    """Print, as JSON, what a domain that asks for reports would be told of a day."""
    with Api(api) as relay:
        print_json(relay.get("tls-reports", domain, day=day))
