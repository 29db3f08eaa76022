"""Reply rules: what known receivers mean by their texts (config/replies.toml), parsed and matched.

A rule names a code, an enhanced code and a pattern; all that it names must match. The first rule
that matches wins: rules of the receiver's provider before rules for everyone, then file order.

Rules of this file
- A rule for everyone that names no enhanced code is asked only where the reply's own enhanced
  code is missing or says nothing (X.7.1, X.0.0, unregistered): an exact code beats a pattern.
- A rule of a provider is also asked where the peer belongs to no provider, if it has a pattern.
- Addresses in a reply are blanked first: `<spam@example.org>` is not about spam.
"""

import re
import warnings
from functools import lru_cache
from typing import Any

import msgspec

from relay.model.errors import ConfigError
from relay.model.reply import Reply
from relay.model.verdict import Scope
from relay.policy.reasons import SENTENCES, nearest
from relay.policy.statuses import is_specific
from relay.settings.toml import parse_toml

#: Bounded, so that a text without any `@` is read once and not once for each of its characters.
_ADDRESS = re.compile(r"[^\s<>()\[\]:;,\"]{1,64}@[^\s<>()\[\]:;,\"]{1,255}")
_CODE = re.compile(r"[45](?:\d\d|\dz|yz)")
_STATUS = re.compile(r"(?:[245x])\.(?:\d{1,3}|\*)\.(?:\d{1,3}\*?|\*)|none")
#: A reply may be 4 KiB long; what it means stands at its beginning.
TEXT_CHARACTERS = 1000
_COMMANDS = ("greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "end-of-data")


class RuleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[rules]]` table as it stands in the file."""

    reason: str
    scope: Scope
    provider: str = ""
    code: str = ""
    enhanced: str = ""
    text: str = ""
    command: str = ""
    soft: bool = False
    source: str = ""
    examples: tuple[str, ...] = ()


class Rule(msgspec.Struct, frozen=True):
    """A compiled rule; `soft` turns a 5yz into a deferral."""

    table: RuleTable
    codes: re.Pattern[str] | None
    statuses: re.Pattern[str] | None
    pattern: re.Pattern[str] | None
    commands: frozenset[str]

    def matches(self, reply: Reply) -> bool:
        """Whether everything the rule names is so; the code has been looked at before."""
        if self.commands and reply.command not in self.commands:
            return False
        if self.statuses is not None:
            if self.statuses.fullmatch(reply.enhanced or "none") is None:
                return False
        elif not self.table.provider and is_specific(reply.enhanced):
            return False
        return self.pattern is None or self.pattern.search(reply.text) is not None


class Rules:
    """All rules of a file.

    Matching remembers which rules a (code, provider) can reach, and the last answers: a receiver
    says the same to thousands of recipients, and asking every rule takes about 0.15 ms.
    """

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self.rules = rules
        self._providers = frozenset(rule.table.provider for rule in rules)
        self._reachable: dict[tuple[int, str], tuple[Rule, ...]] = {}
        self._ask = lru_cache(maxsize=4096)(self._first)

    def match(self, reply: Reply, provider: str | None) -> Rule | None:
        """The first rule that fits the reply of this provider (None: of no provider)."""
        known = "" if provider is None else provider if provider in self._providers else "other"
        text = _ADDRESS.sub("<address>", " ".join(reply.text[:TEXT_CHARACTERS].split()))
        return self._ask(reply.code, reply.enhanced, reply.command, text, known)

    def _first(
        self, code: int, enhanced: str | None, command: str, text: str, provider: str
    ) -> Rule | None:
        reply = Reply(code, enhanced, (text,), command)
        candidates = self._candidates(code, provider)
        return next((rule for rule in candidates if rule.matches(reply)), None)

    def _candidates(self, code: int, provider: str) -> tuple[Rule, ...]:
        """Rules that the code alone allows; provider "": of none, "other": of one without rules."""
        key = (code, provider)
        if key not in self._reachable:
            own = [r for r in self.rules if r.table.provider and _may_speak(r, provider)]
            everyone = [r for r in self.rules if not r.table.provider]
            self._reachable[key] = tuple(
                r for r in own + everyone if r.codes is None or r.codes.fullmatch(str(code))
            )
        return self._reachable[key]


def _may_speak(rule: Rule, provider: str) -> bool:
    if not provider:
        return rule.pattern is not None
    return rule.table.provider == provider


NO_RULES = Rules()


def load_rules(text: str, *, file: str = "replies.toml") -> Rules:
    """Rules of a TOML text; ConfigError names the file, the rule, the key and the fix."""
    document = parse_toml(text, file=file)
    for key in document:
        if key != "rules":
            raise ConfigError(f"{file}: unknown key '{key}'{nearest(key, ['rules'])}")
    tables = document.get("rules", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{file}: write every rule as its own [[rules]] table")
    return Rules(tuple(_rule(table, f"{file}: rule {n}") for n, table in enumerate(tables, 1)))


def _rule(raw: dict[str, Any], where: str) -> Rule:
    if "reason" in raw:
        where = f"{where} ('{raw['reason']}')"
    known = list(RuleTable.__struct_fields__)
    for key in raw:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, known)}")
    try:
        table = msgspec.convert(raw, RuleTable)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
    if table.reason not in SENTENCES:
        raise ConfigError(f"{where}: unknown reason{nearest(table.reason, list(SENTENCES))}")
    if not (table.code or table.enhanced or table.text):
        raise ConfigError(f"{where}: name a code, an enhanced code or a text")
    return Rule(
        table=table,
        codes=_alternatives(table.code, _CODE, f"{where}: code", "421 55z 4yz"),
        statuses=_alternatives(table.enhanced, _STATUS, f"{where}: enhanced", "x.7.26 5.7.6*"),
        pattern=_pattern(table.text, where),
        commands=frozenset(_commands(table.command, where)),
    )


def _alternatives(
    text: str, form: re.Pattern[str], where: str, example: str
) -> re.Pattern[str] | None:
    """One expression for `421 45z`, `x.7.26`: y, z: a digit, x: a class, `*`: digits."""
    if not text:
        return None
    for word in text.split():
        if form.fullmatch(word) is None:
            raise ConfigError(f"{where}: '{word}' is no such code; write for example '{example}'")
    words = (re.escape(word) if word != "none" else word for word in text.split())
    wild = {"x": "[245]", "y": r"\d", "z": r"\d", r"\*": r"\d+"}
    return re.compile("|".join(re.sub(r"\b[x]|[yz]|\\\*", lambda m: wild[m[0]], w) for w in words))


def _pattern(text: str, where: str) -> re.Pattern[str] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            return re.compile(text, re.IGNORECASE) if text else None
    except FutureWarning as doubt:
        fault = f"text is ambiguous: {doubt}; write \\[ for the character ["
        raise ConfigError(f"{where}: {fault}") from None
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{where}: text is not a regular expression: {error}") from None


def _commands(text: str, where: str) -> list[str]:
    words = text.split()
    for word in words:
        if word not in _COMMANDS:
            hint = nearest(word, list(_COMMANDS)) or f"; known are {', '.join(_COMMANDS)}"
            raise ConfigError(f"{where}: unknown command '{word}'{hint}")
    return words
