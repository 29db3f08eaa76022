"""Who is connected to which host, how fast mail arrives there, and session numbers."""

import itertools
import time

import msgspec


class HostUse(msgspec.Struct):
    """The use of one host so far; `peak` is the largest number of connections at a time."""

    sessions: int = 0
    connections: int = 0
    peak: int = 0
    messages: int = 0


class Registry:
    """Counters per host, for limits and for assertions on concurrency."""

    def __init__(self) -> None:
        self.hosts: dict[str, HostUse] = {}
        self._sessions = itertools.count(1)
        self._windows: dict[str, tuple[int, int]] = {}

    def next_session(self) -> int:
        """A new session number, from 1."""
        return next(self._sessions)

    def connected(self, host: str) -> int:
        """Note a connection; how many this host now has."""
        use = self.hosts.setdefault(host, HostUse())
        use.sessions += 1
        use.connections += 1
        use.peak = max(use.peak, use.connections)
        return use.connections

    def disconnected(self, host: str) -> None:
        """Note the end of a connection."""
        self.hosts[host].connections -= 1

    def is_above_rate(self, host: str, messages_per_s: int) -> bool:
        """Count one more message in this second; whether that is above the rate."""
        second = int(time.monotonic())
        start, count = self._windows.get(host, (second, 0))
        count = count + 1 if start == second else 1
        self._windows[host] = (second, count)
        return count > messages_per_s
