"""The configuration: file < environment < flags, into `Settings` with the origin of each value.

Every fault is a `ConfigError` of one line with its place, the setting, the fault and a suggestion.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from relay.model.errors import ConfigError
from relay.settings.catalogue import sections, show
from relay.settings.document import read_document
from relay.settings.environment import read_environment
from relay.settings.kinds import parse_listen
from relay.settings.schema import Section, Settings
from relay.settings.values import Found, named_setting


class Loaded(msgspec.Struct, frozen=True):
    """The settings, where each that is not a default came from, and the file if there is one."""

    settings: Settings
    origins: dict[str, str]
    path: Path | None

    def origin(self, name: str) -> str:
        """Where the value of `section.key` came from: `relay.toml:14`, a variable, a flag."""
        return self.origins.get(name, "default")


def load(
    config: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read the file (`config`, else `RELAY_CONFIG`), the environment and the flags.

    `flags` maps `section.key` to a value. ConfigError names the first fault found.
    """
    environ = os.environ if environ is None else environ
    found = Found()
    tables: dict[str, tuple[Section, ...]] = {}
    chosen = str(config or environ.get("RELAY_CONFIG", ""))
    path = Path(chosen).absolute() if chosen else None
    if path is not None:
        tables = read_document(path, found)
    read_environment(environ, found)
    for name, raw in (flags or {}).items():
        found.put(named_setting(name, "flag"), raw, f"flag {name}")
    loaded = Loaded(_build(found, tables), found.origins, path)
    _check_together(loaded)
    return loaded


def load_settings(
    config: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """As `load`, without the origins."""
    return load(config, flags, environ).settings


def _build(found: Found, tables: dict[str, tuple[Section, ...]]) -> Settings:
    defaults = Settings()
    changed = {
        section: msgspec.structs.replace(getattr(defaults, section), **values)
        for section, values in found.values.items()
    }
    return msgspec.structs.replace(defaults, **tables, **changed)


def listens(settings: Settings) -> list[tuple[str, str]]:
    """Every address that relay listens on, with the name of its setting."""
    named = [("smtp.listen", address) for address in settings.smtp.listen]
    named += [("intake.listen", address) for address in settings.intake.listen]
    named.append(("http.listen", settings.http.listen))
    sink = settings.sink
    named += [("sink.dns", sink.dns), ("sink.smtp", sink.smtp), ("sink.control", sink.control)]
    optional = [("sink.smtps", sink.smtps), ("sink.https", sink.https)]
    return [*named, *((name, address) for name, address in optional if address)]


def _check_together(loaded: Loaded) -> None:
    """Faults that only two values make: one port used twice, bounds that cross, a missing file."""
    settings = loaded.settings
    taken: dict[str, str] = {}
    for name, address in listens(settings):
        if parse_listen(address).port == 0:
            continue
        if address in taken:
            fault = f"{address} is used by {taken[address]} too; choose another port"
            raise ConfigError(f"{loaded.origin(name)}: {name}: {fault}")
        taken[address] = name
    if settings.dns.min_ttl > settings.dns.max_ttl:
        highest = show(sections()["dns"]["max_ttl"], settings.dns.max_ttl)
        fault = f"is above dns.max_ttl ({highest})"
        raise ConfigError(f"{loaded.origin('dns.min_ttl')}: dns.min_ttl: {fault}")
    for key in sections()["files"]:
        path = getattr(settings.files, key)
        if path and not _is_file(path):
            place = f"{loaded.origin(f'files.{key}')}: files.{key}"
            raise ConfigError(f"{place}: no such file: {path[:200]}")


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # such as a name that is too long
        return False
