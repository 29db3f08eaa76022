"""Reply rules: every example hits its rule, every fault of a file is named."""

import re

import pytest

from relay.model.errors import ConfigError
from relay.model.reply import Reply
from relay.model.verdict import Scope, Severity
from relay.policy.classify import classify_reply
from relay.policy.reasons import SENTENCES
from relay.policy.rules import Rule, load_rules
from relay.settings.files import default_rules

RULES = load_rules(default_rules())
_EXAMPLE = re.compile(r"(\d{3}) (?:(\d\.\d+\.\d+) )?(.*)")


def example_reply(rule: Rule, example: str) -> Reply:
    match = _EXAMPLE.fullmatch(example)
    assert match is not None, example
    command = "RCPT" if "RCPT" in rule.commands else min(rule.commands, default="end-of-data")
    return Reply(int(match[1]), match[2], (match[3],), command)


EXAMPLES = [(rule, example) for rule in RULES.rules for example in rule.table.examples]


@pytest.mark.parametrize(("rule", "example"), EXAMPLES, ids=[e[:40] for _, e in EXAMPLES])
def test_example_hits_its_own_rule(rule: Rule, example: str) -> None:
    reply = example_reply(rule, example)
    assert RULES.match(reply, rule.table.provider or None) is rule
    verdict = classify_reply(reply, provider=rule.table.provider or None, rules=RULES)
    assert verdict.reason == rule.table.reason
    assert verdict.scope is rule.table.scope
    waits = reply.is_transient or rule.table.soft
    assert verdict.severity is (Severity.TRANSIENT if waits else Severity.PERMANENT)


@pytest.mark.parametrize(
    ("rule", "example"),
    [(r, e) for r, e in EXAMPLES if r.table.provider and r.table.text],
)
def test_example_keeps_its_severity_where_the_provider_is_unknown(rule: Rule, example: str) -> None:
    reply = example_reply(rule, example)
    verdict = classify_reply(reply, rules=RULES)
    waits = reply.is_transient or rule.table.soft
    assert verdict.severity is (Severity.TRANSIENT if waits else Severity.PERMANENT)


def test_every_rule_has_an_example_and_a_source() -> None:
    assert len(RULES.rules) >= 60
    bare = [rule.table for rule in RULES.rules if not rule.table.examples or not rule.table.source]
    assert bare == []


def test_every_rule_for_the_whole_route_or_sender_is_worded_by_its_receiver() -> None:
    scopes = {rule.table.scope for rule in RULES.rules}
    assert Scope.LOCAL not in scopes


def test_every_reason_has_a_sentence_that_ends() -> None:
    for reason, sentence in SENTENCES.items():
        assert re.fullmatch(r"[a-z0-9_]+", reason)
        assert sentence[0].isupper() and sentence.endswith(".")


def test_rule_of_another_provider_is_not_asked() -> None:
    text = '[[rules]]\nprovider = "a"\ntext = "zzz"\nscope = "source"\nreason = "rate_limited"\n'
    rules = load_rules(text)
    reply = Reply(450, None, ("zzz",), "RCPT")
    assert rules.match(reply, "a") is not None
    assert rules.match(reply, None) is not None
    assert rules.match(reply, "b") is None


def test_rule_of_a_provider_comes_before_a_rule_for_everyone() -> None:
    rules = load_rules(
        '[[rules]]\ntext = "zzz"\nscope = "host"\nreason = "congested"\n'
        '[[rules]]\nprovider = "a"\ntext = "zzz"\nscope = "source"\nreason = "rate_limited"\n'
    )
    found = rules.match(Reply(450, None, ("zzz",), "RCPT"), "a")
    assert found is not None and found.table.reason == "rate_limited"


@pytest.mark.parametrize(
    ("pattern", "code", "matches"),
    [
        ("421", 421, True),
        ("421", 422, False),
        ("55z", 559, True),
        ("55z", 541, False),
        ("4yz", 499, True),
        ("4yz 550", 550, True),
    ],
)
def test_code_pattern_reads_y_and_z_as_any_digit(pattern: str, code: int, matches: bool) -> None:
    rules = load_rules(f'[[rules]]\ncode = "{pattern}"\nscope = "host"\nreason = "congested"\n')
    assert (rules.match(Reply(code, None, (), "RCPT"), None) is not None) is matches


@pytest.mark.parametrize(
    ("pattern", "status", "matches"),
    [
        ("5.7.26", "5.7.26", True),
        ("5.7.26", "4.7.26", False),
        ("x.7.26", "4.7.26", True),
        ("5.7.6*", "5.7.606", True),
        ("5.7.6*", "5.7.6", False),
        ("5.7.2", "5.7.26", False),
        ("none", None, True),
        ("none", "5.7.1", False),
        ("none 5.7.1", "5.7.1", True),
    ],
)
def test_enhanced_pattern_reads_x_and_star(pattern: str, status: str | None, matches: bool) -> None:
    rules = load_rules(f'[[rules]]\nenhanced = "{pattern}"\nscope = "host"\nreason = "congested"\n')
    assert (rules.match(Reply(550, status, (), "RCPT"), None) is not None) is matches


_GOOD = 'scope = "host"\nreason = "congested"\ncode = "421"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules = 5", r"write every rule as its own \[\[rules\]\] table"),
        ("[[rule]]\n" + _GOOD, r"unknown key 'rule'; did you mean 'rules'\?"),
        ("nonsense", "is not TOML"),
        ("[[rules]]\n" + _GOOD + 'provder = "google"', "did you mean 'provider'"),
        ("[[rules]]\n" + _GOOD.replace("congested", "congestd"), "did you mean 'congested'"),
        ("[[rules]]\n" + _GOOD.replace('"host"', '"hosts"'), "rule 1 .*Invalid enum value 'hosts'"),
        ("[[rules]]\n" + _GOOD.replace("421", "921"), "code: '921' is no such code"),
        ("[[rules]]\n" + _GOOD + 'enhanced = "7.26"', "enhanced: '7.26' is no such code"),
        ("[[rules]]\n" + _GOOD + 'command = "RCTP"', "did you mean 'RCPT'"),
        ("[[rules]]\n" + _GOOD + 'text = "("', "not a regular expression"),
        ("[[rules]]\n" + _GOOD + 'text = "[[abc]"', r"text is ambiguous: .*; write \\\[ for"),
        ("[[rules]]\n" + _GOOD.replace('code = "421"\n', ""), "name a code"),
        ("[[rules]]\n" + _GOOD + "[[rules]]\nreason = 5", "rule 2"),
        ('[[rules]]\nreason = "a\\nb"\nprovider = 1', r"rule 1 \('a\\nb'\): Expected"),
    ],
)
def test_fault_of_a_rule_file_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_rules(text, file="mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
