"""Static routes: which recipient domains leave through a smarthost, and under which destination.

A destination is what recipients are grouped by: the domain itself, or `[name]` of a smarthost
route. Exact domains beat suffixes, longer suffixes beat shorter ones, `*` comes last.
"""

import re
from collections.abc import Sequence

import msgspec

from relay.model.address import normalize_domain
from relay.model.credentials import Credentials
from relay.model.destination import domain_of
from relay.model.errors import ConfigError
from relay.policy.account import account_of, names_account
from relay.policy.smarthost import Smarthost, parse_smarthost
from relay.settings.schema import Route, Settings, TlsPolicy, Verp

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,99}")


class StaticRoute(msgspec.Struct, frozen=True):
    """A smarthost as a next hop; `tls` is what the operator demands, None: by the URL alone."""

    name: str
    host: str
    port: int
    scheme: str = "smtp"
    credentials: Credentials | None = None
    tls: TlsPolicy | None = None
    verp: Verp | None = None

    @property
    def destination(self) -> str:
        return f"[{self.name}]"

    @property
    def implicit_tls(self) -> bool:
        return self.scheme == "smtps"

    @property
    def is_socket(self) -> bool:
        """Whether `host` is the path of a Unix socket."""
        return self.host.startswith("/")


class _Entry(msgspec.Struct, frozen=True):
    """What a domain pattern leads to: a smarthost, or the domain's own MX with a TLS demand."""

    route: StaticRoute | None
    tls: TlsPolicy | None
    verp: Verp | None = None


_DIRECT = _Entry(None, None)


class RouteTable:
    """The routes of the settings, ready to be asked per recipient."""

    def __init__(self, routes: Sequence[Route] = (), smarthost: str = "") -> None:
        self._exact: dict[str, _Entry] = {}
        self._suffixes: dict[str, _Entry] = {}
        self._default: _Entry | None = None
        self._by_destination: dict[str, StaticRoute] = {}
        self._accounts: dict[tuple[str, int, str], Credentials] = {}
        for number, route in enumerate(routes, 1):
            self._add(route, f"routes[{number}]")
        if smarthost:
            if self._default is not None:
                raise ConfigError(
                    'delivery.smarthost: [[routes]] has domain = "*" already; remove one of them'
                )
            self._default = self._entry(
                Route(domain="*", smarthost=smarthost), "delivery.smarthost", "delivery"
            )

    def __repr__(self) -> str:
        """All routes, passwords hidden."""
        return f"RouteTable({self._exact!r}, {self._suffixes!r}, {self._default!r})"

    @classmethod
    def from_settings(cls, settings: Settings) -> "RouteTable":
        """The table of `[[routes]]` and `delivery.smarthost`."""
        return cls(settings.routes, settings.delivery.smarthost)

    def destination_for(self, domain: str) -> str:
        """The destination of a recipient domain (lower-case A-labels)."""
        entry = self._find(domain)
        return entry.route.destination if entry.route else domain

    def route(self, destination: str) -> StaticRoute | None:
        """The smarthost behind a destination; None where mail goes to the domain's MX."""
        return self._by_destination.get(destination)

    def tls_demanded(self, domain: str) -> TlsPolicy | None:
        """What a route without a smarthost demands of TLS at the domain's own MX."""
        entry = self._find(domain)
        return None if entry.route else entry.tls

    def verp(self, destination: str) -> Verp | None:
        """What the route of a destination demands of reverse-paths; None: nothing."""
        route = self._by_destination.get(destination)
        return route.verp if route is not None else self._find(domain_of(destination)).verp

    def _find(self, domain: str) -> _Entry:
        if domain in self._exact:
            return self._exact[domain]
        rest = domain
        while self._suffixes and rest:
            _, _, rest = rest.partition(".")
            if rest in self._suffixes:
                return self._suffixes[rest]
        return self._default or _DIRECT

    def _add(self, route: Route, where: str) -> None:
        entry = self._entry(route, f"{where}.smarthost", where)
        if route.domain == "*":
            if self._default is not None:
                raise ConfigError(f'{where}.domain: "*" stands in an earlier route')
            self._default = entry
            return
        try:
            domain = normalize_domain(route.domain.removeprefix("."))
        except ValueError as error:
            raise ConfigError(
                f"{where}.domain: '{route.domain}' {error}; "
                'write "*", "example.org" or ".example.org" (its subdomains)'
            ) from None
        table = self._suffixes if route.domain.startswith(".") else self._exact
        if domain in table:
            raise ConfigError(f"{where}.domain: '{route.domain}' stands in an earlier route")
        table[domain] = entry

    def _entry(self, route: Route, key: str, where: str) -> _Entry:
        if not route.smarthost:
            if route.name:
                raise ConfigError(f"{where}.name: a route to the domain's own MX has no name")
            if names_account(route):
                raise ConfigError(f"{where}: an account without a smarthost; add smarthost = …")
            return _Entry(None, route.tls, route.verp)
        smarthost = parse_smarthost(route.smarthost, key=key, has_account=names_account(route))
        account = account_of(route, smarthost, where)
        _check_tls(route.tls, smarthost, f"{where}.tls", has_account=account is not None)
        static = StaticRoute(
            name=_name(route.name or _default_name(smarthost), f"{where}.name"),
            host=smarthost.host,
            port=smarthost.port,
            scheme=smarthost.scheme,
            credentials=account,
            tls=route.tls or (TlsPolicy.VERIFIED if smarthost.preset else None),
            verp=route.verp,
        )
        if self._by_destination.setdefault(static.destination, static) != static:
            raise ConfigError(
                f"{where}.name: another route is named '{static.name}' but differs in its "
                "smarthost, account or tls; give each a name of its own"
            )
        self._check_account(static, where)
        return _Entry(static, route.tls)

    def _check_account(self, route: StaticRoute, where: str) -> None:
        """Sessions belong to an account by its name: it has one secret at a server."""
        if (account := route.credentials) is None:
            return
        known = self._accounts.setdefault((route.host, route.port, account.username), account)
        if known != account:
            raise ConfigError(
                f"{where}.username: an earlier route logs in at {route.host}:{route.port} as "
                f"'{account.username}' with another password or mechanism; give both the same"
            )


def _default_name(smarthost: Smarthost) -> str:
    if smarthost.is_socket:
        return "lmtp" + re.sub(r"[^A-Za-z0-9._]", "-", smarthost.host)[-90:]
    return f"{smarthost.host}:{smarthost.port}"


def _name(name: str, where: str) -> str:
    if _NAME.fullmatch(name.lstrip(":")) is None:
        raise ConfigError(f"{where}: '{name}' is no name; use letters, digits and . _ : -")
    return name


def _check_tls(
    tls: TlsPolicy | None, smarthost: Smarthost, where: str, *, has_account: bool
) -> None:
    if tls is TlsPolicy.DANE:
        raise ConfigError(
            f"{where}: 'dane' is for the MX hosts of a domain, not for a smarthost; "
            "write 'verified'"
        )
    if tls not in (TlsPolicy.OFF, TlsPolicy.OPPORTUNISTIC):
        if tls is not None and smarthost.is_socket:
            raise ConfigError(f"{where}: '{tls}', but a socket of this machine has no TLS")
        return
    if smarthost.implicit_tls:
        raise ConfigError(f"{where}: '{tls}' contradicts smtps://; write 'required' or 'verified'")
    if has_account and not smarthost.is_loopback:
        raise ConfigError(
            f"{where}: '{tls}' could send the password in clear; write 'required' or 'verified'"
        )
