"""Files shipped with relay: `relay/settings/defaults` of a wheel, `config/` of a checkout."""

from pathlib import Path

from relay.model.errors import ConfigError

_HERE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """The path of a file shipped with relay: relay.toml, shaping.toml or replies.toml."""
    for folder in (_HERE / "defaults", _HERE.parents[1] / "config"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"{name}: missing from this installation; install relay again")


def text_of(path: Path) -> str:
    """The text of a data file; ConfigError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
