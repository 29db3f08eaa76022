"""What holds for whose mail: VERP by route, sender and class; Feedback-ID."""

import msgspec
import pytest

from relay.model.errors import ConfigError
from relay.model.ids import new_queue_id
from relay.policy.reverse_path import ReversePaths
from relay.policy.route import RouteTable
from relay.policy.senders import Senders
from relay.policy.verp import BounceToken, VerpCodec
from relay.settings.schema import Envelope, Headers, MailClass, Route, Sender, Settings, Verp

ENVELOPE = Envelope(
    verp_bulk=Verp.RECIPIENT,
    bounce_domain="bounces.example.org",
    verp_secrets=("a secret of 16 octets",),
)
SETTINGS = Settings(
    envelope=ENVELOPE,
    senders=(
        Sender(domain="shop.test", mail_class=MailClass.BULK, verp=Verp.MESSAGE),
        Sender(domain=".shop.test", verp=Verp.MESSAGE, bounce_domain="b.shop.test"),
        Sender(tenant="acme", verp=Verp.OFF),
    ),
    routes=(
        Route(domain="direct.test", verp=Verp.OFF),
        Route(domain="*", smarthost="smtp://smart.test", name="smart", verp=Verp.MESSAGE),
    ),
)


def paths(settings: Settings) -> ReversePaths:
    found = ReversePaths.from_settings(settings, RouteTable.from_settings(settings))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("sender", "tenant", "mail_class", "destination", "verp", "domain"),
    [
        ("a@x.test", "default", "bulk", "y.test", Verp.RECIPIENT, "bounces.example.org"),
        ("a@x.test", "default", "transactional", "y.test", Verp.OFF, "bounces.example.org"),
        ("a@shop.test", "default", "bulk", "y.test", Verp.MESSAGE, "bounces.example.org"),
        ("a@shop.test", "default", "transactional", "y.test", Verp.OFF, "bounces.example.org"),
        ("a@eu.shop.test", "default", "transactional", "y.test", Verp.MESSAGE, "b.shop.test"),
        ("a@x.test", "acme", "bulk", "y.test", Verp.OFF, "bounces.example.org"),
        ("", "default", "bulk", "y.test", Verp.OFF, ""),
    ],
)
def test_reverse_path_goes_by_sender_tenant_and_class(
    sender: str, tenant: str, mail_class: str, destination: str, verp: Verp, domain: str
) -> None:
    settings = msgspec.structs.replace(SETTINGS, routes=())
    manner = paths(settings).manner(
        sender, tenant=tenant, mail_class=mail_class, destination=destination
    )
    assert manner == (verp, domain)


@pytest.mark.parametrize(
    ("destination", "verp"),
    [("direct.test", Verp.OFF), ("[smart]", Verp.MESSAGE)],
)
def test_reverse_path_goes_by_the_route_before_all_else(destination: str, verp: Verp) -> None:
    manner = paths(SETTINGS).manner(
        "a@x.test", tenant="default", mail_class="bulk", destination=destination
    )
    assert manner[0] is verp


def test_reverse_path_of_a_recipient_is_read_back_with_the_same_settings() -> None:
    queue_id = new_queue_id(1_800_000_000.0)
    address = paths(SETTINGS).encode(queue_id, 7, "bounces.example.org")
    assert address.endswith("@bounces.example.org")
    token = VerpCodec.from_settings(SETTINGS).decode(address, 1_800_000_000.0)
    assert token == BounceToken(queue_id, 7)


def test_reverse_paths_that_nobody_asked_for_cost_nothing() -> None:
    for settings in (Settings(), Settings(routes=(Route(domain="*", verp=Verp.OFF),))):
        assert ReversePaths.from_settings(settings, RouteTable.from_settings(settings)) is None


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (
            Settings(envelope=Envelope(verp_bulk=Verp.MESSAGE)),
            r"envelope.verp_bulk: .*bounce_d",
        ),
        (Settings(senders=(Sender(verp=Verp.MESSAGE),)), r"senders\[1\].verp: .*bounce_domain"),
        (Settings(routes=(Route("*", verp=Verp.MESSAGE),)), r"routes\[1\].verp: .*bounce_domain"),
        (
            Settings(envelope=msgspec.structs.replace(ENVELOPE, verp_secrets=())),
            "envelope.verp_secrets: each needs 16 octets",
        ),
        (Settings(senders=(Sender(domain="."),)), r"senders\[1\].domain: '.' is no pattern"),
        (Settings(headers=Headers("{from}:acme1")), r"headers.feedback_id: there is no \{from\}"),
        (Settings(headers=Headers("{tenant!r}:acme1")), r"headers.feedback_id: there is no"),
        (Settings(headers=Headers("{:acme1")), "headers.feedback_id: .*write such as"),
        (Settings(headers=Headers("a b:acme1")), "headers.feedback_id: .* more than letters"),
        (Settings(headers=Headers("{tenant}")), "headers.feedback_id: wants up to three parts"),
        (Settings(headers=Headers("a:b:c:d:acme1")), "headers.feedback_id: wants up to three"),
        (Settings(headers=Headers("a:acm")), "headers.feedback_id: .* 5 to 15"),
        (Settings(senders=(Sender(feedback_id="x"),)), r"senders\[1\].feedback_id: wants"),
    ],
)
def test_senders_that_cannot_work_are_refused_with_place_and_fix(
    settings: Settings, fault: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{fault}"):
        ReversePaths.from_settings(settings, RouteTable.from_settings(settings))


def test_feedback_id_is_filled_and_holds_nothing_that_could_break_it() -> None:
    senders = Senders(
        Settings(
            headers=Headers("{campaign}:{tenant}:{class}:acme1"),
            senders=(Sender(domain="shop.test", feedback_id="{domain}:shop1"),),
        )
    )
    assert senders.use_feedback_id and not Senders(Settings()).use_feedback_id
    assert senders.feedback_id("x.test", "t1", "bulk", "spring") == "spring:t1:bulk:acme1"
    assert senders.feedback_id("shop.test", "t1", "bulk", "spring") == "shop.test:shop1"
    evil = senders.feedback_id("x.test", "a:b", "bulk", "x\r\nBcc: all {tenant}" + "é" * 90)
    assert evil.startswith("x__Bcc__all__tenant_") and evil.count(":") == 3
    assert evil.isascii() and evil.isprintable() and " " not in evil and len(evil) < 150
