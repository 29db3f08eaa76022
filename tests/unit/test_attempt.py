"""One attempt's own decisions."""

import time

import msgspec

from relay.delivery.load import without_expired
from relay.model.message import ClaimedMessage
from relay.store.claims import Claim

NOW = time.time()
MESSAGE = ClaimedMessage(
    queue_id="0" * 20,
    reverse_path="",
    recipients=(),
    content=b"",
    size=0,
    created=NOW - 60,
    expires=NOW + 86_400,
    message_id="<1@x.test>",
    mail_class="transactional",
    tenant="default",
    campaign="",
)


def test_claimed_mail_past_its_deadline_is_not_sent() -> None:
    """The ticker leaves claimed mail alone; what ran out just before the claim is caught here."""
    late = msgspec.structs.replace(MESSAGE, expires=NOW - 1)
    live, expired = without_expired(Claim((MESSAGE, late)), NOW)
    assert (live.messages, expired.messages) == ((MESSAGE,), (late,))
