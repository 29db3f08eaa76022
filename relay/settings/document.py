"""Reads the configuration file: TOML, each value with the line where it stands."""

import re
from pathlib import Path
from typing import Any

import msgspec

from relay.model.errors import ConfigError
from relay.settings.catalogue import sections, table_type, tables
from relay.settings.schema import DkimKey, Section
from relay.settings.toml import parse_toml
from relay.settings.values import Found, known_section, read_value, refuse_key

#: What a table of a list cannot be without, and an example of it.
_NEEDED = {
    "routes": ("domain", 'domain = "*"'),
    "dkim_keys": ("domain", 'domain = "example.org"'),
}


def read_document(path: Path, found: Found) -> dict[str, tuple[Section, ...]]:
    """Put the values of a file into `found`; answers its lists of tables (`[[routes]]`)."""
    text, document = _parse(path)
    lines = _Lines(path, text)
    for section, table in document.items():
        if section in tables():
            continue
        known = known_section(section, lines.origin(section))
        if not isinstance(table, dict):
            fault = f"is a section: write [{section}] on a line of its own"
            raise ConfigError(f"{lines.origin(section)}: {section}: {fault}")
        for key, raw in table.items():
            origin = lines.origin(section, key)
            if key not in known:
                refuse_key(f"{section}.{key}", known, origin)
            found.put(known[key], raw, origin)
    _find_neighbours(path, found)
    lists = {name: _read_tables(name, document.get(name, []), lines) for name in tables()}
    return lists | {"dkim_keys": tuple(_beside(path, key) for key in lists["dkim_keys"])}


def _parse(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    return text, parse_toml(text, file=str(path))


def _read_tables(name: str, raw_tables: Any, lines: "_Lines") -> tuple[Section, ...]:
    if not isinstance(raw_tables, list) or not all(isinstance(one, dict) for one in raw_tables):
        raise ConfigError(f"{lines.origin(name)}: {name}: is a list: write [[{name}]]")
    known = tables()[name]
    needed, example = _NEEDED.get(name, ("", ""))
    found = []
    for number, table in enumerate(raw_tables, 1):
        values = {}
        for key, raw in table.items():
            origin = lines.origin(name, key, number)
            if key not in known:
                refuse_key(f"{name}.{key}", known, origin)
            values[key] = read_value(known[key], raw, origin)
        if needed and not values.get(needed):
            fault = f"is missing: write for example {example}"
            raise ConfigError(f"{lines.origin(name, '', number)}: {name}.{needed}: {fault}")
        found.append(table_type(name)(**values))
    return tuple(found)


def _find_neighbours(path: Path, found: Found) -> None:
    """Data files beside the configuration file are used; relative paths count from there."""
    for key, setting in sections()["files"].items():
        named = found.values.get("files", {}).get(key)
        neighbour = path.parent / (named or f"{key}.toml")
        if named or neighbour.is_file():
            found.put(setting, str(neighbour), found.origins.get(setting.name, f"beside {path}"))


def _beside(path: Path, key: Section) -> Section:
    """Relative paths of keys count from the configuration file, too."""
    assert isinstance(key, DkimKey)
    return msgspec.structs.replace(key, file=str(path.parent / key.file)) if key.file else key


class _Lines:
    """Where a key stands: `path:line`, or `path` alone where the line is not found."""

    _HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
    _KEY = re.compile(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*[=.]")

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._numbers: dict[tuple[str, str, int], int] = {}
        section, table = "", 1
        for number, line in enumerate(text.splitlines(), 1):
            if header := self._HEADER.match(line):
                section = header[1]
                table = table + 1 if (section, "", table) in self._numbers else 1
                self._numbers[section, "", table] = number
            elif key := self._KEY.match(line):
                place = (section, key[1], table) if section else (key[1], "", 1)
                self._numbers.setdefault(place, number)

    def origin(self, section: str, key: str = "", table: int = 1) -> str:
        """The origin of a key of the n-th table of that name."""
        number = self._numbers.get((section, key, table)) or self._numbers.get((section, "", table))
        return f"{self.path}:{number}" if number else str(self.path)
