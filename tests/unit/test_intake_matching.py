"""Whom an incoming report is about: only a token of ours says so; and what it comes to."""

import time

import pytest

from relay.delivery.intake.matching import Telling, judge, tellings_of, token_of
from relay.delivery.intake.reader import read_report
from relay.delivery.intake.report import Kind, Report, ReportedRecipient
from relay.model.ids import new_queue_id
from relay.model.suppression import Consequence, Origin, SuppressionReason
from relay.policy.rules import load_rules
from relay.policy.suppress import Suppressing
from relay.policy.verp import BounceToken, VerpCodec
from relay.settings.files import default_rules
from relay.settings.schema import Settings, Suppression
from tests.unit.test_intake_reader import FOLDER, fixture

RULES = load_rules(default_rules())
CODEC = VerpCodec(["a secret of 16 octets"], prefix="b-", lifetime_s=30 * 86400.0)
NOW = time.time()
ID = new_queue_id(NOW)
TOKEN = CODEC.encode(ID, 3, "bounces.example.org")
SETTINGS = Settings(suppression=Suppression(bounces="on", keep_bounces=60.0, entries=7))
ONE, WHOLE = BounceToken(ID, 3), BounceToken(ID, 0)


def tellings(name: str, token: BounceToken) -> list[Telling]:
    return tellings_of(read_report(fixture(name)), token, RULES, CODEC, Suppressing(SETTINGS))


def bounce(*addresses: str, **more: str) -> Report:
    recipients = tuple(ReportedRecipient(address, **more) for address in addresses)
    return Report(kind=Kind.BOUNCE, form="dsn", recipients=recipients)


def test_token_in_the_address_that_the_report_was_sent_to_counts() -> None:
    assert token_of(bounce("a@b.test"), ["x@y.test", TOKEN], CODEC, NOW) == ONE


def test_token_in_what_the_report_returns_counts_where_the_address_has_none() -> None:
    returned = fixture("arf-rfc5965").replace(b"b-token@bounces.example.org", TOKEN.encode())
    report = read_report(returned)
    assert token_of(report, ["complaints@bounces.example.org"], CODEC, NOW) == ONE


def test_token_with_a_forged_signature_is_none() -> None:
    forged = TOKEN.replace(TOKEN[-25], "0" if TOKEN[-25] != "0" else "1")
    report = Report(kind=Kind.BOUNCE, clues=(forged,))
    assert token_of(report, [forged], CODEC, NOW) is None


@pytest.mark.parametrize(
    "name", ["postfix-delayed", "postfix-success", "vacation-rfc3834", "human-reply", "empty"]
)
def test_what_is_no_bounce_and_no_complaint_tells_nothing(name: str) -> None:
    assert tellings(name, ONE) == []


@pytest.mark.parametrize("name", ["arf-not-spam", "arf-auth-failure"])
def test_feedback_that_is_no_complaint_tells_nothing(name: str) -> None:
    assert tellings(name, ONE) == []


def test_token_of_a_recipient_wins_over_the_addresses_of_the_report() -> None:
    (telling,) = tellings("postfix-two-recipients", ONE)
    assert (telling.queue_id, telling.number) == (ID, 3)


def test_token_of_a_message_lets_the_report_choose_its_recipients() -> None:
    found = tellings("postfix-two-recipients", WHOLE)
    assert [(item.number, item.address) for item in found] == [
        (0, "ann@example.net"),
        (0, "bob@example.net"),
    ]


def test_forwarded_recipient_is_known_by_the_address_that_we_had_sent_to() -> None:
    (telling,) = tellings("forwarded", WHOLE)
    assert telling.address == "ann@example.net"
    assert telling.data["reported_address"] == "ann.smith@elsewhere.example"


def test_complaint_means_an_entry_for_good_and_a_hard_bounce_one_that_ends() -> None:
    (complaint,), (opt_out,) = tellings("arf-rfc5965", ONE), tellings("arf-opt-out", ONE)
    spam = SuppressionReason.SPAM
    assert complaint.consequence == Consequence(spam, Origin.COMPLAINT, 0.0, 7)
    unsubscribed = SuppressionReason.UNSUBSCRIBED
    assert opt_out.consequence == Consequence(unsubscribed, Origin.COMPLAINT, 0.0, 7)
    (bounce,) = tellings("postfix-user-unknown", ONE)
    bounced = SuppressionReason.BOUNCED
    assert bounce.consequence == Consequence(bounced, Origin.BOUNCE, 60.0, 7)


