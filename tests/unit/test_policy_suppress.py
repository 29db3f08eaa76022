"""Only what says that a mailbox is not there puts it on the suppression list."""

import pytest

from relay.model.reply import Reply
from relay.model.suppression import Consequence, Origin, SuppressionReason
from relay.policy.classify import classify_reply
from relay.policy.reasons import SENTENCES
from relay.policy.rules import load_rules
from relay.policy.suppress import Suppressing
from relay.settings.files import default_rules
from relay.settings.schema import BounceReason, Delivery, Mode, Settings, Suppression

RULES = load_rules(default_rules())


def suppressing(*, mode: Mode = Mode.LIVE, **own: object) -> Suppressing:
    suppression = Suppression(**own)  # type: ignore[arg-type]
    return Suppressing(Settings(delivery=Delivery(mode=mode), suppression=suppression))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 5.1.1 No such user here", "bounced"),
        ("550 5.1.1 <a@b>: Recipient address rejected: User unknown", "bounced"),
        ("550 5.1.2 Bad destination system", "invalid"),
        ("550 5.1.10 Recipient address has null MX", "invalid"),
        ("550 5.2.1 The account is disabled", "bounced"),
        ("552 5.2.2 Mailbox full", ""),
        ("550 5.7.1 Blocked by policy", ""),
        ("550 5.7.1 Service unavailable; client host blocked using Spamhaus", ""),
        ("554 5.7.1 Message rejected as spam", ""),
        ("550 5.7.26 Unauthenticated email is not accepted", ""),
        ("450 4.1.1 User unknown in local table", ""),
        ("550 5.4.6 Routing loop", ""),
    ],
)
def test_reply_means_an_entry_where_the_mailbox_is_not_there_and_nowhere_else(
    text: str, expected: str
) -> None:
    code, enhanced, words = text.split(" ", 2)
    verdict = classify_reply(Reply(int(code), enhanced, (words,), "RCPT"), rules=RULES)
    meant = suppressing().after_failure(verdict.reason) if code[0] == "5" else None
    assert (str(meant.reason) if meant else "") == expected, verdict


def test_bounces_count_by_the_mode_unless_it_is_said() -> None:
    counts = {
        (str(mode), said): suppressing(mode=mode, bounces=said).after_failure("no_such_mailbox")
        is not None
        for mode in Mode
        for said in ("live", "on", "off")
    }
    assert {case for case, is_on in counts.items() if is_on} == {
        ("live", "live"),
        ("live", "on"),
        ("sink", "on"),
    }


def test_only_the_reasons_that_are_named_count() -> None:
    own = suppressing(bounce_reasons=(BounceReason.MAILBOX_MOVED,), keep_bounces=9.0, entries=3)
    counting = [reason for reason in SENTENCES if own.after_failure(reason) is not None]
    assert counting == ["mailbox_moved"]
    expected = Consequence(SuppressionReason.BOUNCED, Origin.BOUNCE, 9.0, 3)
    assert own.after_failure("mailbox_moved") == expected


def test_every_reason_that_can_be_named_is_one_of_verdicts() -> None:
    assert {str(reason) for reason in BounceReason} <= SENTENCES.keys()


def test_complaint_counts_though_bounces_do_not() -> None:
    own = suppressing(bounces="off")
    assert own.after_complaint("abuse").reason == "spam"
    assert own.after_complaint("").keep_s == 0.0
