"""Claimed recipients of one message become transactions.

A receiver is given at most its limit of RCPTs, and the recipients of one domain only (Gmail
answers `451 4.3.0 Multiple destination domains per transaction is unsupported`); a smarthost takes
several domains in one transaction, so that a large message is uploaded once.
"""

from collections.abc import Sequence

from relay.model.message import ClaimedRecipient


def split_recipients(
    recipients: Sequence[ClaimedRecipient], *, limit: int, several_domains: bool = False
) -> list[tuple[ClaimedRecipient, ...]]:
    """Transactions of at most `limit` recipients each, in the order claimed; nobody is lost."""
    if limit < 1:
        raise ValueError(f"a transaction needs room for a recipient, not {limit}")
    by_domain: dict[str, list[ClaimedRecipient]] = {}
    for recipient in recipients:
        domain = "" if several_domains else recipient.address.rpartition("@")[2].lower()
        by_domain.setdefault(domain, []).append(recipient)
    return [
        tuple(group[start : start + limit])
        for group in by_domain.values()
        for start in range(0, len(group), limit)
    ]
