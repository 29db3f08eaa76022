"""Hosts with something broken, remembered for a while: each trial costs a connection.

TLS (RFC 7435), of which only what may go in clear anyway asks here, and BDAT (RFC 3030). One
memory a process for each: each process finds out for itself.
"""

import time
from collections import OrderedDict

from relay.delivery.values import Endpoint

#: Hosts remembered at most; the oldest leaves first.
HOSTS_KEPT = 10_000


class BrokenHosts:
    """Remembers for `kept_s` seconds, 0: never, what failed with an address."""

    def __init__(self, kept_s: float) -> None:
        self._kept_s = kept_s
        self._hosts: OrderedDict[tuple[str, int], tuple[float, str]] = OrderedDict()

    def remember(self, endpoint: Endpoint, why: str) -> None:
        """It failed with this host, and why."""
        key = (endpoint.address, endpoint.port)
        self._hosts.pop(key, None)
        if len(self._hosts) >= HOSTS_KEPT:
            self._hosts.popitem(last=False)
        if self._kept_s > 0:
            self._hosts[key] = (time.monotonic() + self._kept_s, why)

    def why(self, endpoint: Endpoint) -> str:
        """Why it is not tried with this host at present; empty: it is to be tried."""
        if not self._hosts:
            return ""
        ends, why = self._hosts.get((endpoint.address, endpoint.port), (0.0, ""))
        return why if ends > time.monotonic() else ""
