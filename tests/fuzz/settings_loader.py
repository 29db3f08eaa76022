"""Configuration of every kind: settings, or one sentence that names the place; no secret in it.

The file, the variables, the shaping rules and the reply rules.
"""

import os
import re

from relay.model.errors import ConfigError
from relay.policy.rules import load_rules
from relay.policy.shape import load_shaping
from relay.settings.catalogue import Setting, sections, tables
from relay.settings.files import default_rules, default_shaping
from relay.settings.loader import load_settings
from relay.settings.schema import Settings
from tests.fuzz.campaign import Target
from tests.fuzz.source import Source

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SECRET = "hunter2hunter2"
_VALUES = (
    *("0", "1", "-1", "8425", "1.5", "1e999", "-inf", "nan", "9" * 400, "0x10", "1_000"),
    *("true", "false", "[]", "{}", "[[]]", "{a = 1}", "[1, 2]", "2026-11-20", "07:32:00"),
    *('"5m"', '"5 parsecs"', '"25 MiB"', '"1e9 GiB"', '"always"', '"sink"', '"live"', '""'),
    *('"127.0.0.1:2525"', '"[::1]:0"', '"host"', '["127.0.0.1:1", "x"]', '"10.0.0.0/8"'),
    *(
        '"smtp://a:b@h:99999"',
        '"smtps://h"',
        '"redis://h:x/"',
        '"unix:///x"',
        '"5m 1h*"',
        '"5m* 1h"',
    ),
    *(r'"\u0000"', r'"a\nb"', '"ü"', "'''", '"' + "x" * 300 + '"', "[" * 2000, "{a=" * 500),
)
_SECRETS = (f'"{_SECRET}"', f'["{_SECRET}"]', f'"smtp://u:{_SECRET}@h:port"')
WORDS = (b"[", b"]", b"[[", b"=", b'"', b"'''", b"\n", b"\\u", b"\0", b"\xff", b"#", b"[dns]\n")
_OTHER_KEYS = ("unknown", "lissten", '"quoted key"', "a.b", "''", "ü")


class SettingsLoaderTarget(Target):
    name = "settings-loader"

    def open(self) -> None:
        self._path = self.folder / "relay.toml"
        self._tables = {**sections(), **tables()}
        self._shaping = _pieces(default_shaping())
        self._rules = _pieces(default_rules())

    def check(self, source: Source) -> None:
        way = source.random()
        try:
            if way < 0.7:
                self._check_settings(source)
            elif way < 0.85:
                load_shaping(_damaged(source, self._shaping).decode("utf-8", "replace"))
            else:
                load_rules(_damaged(source, self._rules).decode("utf-8", "replace"))
        except ConfigError as error:
            text = str(error)
            assert text and not _CONTROL.search(text), f"not one line: {text!r}"
            assert len(text) < 2000, f"{len(text)} characters: {text[:200]!r}"
            assert _SECRET not in text, f"a secret shows: {text!r}"

    def _check_settings(self, source: Source) -> None:
        self._path.write_bytes(self._document(source))
        environ: dict[str, str] = {}
        while source.chance(0.3):
            setting = self._setting(source)
            suffix = source.one(("", "", "", "_FILE", "S"))
            value = source.one(_VALUES).strip('"')
            if source.chance(0.2):
                value = os.fsdecode(source.octets(20))
            environ[setting.variable + suffix] = value.replace("\0", "")
        loaded = load_settings(self._path if source.chance(0.9) else None, environ=environ)
        assert isinstance(loaded, Settings)
        assert loaded.dns.min_ttl <= loaded.dns.max_ttl

    def _document(self, source: Source) -> bytes:
        lines = []
        for _ in range(source.size(6)):
            section = source.one(tuple(self._tables))
            lines.append(f"[[{section}]]" if section in tables() else f"[{section}]")
            for _ in range(source.size(5)):
                key = source.one(tuple(self._tables[section]))
                key = source.one(_OTHER_KEYS) if source.chance(0.05) else key
                lines.append(f"{key} = {self._value(source, section, key)}")
        octets = "\n".join(lines).encode()
        return source.mutated(octets, WORDS) if source.chance(0.3) else octets

    def _value(self, source: Source, section: str, key: str) -> str:
        setting = self._tables[section].get(key)
        if setting is not None and setting.form.is_secret and source.chance(0.5):
            return source.one(_SECRETS)
        choices = [f'"{word}"' for word in setting.form.choices] if setting is not None else []
        if choices and source.chance(0.5):
            return source.one(choices)
        return source.one(_VALUES)

    def _setting(self, source: Source) -> Setting:
        return source.one(tuple(self._tables[source.one(tuple(sections()))].values()))


def _pieces(text: str) -> list[bytes]:
    """A file's tables, each by itself."""
    return [piece.encode() for piece in re.split(r"(?m)^(?=\[)", text)]


def _damaged(source: Source, pieces: list[bytes]) -> bytes:
    octets = b"".join(source.one(pieces) for _ in range(1 + source.below(3)))
    if source.chance(0.5):
        value = source.one(_VALUES).encode()
        octets = re.sub(rb"(?m)= .*$", lambda found: b"= " + value, octets, count=1)
    return source.mutated(octets, WORDS)
