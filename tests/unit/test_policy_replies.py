"""What the large providers really say, each text with its source and the verdict it must get."""

import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from relay.model.reply import Reply
from relay.model.verdict import Scope, Severity, Verdict
from relay.policy.classify import classify_reply, classify_transaction, is_about_rate, status_code
from relay.policy.hints import TEXT_CHARACTERS as HINT_CHARACTERS
from relay.policy.hints import retry_hint_s
from relay.policy.rules import TEXT_CHARACTERS, Rule, Rules, load_rules
from relay.settings.files import default_rules
from relay.smtp.reply_reader import ReplyReader

RULES = load_rules(default_rules())
TABLE = Path(__file__).parent / "data" / "replies.txt"


class Known(msgspec.Struct, frozen=True):
    """One line of the table: who says it, where that is known from, what it must come to."""

    provider: str
    source: str
    command: str
    expected: str
    unknown: str
    text: str

    @property
    def reply(self) -> Reply:
        return read(self.text, self.command)


def read(text: str, command: str = "RCPT") -> Reply:
    """The reply as the wire gives it; lines that begin with a code are lines of one reply."""
    reader = ReplyReader()
    reader.feed(text.encode() + b"\r\n")
    reply = reader.next_reply(command)
    assert reply is not None
    return reply


def table() -> Iterator[Known]:
    provider = source = ""
    for line in TABLE.read_text("utf-8").splitlines():
        if line.startswith("== "):
            provider, *_, source = line.removeprefix("== ").split()
        elif line and not line.startswith("#"):
            command, expected, text = line.split(" | ", 2)
            known, _, unknown = expected.partition(" ; unknown: ")
            yield Known(provider, source, command, known, unknown or known, text)


KNOWN = tuple(table())


def summary(verdict: Verdict) -> str:
    return f"{verdict.severity} {verdict.scope} {verdict.reason}"


@pytest.mark.parametrize("known", KNOWN, ids=[f"{k.provider}: {k.text[:60]}" for k in KNOWN])
def test_reply_of_a_provider_gets_its_verdict(known: Known) -> None:
    verdict = classify_reply(known.reply, provider=known.provider, rules=RULES)
    assert summary(verdict) == known.expected


def test_reply_gets_its_verdict_where_the_provider_is_unknown() -> None:
    verdicts = [(known, summary(classify_reply(known.reply, rules=RULES))) for known in KNOWN]
    assert [(known.text, got) for known, got in verdicts if got != known.unknown] == []


def test_reply_hits_no_rule_of_a_neighbour() -> None:
    hits = [(known, RULES.match(known.reply, None)) for known in KNOWN]
    wrong = [known.text for known, rule in hits if rule and _is_strange(rule, known)]
    assert wrong == []


def _is_strange(rule: Rule, known: Known) -> bool:
    return rule.table.provider not in ("", known.provider)


def test_reply_said_by_a_neighbour_pauses_no_route_and_fails_no_more_than_its_code() -> None:
    said = [
        (known, classify_reply(known.reply, provider=provider, rules=RULES))
        for known in KNOWN
        for provider in PROVIDERS - {known.provider}
    ]
    pausing = {known.text for known, verdict in said if verdict.scope is Scope.ROUTE}
    assert {text for text in pausing if not ROUTE_WORDS.search(text)} == set()
    waiting = [verdict.severity for known, verdict in said if known.reply.is_transient]
    assert set(waiting) == {Severity.TRANSIENT}


PROVIDERS = frozenset(rule.table.provider for rule in RULES.rules if rule.table.provider)
#: Demands for a login: whoever says so means the route.
ROUTE_WORDS = re.compile(r"authentica|^530|relay", re.IGNORECASE)


def test_table_names_at_least_150_texts_of_at_least_20_providers_with_their_sources(
    tell: Callable[[object], None],
) -> None:
    by_provider = Counter(known.provider for known in KNOWN)
    sources = {known.source for known in KNOWN}
    assert len(KNOWN) >= 150
    assert len(by_provider) >= 20
    assert len({(known.provider, known.command, known.text) for known in KNOWN}) == len(KNOWN)
    assert all(source.startswith(("https://", "http://")) for source in sources)
    tell(
        f"verdicts: {len(KNOWN)} reply texts of {len(by_provider)} providers and servers "
        f"from {len(sources)} sources, {len(RULES.rules)} rules"
    )


# ── the known traps, each by its name


def test_trap_421_with_enhanced_class_5_is_temporary_and_keeps_its_meaning() -> None:
    text = "421 5.7.32 Your email has been rate limited because the From: header (RFC5322) in this "
    reply = read(text + "message isn't aligned with either the authenticated SPF or DKIM domain.")
    verdict = classify_reply(reply, provider="google", rules=RULES)
    assert summary(verdict) == "transient sender alignment_failed"
    assert status_code(reply) == "4.0.0"


