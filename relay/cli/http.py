"""`relay http`: the HTTP API."""

from relay.cli.options import Changes, Config, start_daemon


def http(config: Config = "", changes: Changes = None) -> None:
    """Serve the HTTP API and /metrics (http.listen)."""
    settings = start_daemon("http", config, changes)
    from relay.ingress.http import run

    run(settings)
