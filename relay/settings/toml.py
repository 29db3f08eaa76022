"""TOML as every file of ours is read: the text as a dictionary, or one sentence with the place."""

import re
import tomllib
from typing import Any

from relay.model.errors import ConfigError

_PLACE = re.compile(r" \(at line (\d+), column \d+\)$")


def parse_toml(text: str, *, file: str) -> dict[str, Any]:
    """The document; ConfigError names the file, the line where it is known, and the fault."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        where = f"{file}:{place[1]}" if place else file
        reason = str(error)[: place.start()] if place else str(error)
        raise ConfigError(f"{where}: is not TOML: {reason[:1].lower()}{reason[1:]}") from None
    except RecursionError:
        raise ConfigError(f"{file}: is not TOML that we read: nested too deeply") from None
    except ValueError:  # Python's bound on the digits of a number
        raise ConfigError(f"{file}: is not TOML that we read: a number is too long") from None
