"""What a claim is sent as: transactions by count, by reverse-path, with signatures on top."""

import msgspec

from relay.delivery.load import load_of, loads_of
from relay.model.dsn import Dsn, RecipientDsn
from relay.model.ids import new_queue_id
from relay.model.message import ClaimedMessage, ClaimedRecipient
from relay.policy.reverse_path import ReversePaths
from relay.policy.route import RouteTable
from relay.policy.verp import BounceToken, VerpCodec
from relay.settings.schema import Envelope, Settings, Verp
from relay.store.claims import Claim

NOW = 1_800_000_000.0
SETTINGS = Settings(
    envelope=Envelope(
        verp_bulk=Verp.RECIPIENT,
        verp_transactional=Verp.MESSAGE,
        bounce_domain="b.test",
        verp_secrets=("a secret of 16 octets",),
    )
)
PATHS = ReversePaths.from_settings(SETTINGS, RouteTable.from_settings(SETTINGS))
CODEC = VerpCodec.from_settings(SETTINGS)
MESSAGE = ClaimedMessage(
    queue_id=new_queue_id(NOW),
    reverse_path="news@example.org",
    recipients=tuple(
        ClaimedRecipient(number, f"r{number}@x.test", "x.test", 1, 0, "q") for number in (1, 2, 3)
    ),
    content=b"A: b\r\n\r\nc\r\n",
    size=11,
    created=NOW,
    expires=NOW + 86_400,
    message_id="<1@x.test>",
    mail_class="bulk",
    tenant="default",
    campaign="",
)


def tokens(message: ClaimedMessage, size: int = 50) -> list[BounceToken | None]:
    loads = loads_of(Claim((message,)), size, PATHS)
    return [CODEC.decode(load.transaction.reverse_path, NOW) for load in loads]


def test_loads_hold_as_many_recipients_as_a_transaction_may() -> None:
    loads = list(loads_of(Claim((MESSAGE,)), 2))
    assert [load.transaction.forward_paths for load in loads] == [
        ("r1@x.test", "r2@x.test"),
        ("r3@x.test",),
    ]
    assert {load.transaction.reverse_path for load in loads} == {"news@example.org"}


def test_loads_are_of_one_recipient_where_the_token_names_recipients() -> None:
    found = [token for token in tokens(MESSAGE) if token is not None]
    assert [(token.queue_id, token.number) for token in found] == [
        (MESSAGE.queue_id, number) for number in (1, 2, 3)
    ]
    vouched = [[CODEC.vouches(token, f"r{n}@x.test") for n in (1, 2, 3)] for token in found]
    assert vouched == [[True, False, False], [False, True, False], [False, False, True]]


def test_loads_share_a_token_where_it_names_the_message() -> None:
    message = msgspec.structs.replace(MESSAGE, mail_class="transactional")
    assert tokens(message, size=2) == [BounceToken(MESSAGE.queue_id, 0)] * 2


def test_loads_of_reports_keep_the_null_reverse_path() -> None:
    message = msgspec.structs.replace(MESSAGE, reverse_path="")
    (load,) = loads_of(Claim((message,)), 50, PATHS)
    assert load.transaction.reverse_path == ""


def test_load_that_is_sent_again_keeps_its_reverse_path_and_its_signatures() -> None:
    load = load_of(MESSAGE, MESSAGE.recipients, "b-token@b.test")
    signed = msgspec.structs.replace(MESSAGE, content=b"DKIM: x\r\n" + MESSAGE.content, size=20)
    load.carry(signed)
    again = load.of(MESSAGE.recipients[:1])
    for one in (load, again):
        assert one.transaction.reverse_path == "b-token@b.test"
        assert one.transaction.content == signed.content and one.transaction.size == 20
    assert again.transaction.forward_paths == ("r1@x.test",)


def test_loads_ask_for_reports_only_where_these_go_to_the_sender() -> None:
    asked = RecipientDsn("S", "rfc822;old@x.test")
    first, second, _ = MESSAGE.recipients
    recipients = (msgspec.structs.replace(first, dsn=asked), second)
    message = msgspec.structs.replace(MESSAGE, recipients=recipients, ret="FULL", envid="17")
    load, other = loads_of(Claim((message,)), 50)
    assert load.transaction.dsn == Dsn("FULL", "17", (asked,))
    assert other.transaction.dsn == Dsn("FULL", "17")
    assert all(load.transaction.dsn is None for load in loads_of(Claim((message,)), 50, PATHS))
    assert all(load.transaction.dsn is None for load in loads_of(Claim((MESSAGE,)), 50))


def test_loads_hold_recipients_who_are_to_be_reported_of_alike() -> None:
    first, second, third = MESSAGE.recipients
    wishes = (RecipientDsn("SF", "rfc822;a@x.test"), RecipientDsn("N"), RecipientDsn("SF"))
    recipients = tuple(
        msgspec.structs.replace(item, dsn=wish)
        for item, wish in zip((first, second, third), wishes, strict=True)
    )
    message = msgspec.structs.replace(MESSAGE, recipients=recipients)
    loads = list(loads_of(Claim((message,)), 50))
    assert [load.transaction.forward_paths for load in loads] == [
        ("r1@x.test", "r3@x.test"),
        ("r2@x.test",),
    ]
    assert [load.transaction.dsn for load in loads] == [
        Dsn(recipients=(wishes[0], wishes[2])),
        Dsn(recipients=(wishes[1],)),
    ]
    # What is sent again asks for its own recipients.
    assert loads[0].of((recipients[2],)).transaction.dsn == Dsn(recipients=(wishes[2],))
