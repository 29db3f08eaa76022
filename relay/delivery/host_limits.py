"""What a host announced that it takes at most (RFC 9422), kept to on one connection.

RCPTMAX bounds a transaction, MAILMAX the transactions and RCPTDOMAINMAX the recipient domains of
a session; our own shaping bounds the transactions too. Hosts that announce nothing, which is most
of them, cost a comparison.
"""

from collections import deque

from relay.delivery.load import Load
from relay.model.message import ClaimedRecipient
from relay.smtp.extensions import Extensions


class HostLimits:
    """The limits of one connection, and what was used of them."""

    def __init__(self, extensions: Extensions, mails: int) -> None:
        """`mails` is how many transactions shaping allows on a connection."""
        #: Transactions that the connection may carry.
        self.mails = min(mails, extensions.mail_max or mails)
        self._recipients = extensions.rcpt_max
        self._domains = extensions.rcpt_domain_max
        self._seen: set[str] = set()

    def takes(self, load: Load) -> bool:
        """Whether all of a load fits behind what this connection has carried; it then counts."""
        if self._domains is None:
            return True
        seen = self._seen.union(map(_domain_of, load.recipients))
        if len(seen) > self._domains:
            return False
        self._seen = seen
        return True

    def cut_first(self, loads: deque[Load]) -> None:
        """Make the first load no larger than a transaction may be; the rest follows right behind.

        One of which nobody fits any more stays as it is.
        """
        if self._recipients is None and self._domains is None:
            return
        load, seen = loads[0], set(self._seen)
        taken: list[ClaimedRecipient] = []
        rest: list[ClaimedRecipient] = []
        for recipient in load.recipients:
            domain = _domain_of(recipient)
            if self._has_room(len(taken), domain, seen):
                taken.append(recipient)
                seen.add(domain)
            else:
                rest.append(recipient)
        if taken and rest:
            loads[0] = load.of(tuple(rest))
            loads.appendleft(load.of(tuple(taken)))

    def _has_room(self, taken: int, domain: str, seen: set[str]) -> bool:
        if self._recipients is not None and taken >= self._recipients:
            return False
        return self._domains is None or domain in seen or len(seen) < self._domains


def _domain_of(recipient: ClaimedRecipient) -> str:
    return recipient.address.rpartition("@")[2].lower()
