"""The settings in force, written out: as a file that could be read again, or as rows."""

from typing import Any

import msgspec

from relay.settings.catalogue import Setting, sections, show, tables
from relay.settings.loader import Loaded
from relay.settings.presets import Preset, find_preset
from relay.settings.schema import Section


def as_toml(loaded: Loaded, *, with_origin: bool = False) -> str:
    """TOML of every setting, secrets as `***`; with the origin of each as a comment."""
    lines = []
    for section, known in sections().items():
        lines.append(f"[{section}]")
        table = getattr(loaded.settings, section)
        for setting in known.values():
            origin = f"  # {loaded.origin(setting.name)}" if with_origin else ""
            lines.append(_line(setting, table) + origin)
        lines.append("")
    for name, known in tables().items():
        for table in getattr(loaded.settings, name):
            lines.append(f"[[{name}]]" + (f"  # {loaded.path}" if with_origin else ""))
            lines += [_line(setting, table) for setting in known.values()]
            lines.append("")
    return "\n".join(lines)


def as_rows(loaded: Loaded) -> list[dict[str, Any]]:
    """One row a setting: name, value as written in the file, variable, origin."""
    rows: list[dict[str, Any]] = [
        {
            "name": setting.name,
            "value": show(setting, getattr(getattr(loaded.settings, section), setting.key)),
            "variable": setting.variable,
            "origin": loaded.origin(setting.name),
        }
        for section, known in sections().items()
        for setting in known.values()
    ]
    for name, known in tables().items():
        for number, table in enumerate(getattr(loaded.settings, name), 1):
            values = {key: show(setting, getattr(table, key)) for key, setting in known.items()}
            for key, setting in known.items():
                if (preset := _preset(setting, getattr(table, key))) is not None:
                    values["resolved"] = preset.url
            origin = str(loaded.path)
            rows.append(
                {"name": f"{name}[{number}]", "value": values, "variable": "", "origin": origin}
            )
    return rows


def _line(setting: Setting, table: Section) -> str:
    value = getattr(table, setting.key)
    unset = value is None or value is msgspec.UNSET
    if unset:
        return f"# {setting.key} = (not set)"
    preset = _preset(setting, value)
    meaning = f"  # {preset.url}, certificate verified" if preset else ""
    return f"{setting.key} = {show(setting, value)}{meaning}"


def _preset(setting: Setting, value: Any) -> Preset | None:
    """The well-known smarthost that a value names."""
    return find_preset(value) if setting.form.kind == "smarthost" else None
