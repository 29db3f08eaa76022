"""Finds the data files: those named by the settings, else those shipped with relay.

Shipped files lie in `relay/settings/defaults` of an installed wheel and in `config/` of a checkout.
"""

import os
from pathlib import Path

from relay.model.errors import ConfigError
from relay.settings.schema import Settings

_HERE = Path(__file__).resolve().parent


def data_folder(settings: Settings) -> Path:
    """`up.data_dir`, else `$XDG_STATE_HOME/relay`, else `~/.local/state/relay`."""
    if settings.up.data_dir:
        return Path(settings.up.data_dir).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state).absolute() / "relay"


def shipped(name: str) -> Path:
    """The path of a file shipped with relay: relay.toml, shaping.toml or replies.toml."""
    for folder in (_HERE / "defaults", _HERE.parents[1] / "config"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"{name}: missing from this installation; install relay again")


def replies_path(settings: Settings) -> Path:
    """The file of the reply rules that these settings choose."""
    return Path(settings.files.replies or shipped("replies.toml"))


def shaping_path(settings: Settings) -> Path:
    """The file of the shaping rules that these settings choose."""
    return Path(settings.files.shaping or shipped("shaping.toml"))


def default_rules() -> str:
    """The text of the reply rules shipped with relay."""
    return text_of(shipped("replies.toml"))


def default_shaping() -> str:
    """The text of the shaping rules shipped with relay."""
    return text_of(shipped("shaping.toml"))


def text_of(path: Path) -> str:
    """The text of a data file; ConfigError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
