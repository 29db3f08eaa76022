"""Raw values from file, environment or flags become typed ones, each with its origin.

A fault is a `ConfigError` of one line: origin, setting, what is wrong, what to write instead.
Values of secrets never appear in it.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from relay.model.errors import ConfigError
from relay.settings.catalogue import Setting, sections, tables
from relay.settings.suggestion import did_you_mean

_WORDS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class Found(msgspec.Struct):
    """What was read so far: values by section and key, origins by `section.key`."""

    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}

    def put(self, setting: Setting, raw: Any, origin: str) -> None:
        """Read a value and keep it over any earlier one."""
        value = read_value(setting, raw, origin)
        self.values.setdefault(setting.section, {})[setting.key] = value
        self.origins[setting.name] = origin


def read_value(setting: Setting, raw: Any, origin: str) -> Any:
    """The typed value; ConfigError where the raw one does not fit the setting."""
    form = setting.form
    try:
        if not form.is_list:
            return _read_one(setting, raw)
        items = [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw
        if not isinstance(items, list | tuple):
            raise ValueError("not a list")
        return tuple(_read_one(setting, item) for item in items if item != "")
    except ConfigError as error:  # its text says more than what is expected
        raise ConfigError(f"{origin}: {setting.name}: {error}") from None
    except ValueError:
        shown = "the value" if form.is_secret else _shown(raw)
        fault = f"{setting.name}: {shown} does not fit: expected {form.expected}"
        hint = "" if form.is_secret else did_you_mean(str(raw), form.choices)
        raise ConfigError(f"{origin}: {fault}{hint}") from None


def _read_one(setting: Setting, raw: Any) -> Any:
    """ValueError where the raw value is none of the setting's; the text is the caller's."""
    form = setting.form
    if form.choices:
        if not isinstance(raw, str) or raw not in form.choices:
            raise ValueError("not a choice")
        return form.plain(raw) if isinstance(form.plain, type) else raw
    value = raw
    if isinstance(raw, str):
        value = form.reader.read(raw) if form.reader else _from_text(form.plain, raw.strip())
    if form.plain in (str, bool):
        if not isinstance(value, form.plain) or not str(value).isprintable():
            raise ValueError("not of the type")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not form.admits(value):
        raise ValueError("not a number within the bounds")
    if form.plain is int and value != int(value):
        raise ValueError("not a whole number")
    return form.plain(value)


def _from_text(plain: type, text: str) -> Any:
    if plain is bool:
        if text.lower() not in _WORDS:
            raise ValueError("neither true nor false")
        return _WORDS[text.lower()]
    return plain(text)


def known_section(section: str, origin: str) -> dict[str, Setting]:
    """The settings of a section by key; ConfigError where there is no such section."""
    known = sections().get(section)
    if known is None:
        hint = did_you_mean(section, (*sections(), *tables()))
        raise ConfigError(f"{origin}: {section}: no such section{hint}")
    return known


def named_setting(name: str, origin: str) -> Setting:
    """The setting called `section.key`; ConfigError where there is none."""
    section, _, key = name.partition(".")
    known = known_section(section, origin)
    if key not in known:
        refuse_key(name, known, origin)
    return known[key]


def refuse_key(name: str, known: Mapping[str, Setting], origin: str) -> NoReturn:
    """ConfigError: no setting `section.key`, with the nearest one of that section."""
    hint = did_you_mean(name.partition(".")[2], known)
    raise ConfigError(f"{origin}: {name}: no such setting{hint}")


def _shown(raw: Any) -> str:
    """The value in short; several lines are a lost quotation mark and may hold a secret."""
    text = f"a {type(raw).__name__}" if isinstance(raw, dict) else repr(raw)
    if r"\n" in text:
        return "a text of several lines"
    return text if len(text) <= 60 else text[:59] + "…"
