"""`relay smtpd`: the SMTP listener."""

from relay.cli.options import Changes, Config, start_daemon


def smtpd(config: Config = "", changes: Changes = None) -> None:
    """Take mail by SMTP (smtp.listen) into the queue."""
    settings = start_daemon("smtpd", config, changes)
    from relay.ingress.smtpd import run

    run(settings)
