"""What a host announced that it takes at most (RFC 9422): kept to before it has to refuse."""

from collections import deque

import msgspec
import pytest

from relay.delivery.host_limits import HostLimits
from relay.delivery.load import Load, load_of
from relay.model.message import ClaimedMessage, ClaimedRecipient
from relay.smtp.extensions import NO_EXTENSIONS, Extensions

MESSAGE = ClaimedMessage(
    queue_id="0" * 20,
    reverse_path="",
    recipients=(),
    content=b"",
    size=0,
    created=0.0,
    expires=1e10,
    message_id="<1@x.test>",
    mail_class="transactional",
    tenant="default",
    campaign="",
)


def load(*addresses: str) -> Load:
    return load_of(
        MESSAGE,
        tuple(ClaimedRecipient(n, path, "[hub]", 1, 0, "q") for n, path in enumerate(addresses, 1)),
    )


def limits(**announced: int) -> HostLimits:
    extensions: Extensions = msgspec.structs.replace(NO_EXTENSIONS, **announced)
    return HostLimits(extensions, 100)


def cut(kept: HostLimits, *addresses: str) -> list[tuple[str, ...]]:
    """The transactions that a load becomes, the first of which the host takes."""
    loads = deque([load(*addresses)])
    kept.cut_first(loads)
    return [one.transaction.forward_paths for one in loads]


@pytest.mark.parametrize(
    ("announced", "mails"), [({}, 100), ({"mail_max": 20}, 20), ({"mail_max": 500}, 100)]
)
def test_connection_carries_as_many_messages_as_both_sides_allow(
    announced: dict[str, int], mails: int
) -> None:
    assert limits(**announced).mails == mails


def test_transaction_is_cut_to_the_recipients_that_the_host_takes() -> None:
    assert cut(limits(rcpt_max=2), "a@x.test", "b@x.test", "c@x.test") == [
        ("a@x.test", "b@x.test"),
        ("c@x.test",),
    ]
    assert cut(limits(), "a@x.test", "b@x.test") == [("a@x.test", "b@x.test")]


def test_connection_gets_no_more_domains_than_the_host_takes() -> None:
    kept = limits(rcpt_domain_max=2)
    assert cut(kept, "a@x.test", "b@y.test", "c@z.test", "d@X.test") == [
        ("a@x.test", "b@y.test", "d@X.test"),
        ("c@z.test",),
    ]
    assert kept.takes(load("a@x.test", "b@y.test"))
    assert kept.takes(load("e@x.test"))
    assert not kept.takes(load("c@z.test"))
    # Of what follows on this connection only those of the two domains go; else the next is for it.
    assert cut(kept, "c@z.test", "f@y.test") == [("f@y.test",), ("c@z.test",)]
    assert cut(kept, "c@z.test") == [("c@z.test",)]
