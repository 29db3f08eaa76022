"""The command `relay`: registers the verbs, turns every fault into a sentence and an exit code."""

import os
import sys
from typing import Annotated

import typer

from relay.cli.config import config_app
from relay.cli.dkim import dkim_app
from relay.cli.http import http
from relay.cli.message import message_app
from relay.cli.probe import probe
from relay.cli.queue import queue_app
from relay.cli.send import send
from relay.cli.sink import sink
from relay.cli.smtpd import smtpd
from relay.cli.status import status
from relay.cli.suppress import suppress_app
from relay.cli.tls_report import tls_report_app
from relay.cli.up import up
from relay.cli.worker import worker

app = typer.Typer(
    name="relay",
    help="A queue-backed bulk and outbound mail relay on Redis and Celery.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for verb in (up, smtpd, http, worker, sink, send, probe, status):
    app.command()(verb)
app.add_typer(message_app, name="message")
app.add_typer(queue_app, name="queue")
app.add_typer(suppress_app, name="suppress")
app.add_typer(config_app, name="config")
app.add_typer(dkim_app, name="dkim")
app.add_typer(tls_report_app, name="tls-report")


def _print_version(wanted: bool) -> None:
    if wanted:
        from relay import __version__

        print(f"relay {__version__}")
        raise typer.Exit


@app.callback()
def relay(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """A queue-backed bulk and outbound mail relay on Redis and Celery."""


def main() -> None:
    """The console script; never ends in a traceback."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; answers the exit code (`sysexits.h`)."""
    try:
        code = app(arguments, prog_name="relay", standalone_mode=False)
        return code if isinstance(code, int) else os.EX_OK
    except typer.TyperException as error:  # a fault of usage
        sentence = " ".join(error.format_message().split())
        sentence = sentence.removeprefix("Invalid value: ").rstrip(".")
        print(f"relay: {sentence}; relay --help shows what there is", file=sys.stderr)
        return os.EX_USAGE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else os.EX_OK
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # the reader of our output is gone: `relay queue ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        from relay.cli.faults import report

        return report(error)


if __name__ == "__main__":
    main()
