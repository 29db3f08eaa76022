"""What a configuration means: faults that no single value shows, found before anything starts."""

from relay.delivery.directory import load_rule_files
from relay.ingress.gate import Gate
from relay.ingress.http.server import check_exposure
from relay.model.errors import ConfigError, LocalProtocolError
from relay.net.dns_transport import parse_nameserver
from relay.policy.route import RouteTable
from relay.settings.loader import Loaded
from relay.settings.schema import Mode, Settings
from relay.smtp import command


def check(loaded: Loaded) -> None:
    """ConfigError with file, setting, fault and fix where a daemon would refuse to start."""
    settings = loaded.settings
    try:
        RouteTable.from_settings(settings)
        load_rule_files(settings)
        for nameserver in settings.dns.nameservers:
            parse_nameserver(nameserver)
        Gate(settings.smtp)
        check_exposure(settings)
        _check_hostname(settings)
        _check_replicas(settings)
        if settings.delivery.mode is not Mode.LIVE:
            _check_sink(settings)
    except ConfigError as error:
        raise ConfigError(_placed(str(error), loaded)) from None


def _check_hostname(settings: Settings) -> None:
    name = settings.delivery.hostname
    try:
        command.hello(command.EHLO, name or "localhost")
    except LocalProtocolError:
        raise ConfigError(
            f"delivery.hostname: {name!r} cannot stand in EHLO; write a domain name such as "
            "mail.example.org"
        ) from None


def _check_replicas(settings: Settings) -> None:
    if settings.redis.replicas and not settings.redis.url:
        raise ConfigError(
            f"redis.replicas: is {settings.redis.replicas}, and the private Redis of `relay up` "
            "has none: nothing would ever be accepted; set redis.url, or redis.replicas = 0"
        )


def _check_sink(settings: Settings) -> None:
    from relay.sim.server import check_addresses

    check_addresses(settings.sink)


def _placed(fault: str, loaded: Loaded) -> str:
    """The fault behind the place where its setting was made; faults of files name theirs."""
    name = fault.partition(":")[0]
    place = str(loaded.path) if name.startswith("routes[") else loaded.origins.get(name)
    return f"{place}: {fault}" if place else fault