def test_trap_550_about_a_rate_of_receiving_is_retried() -> None:
    text = "550 5.2.1 The user you are trying to contact is receiving email at a rate that prevents"
    verdict = classify_reply(read(text), provider="google", rules=RULES)
    assert summary(verdict) == "transient recipient mailbox_busy"


@pytest.mark.parametrize("provider", [None, "google", "microsoft", "elsewhere"])
def test_trap_full_mailbox_is_about_the_recipient_and_final_only_with_a_5(
    provider: str | None,
) -> None:
    soft = classify_reply(read("452 4.2.2 mailbox full"), provider=provider, rules=RULES)
    hard = classify_reply(read("552 5.2.2 mailbox full"), provider=provider, rules=RULES)
    assert summary(soft) == "transient recipient mailbox_full"
    assert summary(hard) == "permanent recipient mailbox_full"


@pytest.mark.parametrize("provider", [None, "google", "microsoft"])
def test_trap_452_4_5_3_splits_and_does_not_defer(provider: str | None) -> None:
    text = "452 4.5.3 Domain policy size per transaction exceeded, please try this recipient in a "
    reply = read(text + "separate transaction.")
    verdict = classify_reply(reply, provider=provider, rules=RULES)
    assert summary(verdict) == "transient transaction too_many_recipients"


@pytest.mark.parametrize("provider", [None, "google"])
def test_trap_demand_for_tls_is_about_tls_and_not_a_closing_connection(
    provider: str | None,
) -> None:
    reply = read("421 4.7.0 TLS required for RCPT domain, closing connection.")
    verdict = classify_reply(reply, provider=provider, rules=RULES)
    assert summary(verdict) == "transient domain tls_required"


@pytest.mark.parametrize(
    ("text", "provider", "scope"),
    [
        ("451 4.7.23 x", "google", Scope.SENDER),  # by the registry; Google's words say PTR
        ("451 4.7.23 The sending IP doesn't have a PTR record", "google", Scope.SOURCE),
        ("421 4.7.27 x", "google", Scope.SENDER),
        ("421 4.7.29 x", "google", Scope.DOMAIN),
        ("421 4.7.30 x", "google", Scope.SENDER),
        ("421 4.7.32 x", "google", Scope.SENDER),
        ("550 5.7.25 x", "google", Scope.SOURCE),
        ("550 5.7.26 x", "google", Scope.SENDER),
        ("550 5.7.27 x", "google", Scope.SENDER),
        ("550 5.7.29 x", "google", Scope.DOMAIN),
        ("550 5.7.30 x", "google", Scope.SENDER),
        ("550 5.7.515 x", "microsoft", Scope.SENDER),
    ],
)
def test_trap_fault_of_our_configuration_is_blamed_on_source_sender_or_tls(
    text: str, provider: str, scope: Scope
) -> None:
    assert classify_reply(read(text, "end-of-data"), provider=provider, rules=RULES).scope is scope


@pytest.mark.parametrize("provider", [None, "yahoo"])
def test_trap_yahoo_ts04_slows_the_source_and_bounces_nothing(provider: str | None) -> None:
    text = "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume"
    reply = read(text, "MAIL")
    assert summary(classify_reply(reply, provider=provider, rules=RULES)) == (
        "transient source rate_limited"
    )
    assert is_about_rate(reply)


def test_trap_554_5_4_6_is_a_loop_of_this_message() -> None:
    verdict = classify_reply(read("554 5.4.6 Too many hops", "end-of-data"), rules=RULES)
    assert summary(verdict) == "permanent message routing_loop"


@pytest.mark.parametrize(
    "ending", ["- gsmtp", "d2e1a72fcca58-7b2.31 - gsmtp", "af79cd13be357-79d.114 - gcdp"]
)
def test_trap_ids_that_gmail_appends_change_no_verdict(ending: str) -> None:
    reply = read(f"550 5.2.1 The email account that you tried to reach is inactive. {ending}")
    verdict = classify_reply(reply, provider="google", rules=RULES)
    assert summary(verdict) == "permanent recipient mailbox_disabled"


