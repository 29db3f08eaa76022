"""Reverse-paths with a token: what goes out comes back, and nothing else does."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.address import parse_address
from relay.model.errors import ConfigError
from relay.model.ids import new_queue_id
from relay.policy.verp import BounceToken, VerpCodec

SECRET, OLD_SECRET = "a secret of 16 octets", "the secret of last year"
LIFETIME_S = 30 * 86400.0
NOW = 1_800_000_000.0
CODEC = VerpCodec([SECRET], prefix="b-", lifetime_s=LIFETIME_S)

queue_ids = st.floats(NOW - LIFETIME_S / 2, NOW).map(new_queue_id)
numbers = st.integers(0, 999_999_999)


@given(queue_ids, numbers)
def test_verp_what_was_encoded_is_decoded(queue_id: str, number: int) -> None:
    address = CODEC.encode(queue_id, number, "bounces.example.org")
    assert CODEC.decode(address, NOW) == BounceToken(queue_id, number)


@given(queue_ids, numbers, st.data())
def test_verp_survives_any_change_of_case_and_brackets(
    queue_id: str, number: int, data: st.DataObject
) -> None:
    address = CODEC.encode(queue_id, number, "bounces.example.org")
    upper = data.draw(st.lists(st.booleans(), min_size=len(address), max_size=len(address)))
    changed = "".join(c.upper() if up else c for c, up in zip(address, upper, strict=True))
    assert CODEC.decode(f"<{changed}>", NOW) == BounceToken(queue_id, number)


@given(queue_ids, numbers, st.data())
def test_verp_with_one_character_changed_added_or_removed_is_not_ours(
    queue_id: str, number: int, data: st.DataObject
) -> None:
    local = CODEC.encode(queue_id, number, "x.test").partition("@")[0]
    at = data.draw(st.integers(0, len(local) - 1))
    character = data.draw(st.sampled_from("0123456789abcdefghjkmnpqrstvwxyz-ilou+"))
    forged = {
        local[:at] + character + local[at + 1 :],
        local[:at] + character + local[at:],
        local[:at] + local[at + 1 :],
    } - {local}
    for text in forged:
        assert CODEC.decode(f"{text}@x.test", NOW) is None


@given(queue_ids, numbers)
def test_verp_is_an_address_of_legal_length(queue_id: str, number: int) -> None:
    longest = VerpCodec([SECRET], prefix="bounces-for-the-newsletter"[:26], lifetime_s=LIFETIME_S)
    address = longest.encode(queue_id, number, "bounces.example.org")
    assert str(parse_address(address)) == address


@given(st.text())
def test_verp_reads_any_text_without_a_fault(text: str) -> None:
    assert CODEC.decode(text, NOW) is None
    assert CODEC.decode(f"b-{text}@x.test", NOW) is None


@given(queue_ids, numbers, st.emails(), st.emails())
def test_verp_of_a_recipient_vouches_for_his_address_in_any_case_and_for_no_other(
    queue_id: str, number: int, address: str, other: str
) -> None:
    path = CODEC.encode(queue_id, number, "bounces.example.org", address)
    assert str(parse_address(path)) == path
    token = CODEC.decode(path.upper(), NOW)
    assert token is not None
    assert (token.queue_id, token.number) == (queue_id, number)
    assert CODEC.vouches(token, address.swapcase())
    assert CODEC.vouches(token, other) is (other.lower() == address.lower())
    assert not CODEC.vouches(token, "")


@given(queue_ids, numbers, st.data())
def test_verp_with_its_tag_changed_is_not_ours(
    queue_id: str, number: int, data: st.DataObject
) -> None:
    local = CODEC.encode(queue_id, number, "x.test", "ann@one.test").partition("@")[0]
    at = data.draw(st.integers(len(local) - 17, len(local) - 13))
    character = data.draw(st.sampled_from("0123456789abcdefghjkmnpqrstvwxyz"))
    if character != local[at]:
        assert CODEC.decode(f"{local[:at]}{character}{local[at + 1 :]}@x.test", NOW) is None


def test_verp_without_a_tag_vouches_for_nobody() -> None:
    queue_id = new_queue_id(NOW)
    long = VerpCodec([SECRET], prefix="bounces-for-the-newsletter"[:26], lifetime_s=LIFETIME_S)
    for codec, recipient in ((CODEC, ""), (long, "ann@one.test")):
        path = codec.encode(queue_id, 1, "x.test", recipient)
        token = codec.decode(path, NOW)
        assert token == BounceToken(queue_id, 1)
        assert not codec.vouches(token, "ann@one.test")


def test_verp_is_expired_by_the_age_of_its_message() -> None:
    address = CODEC.encode(new_queue_id(NOW), 3, "x.test")
    young, old = (
        CODEC.decode(address, NOW + LIFETIME_S - 1),
        CODEC.decode(address, NOW + LIFETIME_S + 1),
    )
    assert young is not None and not young.is_expired
    assert old is not None and old.is_expired


def test_verp_names_its_recipient_or_only_the_message() -> None:
    queue_id = new_queue_id(time.time())
    assert BounceToken(queue_id, 12).recipient_id == f"{queue_id}.12"
    assert BounceToken(queue_id, 0).recipient_id is None


def test_verp_of_an_older_secret_is_read_while_the_secret_is_listed() -> None:
    queue_id = new_queue_id(NOW)
    address = VerpCodec([OLD_SECRET], prefix="b-", lifetime_s=LIFETIME_S).encode(queue_id, 1, "x.t")
    both = VerpCodec([SECRET, OLD_SECRET], prefix="b-", lifetime_s=LIFETIME_S)
    assert both.decode(address, NOW) == BounceToken(queue_id, 1)
    assert CODEC.decode(address, NOW) is None


@pytest.mark.parametrize(
    ("secrets", "prefix", "fault"),
    [
        ((), "b-", "verp_secrets"),
        (("short",), "b-", "verp_secrets"),
        ((SECRET,), "", "verp_prefix"),
        ((SECRET,), ".b", "verp_prefix"),
        ((SECRET,), "b..c", "verp_prefix"),
        ((SECRET,), "b@", "verp_prefix"),
        ((SECRET,), "b" * 27, "verp_prefix"),
    ],
)
def test_verp_settings_that_cannot_work_are_refused_with_their_name(
    secrets: tuple[str, ...], prefix: str, fault: str
) -> None:
    with pytest.raises(ConfigError, match=f"^envelope.{fault}: "):
        VerpCodec(secrets, prefix=prefix, lifetime_s=1.0)


@pytest.mark.parametrize(("queue_id", "number"), [("x", 1), ("0" * 20, -1)])
def test_verp_of_no_recipient_is_refused(queue_id: str, number: int) -> None:
    with pytest.raises(ValueError, match="no recipient"):
        CODEC.encode(queue_id, number, "x.test")
