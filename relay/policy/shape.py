"""Shaping: how fast and how wide we may send to a site, by provider (config/shaping.toml).

`["default"]` holds for every site; `[provider.NAME]` overrides single keys of it where the site
belongs to that provider. A provider claims a site only when all of its MX names match, so that a
domain with a foreign backup MX is nobody's.
"""

from collections.abc import Collection
from typing import Any

import msgspec

from relay.model.errors import ConfigError
from relay.model.units import parse_rate_per_s
from relay.policy.mx import host_name
from relay.policy.reasons import nearest
from relay.settings.schema import TlsPolicy
from relay.settings.toml import parse_toml


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What one site (and its provider, if it has one) allows of one source; rate 0: no limit."""

    max_connections: int = 10
    connection_rate_per_s: float = 100 / 60
    message_rate_per_s: float = 100.0
    mails_per_connection: int = 100
    recipients_per_transaction: int = 50
    tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC
    provider: str | None = None


class Matcher(msgspec.Struct, frozen=True):
    """One way to recognise a provider: the end of its MX names, or of the recipient domain."""

    mx_suffix: str = ""
    domain_suffix: str = ""


class Provider(msgspec.Struct, frozen=True):
    """A named group of sites that share limits."""

    name: str
    matchers: tuple[Matcher, ...]
    shape: Shape

    def claims(self, hosts: Collection[str], domain: str) -> bool:
        """Whether all MX hosts, or the recipient domain, carry one of the suffixes."""
        if domain and any(_ends(domain, m.domain_suffix) for m in self.matchers):
            return True
        suffixes = [m.mx_suffix for m in self.matchers if m.mx_suffix]
        return bool(hosts) and all(any(_ends(h, s) for s in suffixes) for h in hosts)


class Shaping(msgspec.Struct, frozen=True):
    """A parsed shaping file."""

    default: Shape = Shape()
    providers: tuple[Provider, ...] = ()

    def shape_for(self, hosts: Collection[str], *, domain: str = "") -> Shape:
        """The shape of the site with these MX names; of several providers the first in the file."""
        names = [host_name(host) for host in hosts]
        claimants = (p.shape for p in self.providers if p.claims(names, host_name(domain)))
        return next(claimants, self.default)


def _ends(name: str, suffix: str) -> bool:
    """`.google.com` ends `a.google.com`; `google.com` also ends itself, never `notgoogle.com`."""
    bare = suffix.lstrip(".")
    if not bare:
        return False
    return name.endswith("." + bare) or (name == bare and not suffix.startswith("."))


_COUNTS = ("max_connections", "mails_per_connection", "recipients_per_transaction")
_RATES = {"connection_rate": "connection_rate_per_s", "message_rate": "message_rate_per_s"}
_KEYS = [*_COUNTS, *_RATES, "tls"]


def load_shaping(text: str, *, file: str = "shaping.toml") -> Shaping:
    """Shaping of a TOML text; ConfigError names the file, the table, the key and the fix."""
    document = parse_toml(text, file=file)
    for key in document:
        if key not in ("default", "provider"):
            hint = nearest(key, ["default", "provider"]) or (
                f'; for one domain write [provider.NAME] with match = [{{domain_suffix = "{key}"}}]'
            )
            raise ConfigError(f"{file}: unknown table [{key}]{hint}")
    default = _shape(document.get("default", {}), Shape(), f'{file}: ["default"]', _KEYS)
    tables = _table(document.get("provider", {}), f"{file}: [provider]")
    providers = (_provider(name, table, default, file) for name, table in tables.items())
    return Shaping(default, tuple(providers))


def _provider(name: str, raw: Any, default: Shape, file: str) -> Provider:
    where = f"{file}: [provider.{name}]"
    table = dict(_table(raw, where))
    if "match" not in table:
        hint = next((nearest(key, ["match"]) for key in table if nearest(key, ["match"])), "")
        example = 'match = [{mx_suffix = ".example.net"}]'
        raise ConfigError(f"{where}: match is missing{hint or f'; write {example}'}")
    matchers = _matchers(table.pop("match"), f"{where}: match")
    base = msgspec.structs.replace(default, provider=name)
    return Provider(name, matchers, _shape(table, base, where, [*_KEYS, "match"]))


def _matchers(raw: Any, where: str) -> tuple[Matcher, ...]:
    known = list(Matcher.__struct_fields__)
    example = 'write [{mx_suffix = ".example.net"}]'
    if not isinstance(raw, list) or not raw:
        raise ConfigError(f"{where}: not a list of matchers; {example}")
    for entry in raw:
        for key, value in _table(entry, where).items():
            if key not in known:
                raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, known)}")
            if not isinstance(value, str) or not value.strip("."):
                raise ConfigError(f"{where}: {key} is not a domain name; {example}")
        if not entry:
            raise ConfigError(f"{where}: an empty matcher matches nothing; {example}")
    return tuple(Matcher(**{key: value.lower() for key, value in entry.items()}) for entry in raw)


def _shape(raw: Any, base: Shape, where: str, known: list[str]) -> Shape:
    changes: dict[str, Any] = {}
    for key, value in _table(raw, where).items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, known)}")
        if key in _RATES:
            changes[_RATES[key]] = _rate(value, f"{where}: {key}")
        elif key == "tls":
            changes[key] = _tls(value, f"{where}: tls")
        else:
            changes[key] = _count(value, f"{where}: {key}")
    return msgspec.structs.replace(base, **changes)


def _table(raw: Any, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: not a table")
    return raw


def _count(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{where}: {value!r} is not a whole number of at least 1")
    return value


def _rate(value: Any, where: str) -> float:
    if value == "unlimited":
        return 0.0
    try:
        rate = parse_rate_per_s(str(value))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}, or 'unlimited'") from None
    if rate <= 0:
        raise ConfigError(f"{where}: {value!r} would send nothing; to stop mail use suspend")
    return rate


def _tls(value: Any, where: str) -> TlsPolicy:
    known = [policy.value for policy in TlsPolicy if policy is not TlsPolicy.DANE]
    if value not in known:
        hint = nearest(str(value), known) or f"; write one of {', '.join(known)}"
        raise ConfigError(f"{where}: unknown policy {value!r}{hint}")
    return TlsPolicy(value)
