"""The schema as a flat table: one `Setting` per `section.key`, for reading, showing, documenting.

Derived from the types of `schema.py`; nothing is listed twice.
"""

import enum
import types
import typing
from functools import cache
from typing import Any

import msgspec

from relay.model.units import format_duration
from relay.settings.kinds import KINDS, Kind
from relay.settings.schema import Section, Settings

#: Larger than any quantity of ours, and what Redis and the kernel can take.
_LARGEST = 2**63 - 1


class Setting(msgspec.Struct, frozen=True):
    """One setting: `name` is `section.key`; `annotation` its type, kind and bounds."""

    section: str
    key: str
    annotation: Any
    default: Any

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"RELAY_{self.section}_{self.key}".upper()

    @property
    def form(self) -> "Form":
        return form_of(self.annotation)


class Form(msgspec.Struct, frozen=True):
    """An annotation taken apart: the plain type, its kind, its bounds, whether it is a list."""

    plain: Any
    kind: str = ""
    is_secret: bool = False
    is_list: bool = False
    lowest: float | None = None
    above: float | None = None
    highest: float | None = None

    @property
    def reader(self) -> Kind | None:
        return KINDS.get(self.kind)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values allowed, where only some are."""
        if typing.get_origin(self.plain) is typing.Literal:
            return tuple(map(str, typing.get_args(self.plain)))
        if isinstance(self.plain, type) and issubclass(self.plain, enum.Enum):
            return tuple(str(member.value) for member in self.plain)
        return ()

    @property
    def expected(self) -> str:
        """What a value must look like, as the end of the sentence "expected …"."""
        if self.is_list:
            return f"a list, each item {self._item()}"
        return self._item()

    def _item(self) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.reader is not None:
            return self.reader.expected + self._bounds()
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        return names[self.plain] + self._bounds()

    def _bounds(self) -> str:
        if self.lowest is not None and self.highest is not None:
            return f" from {self.lowest:g} to {self.highest:g}"
        if self.above is not None:
            return f" above {self.above:g}"
        if self.lowest is not None and self.lowest > 0:
            return f", {self.lowest:g} or more"
        return ""

    def admits(self, number: float) -> bool:
        """Whether a number is one that the machine can count to, and within the bounds."""
        return (
            abs(number) <= _LARGEST  # which is also not true of NaN
            and (self.lowest is None or number >= self.lowest)
            and (self.above is None or number > self.above)
            and (self.highest is None or number <= self.highest)
        )


def form_of(annotation: Any) -> Form:
    """The parts of a field's annotation; TypeError for a type that no setting may have."""
    origin = typing.get_origin(annotation)
    if origin is types.UnionType:
        (inner,) = (arm for arm in typing.get_args(annotation) if arm is not type(None))
        return form_of(inner)
    if origin is tuple:
        return msgspec.structs.replace(form_of(typing.get_args(annotation)[0]), is_list=True)
    if origin is typing.Annotated:
        plain, *metas = typing.get_args(annotation)
        return _with_metas(plain, [meta for meta in metas if isinstance(meta, msgspec.Meta)])
    return Form(annotation)


def _with_metas(plain: Any, metas: list[msgspec.Meta]) -> Form:
    extra: dict[str, Any] = {}
    for meta in metas:
        extra |= meta.extra or {}
    return Form(
        plain,
        kind=extra.get("kind", ""),
        is_secret=extra.get("secret", False),
        lowest=next((meta.ge for meta in metas if meta.ge is not None), None),
        above=next((meta.gt for meta in metas if meta.gt is not None), None),
        highest=next((meta.le for meta in metas if meta.le is not None), None),
    )


def _settings_of(section: str, structure: type[Section]) -> dict[str, Setting]:
    return {
        field.name: Setting(section, field.name, field.type, field.default)
        for field in msgspec.structs.fields(structure)
    }


@cache
def sections() -> dict[str, dict[str, Setting]]:
    """Every `[section]` of the file with its settings by key; `[[…]]` are `tables`."""
    return {
        field.name: _settings_of(field.name, field.type)
        for field in msgspec.structs.fields(Settings)
        if _table_of(field.type) is None
    }


@cache
def tables() -> dict[str, dict[str, Setting]]:
    """Every `[[list of tables]]` with the settings of one of its tables by key."""
    return {
        field.name: _settings_of(field.name, structure)
        for field in msgspec.structs.fields(Settings)
        if (structure := _table_of(field.type)) is not None
    }


def table_type(name: str) -> type[Section]:
    """What one table of `[[name]]` becomes."""
    structure = _table_of(next(f.type for f in msgspec.structs.fields(Settings) if f.name == name))
    assert structure is not None
    return structure


def _table_of(annotation: Any) -> type[Section] | None:
    """The tables that a field of `Settings` lists; None where it is a section."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is tuple else None


def show(setting: Setting, value: Any, *, reveal_secret: bool = False) -> str:
    """A value as it is written in the file; a secret that is set shows as `"***"`."""
    if value is None:
        return ""
    form = setting.form
    if form.is_secret and value and not reveal_secret:
        shown = form.reader.shown if form.reader else None
        return _show_one(form, shown(value) if shown else "***")
    if isinstance(value, tuple):
        return "[" + ", ".join(_show_one(form, item) for item in value) + "]"
    return _show_one(form, value)


def _show_one(form: Form, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if form.kind == "duration":
        return f'"{format_duration(value)}"'
    if form.kind == "size":
        return _show_size(value)
    if isinstance(value, str):
        return msgspec.json.encode(str(value)).decode()
    return f"{value:_}" if isinstance(value, int) else f"{value:g}"


def _show_size(octets: int) -> str:
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if octets >= factor and octets % factor == 0:
            return f'"{octets // factor} {unit}"'
    return str(octets)