def test_bounce_for_another_reason_than_the_mailbox_means_nothing_for_the_list() -> None:
    reasons = {}
    for path in sorted(FOLDER.glob("*.eml")):
        for item in tellings(path.stem, ONE):
            if item.event == "recipient.bounced":
                reasons.setdefault(item.consequence is not None, set()).add(item.data["reason"])
    assert reasons[True] <= {"no_such_mailbox", "mailbox_disabled", "no_such_domain", "null_mx"}
    assert {"mailbox_full", "content_rejected", "policy"} & reasons[False]
    assert not reasons[True] & reasons[False]


def test_address_of_a_report_is_vouched_for_by_the_tag_of_its_recipients_token_only() -> None:
    report = bounce("Ann@One.test")
    for recipient, is_his in (("ann@one.test", True), ("bob@one.test", False), ("", False)):
        path = CODEC.encode(ID, 3, "bounces.example.org", recipient)
        token = CODEC.decode(path, NOW)
        assert token is not None
        (telling,) = tellings_of(report, token, RULES, CODEC, Suppressing(SETTINGS))
        assert telling.is_vouched is is_his


def test_address_that_a_report_hides_is_found_in_the_message_that_it_returns() -> None:
    token = CODEC.decode(CODEC.encode(ID, 3, "b.test", "Ann@example.net"), NOW)
    assert token is not None
    report = read_report(fixture("arf-redacted"))
    (telling,) = tellings_of(report, token, RULES, CODEC, Suppressing(SETTINGS))
    assert (telling.address, telling.is_vouched) == ("ann@example.net", True)
    (other,) = tellings("arf-redacted", ONE)
    assert (other.address, other.is_vouched) == ("", False)


def test_complaint_that_names_nobody_is_about_the_token() -> None:
    (telling,) = tellings("arf-redacted", ONE)
    assert (telling.event, telling.number) == ("recipient.complained", 3)
    assert telling.data["feedback_type"] == "abuse"


@pytest.mark.parametrize(
    ("name", "reason", "scope"),
    [
        ("postfix-user-unknown", "no_such_mailbox", "recipient"),
        ("gmail-not-found", "no_such_mailbox", "recipient"),
        ("gmail-dmarc", "unauthenticated", "sender"),
        ("exchange-online", "no_such_mailbox", "recipient"),
        ("exchange-quota", "mailbox_full", "recipient"),
        ("icloud", "no_such_mailbox", "recipient"),
        ("yahoo", "no_such_mailbox", "recipient"),
        ("barracuda", "content_rejected", "message"),
        ("qmail", "no_such_mailbox", "recipient"),
        ("qmail-remote", "mailbox_full", "recipient"),
        ("orange", "no_such_mailbox", "recipient"),
        ("exchange-2003", "no_such_mailbox", "recipient"),
        ("address-without-type", "mailbox_disabled", "recipient"),
        ("relay-own-report", "null_mx", "recipient"),
    ],
)
def test_bounce_gets_the_reason_that_its_last_reply_would_have_got(
    name: str, reason: str, scope: str
) -> None:
    telling = tellings(name, ONE)[0]
    assert (telling.event, telling.data["reason"], telling.data["scope"]) == (
        "recipient.bounced",
        reason,
        scope,
    )
    assert telling.data["severity"] == "permanent"


def test_lines_of_a_reply_are_joined_without_their_codes() -> None:
    said = "550-5.1.1 The account does not exist. Try 550-5.1.1 again or 550 5.1.1 never. - gsmtp"
    reply, _ = judge(ReportedRecipient("a@b.test", diagnostic=said), RULES)
    assert (reply.code, reply.enhanced) == (550, "5.1.1")
    assert reply.text == "The account does not exist. Try again or never. - gsmtp"
