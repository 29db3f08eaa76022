"""Reads `RELAY_<SECTION>_<KEY>` and, for secrets, `RELAY_<SECTION>_<KEY>_FILE`.

An empty variable counts as not set. A name that is no setting is a fault where it is meant for us:
its section is ours, or a setting's name is close.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from relay.model.errors import ConfigError
from relay.settings.catalogue import Setting, sections, tables
from relay.settings.schema import Settings
from relay.settings.suggestion import did_you_mean
from relay.settings.values import Found, named_setting

#: Variables of ours that are no settings.
OTHER_VARIABLES = frozenset(
    {
        "RELAY_API",
        "RELAY_API_KEY",
        "RELAY_API_KEY_FILE",
        "RELAY_CONFIG",
        "RELAY_REDIS_SERVER",
        "RELAY_TRACEBACK",
    }
)
#: What Kubernetes and old Docker links set for a service whose name begins with "relay".
_SERVICE_LINK = re.compile(
    r"RELAY_(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.*)?|PORT(?:_\d+_(?:TCP|UDP)(?:_.*)?)?)"
)


def read_environment(environ: Mapping[str, str], found: Found) -> None:
    """Put the values of the variables into `found`, over those of the file."""
    by_variable = {s.variable: s for keys in sections().values() for s in keys.values()}
    for variable in sorted(environ):
        raw = environ[variable]
        if not variable.startswith("RELAY_") or variable in OTHER_VARIABLES or not raw:
            continue
        if variable in by_variable:
            found.put(by_variable[variable], raw, variable)
            continue
        setting = by_variable.get(variable.removesuffix("_FILE"))
        if setting is None or not setting.form.is_secret:
            _refuse_variable(variable, by_variable)
            continue
        if environ.get(setting.variable):
            raise ConfigError(f"{variable}: {setting.variable} is set too; unset one of them")
        found.put(setting, _read_secret(variable, raw), f"{variable} ({raw})")


def as_environment(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """The variables that give another process the same values of these settings."""
    variables = {}
    for name in names:
        setting = named_setting(name, "flag")
        value: Any = getattr(getattr(settings, setting.section), setting.key)
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        variables[setting.variable] = "" if value is None else str(value)
    return variables


def _read_secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{variable}: the file {path[:200]} cannot be read: {reason}") from None


def _refuse_variable(variable: str, known: Mapping[str, Setting]) -> None:
    if _SERVICE_LINK.fullmatch(variable):
        return
    for name in tables():
        if variable.startswith(f"RELAY_{name}".upper()):
            hint = "; for one smarthost set RELAY_DELIVERY_SMARTHOST" if name == "routes" else ""
            fault = f"{name.replace('_', ' ')} stand in the file only{hint}"
            raise ConfigError(f"{variable}: {fault}")
    names = {name.removeprefix("RELAY_"): name for name in known}
    close = did_you_mean(variable.removeprefix("RELAY_"), names, cutoff=0.75)
    hint = close.replace("mean ", "mean RELAY_")
    if hint or variable.split("_")[1].lower() in sections():
        raise ConfigError(f"{variable}: no such setting{hint}")
