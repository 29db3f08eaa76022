"""Well-known submission hosts by name: `smarthost = "gmail"`, `smarthost = "ses:eu-west-1"`.

The rows stand in `smarthosts.toml`, each with its source.
"""

import re
from functools import cache
from typing import Final, Literal

import msgspec

from relay.model.errors import ConfigError
from relay.settings.shipped import shipped, text_of
from relay.settings.suggestion import did_you_mean
from relay.settings.toml import parse_toml

FILE: Final = "smarthosts.toml"
_REGION: Final = "{region}"
_NAME = re.compile(r"([a-z0-9][a-z0-9.\-]*)(?::([a-z0-9\-]*))?", re.IGNORECASE)


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One host; `username` is the one that all its accounts have, or empty.

    `source` is the page that documents host, port and TLS; `limits` and `note` are for people.
    """

    name: str
    host: str
    port: int
    tls: Literal["implicit", "starttls"]
    source: str
    aliases: tuple[str, ...] = ()
    username: str = ""
    limits: str = ""
    note: str = ""

    @property
    def scheme(self) -> str:
        return "smtps" if self.tls == "implicit" else "smtp"

    @property
    def url(self) -> str:
        """What the name is short for."""
        return f"{self.scheme}://{self.host}:{self.port}"


@cache
def presets() -> tuple[Preset, ...]:
    """All rows, in the order of the file."""
    path = shipped(FILE)
    rows = parse_toml(text_of(path), file=str(path)).get("smarthosts", [])
    return msgspec.convert(rows, tuple[Preset, ...])


@cache
def _by_name() -> dict[str, Preset]:
    return {name: preset for preset in presets() for name in (preset.name, *preset.aliases)}


def find_preset(text: str) -> Preset | None:
    """The host of a name, its region filled in; None where the text may be a URL or a host.

    ConfigError for a name that is unknown, with the nearest one, or lacks its region.
    """
    match = _NAME.fullmatch(text.strip())
    if match is None:
        return None
    name, region = match[1].lower(), match[2]
    preset = _by_name().get(name)
    if preset is None:
        if "." in name or (region or "").isdigit():
            return None
        hint = did_you_mean(name, _by_name())
        shown = f"'{name}'" if hint else "the value"  # what is near no name may be a secret
        raise ConfigError(
            f"{shown} begins with neither smtp:// nor smtps:// nor lmtp://, and is no well-known "
            f"smarthost{hint}; `relay config smarthosts` lists them"
        )
    wants_region = _REGION in preset.host
    if wants_region and not region:
        raise ConfigError(f"'{name}' needs its region: write for example '{name}:eu-west-1'")
    if not wants_region and region is not None:
        raise ConfigError(f"'{text.strip()}': '{name}' has no regions, write '{name}' alone")
    return msgspec.structs.replace(
        preset, host=preset.host.replace(_REGION, (region or "").lower())
    )
