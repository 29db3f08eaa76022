"""The bounce intake knows its own addresses and no others, and starts only where it can believe."""

import pytest

from relay.delivery.intake.matching import Telling
from relay.ingress.intake import Intake
from relay.model.address import parse_address
from relay.model.errors import ConfigError
from relay.model.ids import new_queue_id
from relay.policy.rules import NO_RULES
from relay.policy.verp import VerpCodec
from relay.settings import schema
from relay.store.incoming import Told
from relay.telemetry.meter import Meter

SECRET = "a secret of more than 16 octets"


async def nobody(telling: Telling, keep_s: float) -> Told:
    raise AssertionError(f"{telling} was told")


def intake(*addresses: str, secrets: tuple[str, ...] = (SECRET,)) -> Intake:
    settings = schema.Settings(
        envelope=schema.Envelope(verp_secrets=secrets),
        intake=schema.Intake(addresses=addresses),
    )
    return Intake(settings, NO_RULES, nobody, Meter())


def test_intake_takes_tokens_and_its_own_addresses_in_any_case() -> None:
    codec = VerpCodec([SECRET], prefix="b-", lifetime_s=1.0)
    token = codec.encode(new_queue_id(), 1, "bounces.example.org")
    door = intake("Complaints@bounces.example.org")
    for text in (token, token.upper(), "complaints@BOUNCES.example.org"):
        assert door.refusal(parse_address(text)) == ""


@pytest.mark.parametrize(
    "text", ["ann@example.net", "b-0123456789@bounces.example.org", "postmaster@example.org"]
)
def test_intake_refuses_every_other_address(text: str) -> None:
    assert intake().refusal(parse_address(text)).startswith(f"550 5.1.1 <{text}>")


def test_intake_without_a_secret_does_not_start() -> None:
    with pytest.raises(ConfigError, match=r"^envelope\.verp_secrets: "):
        intake(secrets=())


def test_intake_with_an_address_that_is_none_does_not_start() -> None:
    with pytest.raises(ConfigError, match=r"^intake\.addresses: "):
        intake("complaints")
