"""What a configuration means: faults that no single value shows, found before anything starts."""

from relay.delivery.directory import load_rule_files
from relay.delivery.sign import load_keys, signing_rules
from relay.ingress.gate import Gate
from relay.ingress.http.server import check_exposure
from relay.model.errors import ConfigError, LocalProtocolError
from relay.net.dns_transport import parse_nameserver
from relay.policy.reverse_path import ReversePaths
from relay.policy.route import RouteTable
from relay.settings.catalogue import tables
from relay.settings.loader import Loaded
from relay.settings.schema import Mode, Settings
from relay.smtp import command


def check(loaded: Loaded, *, signs: bool = True) -> None:
    """ConfigError with file, setting, fault and fix where a daemon would refuse to start.

    Only what `signs` needs the private keys: doors run where there are none.
    """
    settings = loaded.settings
    try:
        routes = RouteTable.from_settings(settings)
        ReversePaths.from_settings(settings, routes)
        load_rule_files(settings)
        signing_rules(settings)
        if signs:
            load_keys(settings)
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
    is_listed = name.partition("[")[0] in tables()
    place = str(loaded.path) if is_listed else loaded.origins.get(name)
    return f"{place}: {fault}" if place else fault
