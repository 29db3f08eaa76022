"""config/relay.toml and the schema say the same, both ways."""

import re
import tomllib
from pathlib import Path

from relay.settings.catalogue import sections, tables
from relay.settings.loader import load
from relay.settings.reference import reference
from relay.settings.schema import Settings

FILE = Path(__file__).parents[2] / "config" / "relay.toml"
#: Settings that have no default value to write: they stand as comments.
UNSET = {"delivery": {"mode"}}


def test_configuration_file_holds_every_default() -> None:
    loaded = load(FILE, environ={})
    written = {name for name in loaded.origins if not name.startswith("files.")}
    assert loaded.settings.__class__ is Settings
    for section, known in sections().items():
        for key, setting in known.items():
            if key in UNSET.get(section, set()) or section == "files":
                continue
            assert setting.name in written, f"{setting.name} is missing in config/relay.toml"
            value = getattr(getattr(loaded.settings, section), key)
            assert value == setting.default, f"{setting.name} is not the default"


def test_configuration_file_names_nothing_else() -> None:
    document = tomllib.loads(FILE.read_text())
    assert list(document) == list(sections())
    for section, table in document.items():
        assert list(table) == [k for k in sections()[section] if k not in UNSET.get(section, set())]


def test_configuration_file_shows_unset_settings_and_lists_of_tables_as_comments() -> None:
    commented = set(re.findall(r"^# (\w+) = ", FILE.read_text(), re.MULTILINE))
    assert commented == {"mode"}.union(*tables().values())


def test_configuration_file_explains_every_setting() -> None:
    lines = FILE.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\w+ = ", line):
            assert lines[number - 1].startswith("#"), f"line {number + 1}: {line} has no comment"


def test_configuration_reference_is_what_config_docs_prints() -> None:
    written = (FILE.parents[1] / "docs" / "configuration.md").read_text()
    assert written == reference(), "run: relay config docs > docs/configuration.md"
