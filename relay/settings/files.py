"""Finds the data files: those named by the settings, else those shipped with relay."""

import os
from pathlib import Path

from relay.settings.schema import Settings
from relay.settings.shipped import shipped, text_of


def data_folder(settings: Settings) -> Path:
    """`up.data_dir`, else `$XDG_STATE_HOME/relay`, else `~/.local/state/relay`."""
    if settings.up.data_dir:
        return Path(settings.up.data_dir).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state).absolute() / "relay"


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
