"""F7: a receiver that takes a few connections and answers 421 beyond.

Postfix, measured so (2,000 recipients, its limit 20, the server's 5): 16.5 % of the recipients
deferred. Here nobody is: what is refused is a connection without mail, and the window learns.
"""

from pathlib import Path
from statistics import median

import msgspec

from relay.policy.window import INITIAL
from tests.chaos.figures import Samples, submit
from tests.support.ledger import balance, until_all_ended
from tests.support.system import UNSHAPED, System, running_system

#: Postfix's share of deferred recipients; here of refused connections to recipients.
MOST_REFUSED = 0.165
#: Connections end after ten messages, so that the window is asked all the time.
SHAPING = UNSHAPED.replace("mails_per_connection = 1000", "mails_per_connection = 10")


class Size(msgspec.Struct, frozen=True):
    """Messages, connections that the receiver takes, how long it thinks about each message."""

    messages: int
    limit: int
    dot_ms: int
    workers: int = 2


SHORT = Size(messages=300, limit=5, dot_ms=50)
LONG = Size(messages=2_000, limit=5, dot_ms=100)


async def run(folder: Path, size: Size) -> str:
    """Drain one queue through the limiter; the figures."""
    domain = f"limit{size.limit}.onemx.slowdot{size.dot_ms}ms.test"
    host = f"mx1.{domain}"
    async with running_system(folder, workers=0, RELAY_FILES_SHAPING=SHAPING) as system:
        await submit(system, [f"r{n}@{domain}" for n in range(size.messages)])
        for _ in range(size.workers):
            system.start_worker()
        await system.until_host(host, sessions=size.limit)
        async with (
            Samples(lambda: _connections(system, host)) as taken,
            Samples(lambda: _window(system)) as windows,
        ):
            await until_all_ended(system, within_s=120)

        ledger = await balance(system)
        assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
        assert len(ledger.ends) == size.messages and not ledger.doubled
        assert await system.events("recipient.deferred", "site.suspended") == []
        assert not system.complaints()
        refused = sum(line["event"] == "session.failed" for line in system.log_lines())
        assert refused <= MOST_REFUSED * size.messages
        window = median(windows.values)
        assert abs(window - size.limit) <= 1, windows.values
        used = sum(min(value, size.limit) for value in taken.values) / len(taken.values)
        assert used >= size.limit - 1
        return (
            f"F7   {size.messages:,} recipients, a receiver of {size.limit} connections (421): "
            f"none deferred, window {window:.0f}, {used:.1f} connections in use, {refused} refused"
        )


def _connections(system: System, host: str) -> float:
    return float(system.sink.hosts()[host]["use"]["connections"])


def _window(system: System) -> float:
    """The only feedback window that there is."""
    with system.redis.client() as client:
        keys = list(client.scan_iter("*fb:*"))
        return float(client.hget(keys[0], "window")) if keys else INITIAL
