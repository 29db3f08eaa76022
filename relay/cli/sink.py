"""`relay sink`: the simulated receiving internet."""

from relay.cli.options import Changes, Config, read_settings


def sink(config: Config = "", changes: Changes = None) -> None:
    """Run a simulated internet on loopback: DNS (sink.dns) and MX hosts (sink.smtp)."""
    from relay.sim.server import run_sink
    from relay.telemetry.log import configure_logging

    settings = read_settings(config, changes, delivery__mode="sink").settings
    configure_logging(settings, service="sink")
    run_sink(settings)