# ── mixed replies


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # GMX: the first line alone would have said that there is no such mailbox.
        (
            "550-Requested action not taken: mailbox unavailable\r\n"
            "550-Reject due to policy restrictions.\r\n550 For explanation visit",
            "permanent source source_reputation",
        ),
        # Each line with its enhanced code: the first one stands.
        (
            "550-5.1.1 The email account that you tried to reach does not exist.\r\n"
            "550-5.1.1 Please try double-checking the recipient's email address\r\n"
            "550 5.1.1 for typos. - gsmtp",
            "permanent recipient no_such_mailbox",
        ),
        ("452-4.2.2 mailbox full\r\n452 4.3.1 system full", "transient recipient mailbox_full"),
        # The code that counts is that of SMTP, not one that is quoted in the text.
        (
            "451 5.1.1 remote said: 550 User unknown",
            "transient recipient local_error",
        ),
        ("550 4.2.2 mailbox is full", "permanent recipient mailbox_full"),
        ("450 5.1.1 User unknown", "transient recipient mailbox_unavailable"),
        ("554 2.0.0 spam", "permanent message content_rejected"),
    ],
)
def test_mixed_reply_is_judged_by_its_code_and_its_first_enhanced_code(
    text: str, expected: str
) -> None:
    assert summary(classify_reply(read(text), rules=RULES)) == expected


class Exchange(msgspec.Struct):
    """What was read of one transaction."""

    replies: tuple[Reply | None, ...]
    mail: Reply | None = Reply(250, None, ("ok",), "MAIL")
    data: Reply | None = Reply(354, None, ("go",), "DATA")
    final: Reply | None = Reply(250, None, ("ok",), "end-of-data")
    finals: tuple[Reply | None, ...] = ()
    broken: Exception | None = None
    dot_sent: bool = True
    is_local: bool = False


def test_mixed_answers_to_the_recipients_of_one_transaction_are_judged_one_by_one() -> None:
    replies = (
        read("250 ok"),
        read("550 5.1.1 no such user"),
        read("452 4.2.2 over quota"),
        read("452 4.5.3 too many recipients"),
    )
    verdicts = classify_transaction(Exchange(replies), provider="google", rules=RULES)
    assert [summary(verdict) for verdict in verdicts] == [
        "success message delivered",
        "permanent recipient no_such_mailbox",
        "transient recipient mailbox_full",
        "transient transaction too_many_recipients",
    ]


# ── hints


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("450 4.7.1 please wait 300 seconds", 300),
        ("450 You have been greylisted for 600 seconds", 600),
        ("451 4.7.1 Greylisting in effect, please come back later (300 seconds)", 300),
        ("450 wait at least 5 minutes before trying again", 300),
        ("451 try your request again in 4 minutes", 240),
        ("421 retry after 1 day", 86400),
        ("450 rate limited to 100 per 60 seconds", None),
        ("450 4.7.1 try again (id 300)", None),
        ("450 in 300 seconds we were busy", None),
    ],
)
def test_hint_in_the_words_of_greylisters_is_read(text: str, seconds: float | None) -> None:
    assert classify_reply(read(text), rules=RULES).retry_after_s == seconds


def test_hint_is_looked_for_at_the_beginning_only() -> None:
    hint = " try again in 300 seconds"
    assert retry_hint_s("x" * (HINT_CHARACTERS - len(hint)) + hint) == 300
    assert retry_hint_s("x" * HINT_CHARACTERS + hint) is None


# ── hostile texts


class Counting:
    """A pattern that remembers how many characters it was given at most."""

    def __init__(self) -> None:
        self.longest = 0

    def search(self, text: str) -> None:
        self.longest = max(self.longest, len(text))


@pytest.mark.parametrize("unit", ["a", " ", "a@", "@", "<", "spam ", "\t", "5.7.1 ", "é"])
def test_rules_see_only_the_beginning_of_a_hostile_text(unit: str) -> None:
    counting = Counting()
    counted = [msgspec.structs.replace(rule, pattern=counting) for rule in RULES.rules]
    rules = Rules(tuple(counted))
    hostile = Reply(550, None, ((unit * 100_000)[:100_000],), "RCPT")
    assert rules.match(hostile, None) is None
    assert counting.longest <= TEXT_CHARACTERS
    assert classify_reply(hostile, rules=RULES).severity in Severity


def _repeats(parsed: object, inside: int = 0) -> Iterator[int]:
    """How deep each open-ended repetition lies in other repetitions of a parsed pattern."""
    for operator, argument in parsed:  # type: ignore[attr-defined]
        if operator in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            _low, high, body = argument
            if high == sre.MAXREPEAT:
                yield inside
            yield from _repeats(body, inside + (high > 1))
        elif operator is sre.BRANCH:
            for branch in argument[1]:
                yield from _repeats(branch, inside)
        elif operator is sre.SUBPATTERN:
            yield from _repeats(argument[-1], inside)


@pytest.mark.parametrize("rule", RULES.rules, ids=[r.table.text[:40] for r in RULES.rules])
def test_pattern_of_a_rule_repeats_nothing_within_a_repetition(rule: Rule) -> None:
    if rule.pattern is not None:
        depths = list(_repeats(sre_parser.parse(rule.pattern.pattern)))
        assert len(depths) <= 2
        assert all(depth == 0 for depth in depths)
