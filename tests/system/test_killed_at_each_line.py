"""A worker is killed with -9 while its sessions stand at each line around the final dot.

One death shows all lines and both classes; what is left behind then follows the policy of the
class. `LINES` is the table of docs/reliability.md.
"""

import signal
from collections import Counter
from typing import NamedTuple

import pytest

from relay.settings.schema import MailClass, UncertainPolicy
from tests.support import standing_worker as lines
from tests.support.system import WAIT_S, System
from tests.system.conftest import Start

RETRY, HOLD, ASSUME = UncertainPolicy.RETRY, UncertainPolicy.HOLD, UncertainPolicy.ASSUME_DELIVERED
TRANSACTIONAL, BULK = MailClass.TRANSACTIONAL, MailClass.BULK
UNCERTAIN = "recipient.uncertain"
LEASE_S = 15.0
_HEADERS = {TRANSACTIONAL: b"", BULK: b"List-Unsubscribe: <mailto:u@example.org>\r\n"}


class Line(NamedTuple):
    """How many copies the receiver has when the worker dies, and what our side knows then."""

    copies: int
    is_marked: bool = True
    is_settled: bool = False


LINES = {
    # The `sending` mark has not been written.
    lines.BEFORE_MARK: Line(copies=0, is_marked=False),
    # The mark has left the process; the dot has not been written.
    lines.AFTER_MARK: Line(copies=0),
    # The dot was written; the receiver does not answer, and forgets the mail with the connection.
    lines.DOT_WRITTEN: Line(copies=0),
    # The dot was written; the receiver has taken the mail, its answer is under way.
    lines.DOT_TAKEN: Line(copies=1),
    # The 250 has come to this machine, and was not read.
    lines.BEFORE_READING: Line(copies=1),
    # The 250 was read; the settle has not been sent.
    lines.BEFORE_SETTLING: Line(copies=1),
    # The settle was sent; its reply was not heard.
    lines.SETTLE_SENT: Line(copies=1, is_settled=True),
}


class End(NamedTuple):
    """What is shown of a recipient in the end, on both sides."""

    copies: int
    status: str
    reason: str
    attempts: int
    events: Counter[str]


def end_of(line: Line, policy: UncertainPolicy) -> End:
    """What the policy promises for a death at the line."""
    delivered = Counter({"recipient.delivered": 1})
    if line.is_settled:
        return End(line.copies, "delivered", "delivered", 1, delivered)
    if not line.is_marked:
        return End(line.copies + 1, "delivered", "delivered", 2, delivered)
    uncertain = Counter({UNCERTAIN: 1})
    if policy is HOLD:
        events = uncertain + Counter({"recipient.held": 1})
        return End(line.copies, "held", "uncertain", 1, events)
    if policy is ASSUME:
        return End(line.copies, "delivered", "assumed_delivered", 1, uncertain + delivered)
    return End(line.copies + 1, "delivered", "delivered", 2, uncertain + delivered)


async def die_at_each_line(system: System, addresses: dict[str, MailClass]) -> dict[str, str]:
    """Submit; kill the worker once every session stands; the queue-ids by address."""
    system.sink.add_fault(f"{lines.DOT_WRITTEN}.*", "end-of-data", "stall")
    system.sink.add_fault(f"{lines.DOT_TAKEN}.*", "end-of-data", "split", delay="60s")
    worker = system.start_worker(module="tests.support.standing_worker")
    ids = {}
    for address, mail_class in addresses.items():
        ids[address] = (await system.submit([address], headers=_HEADERS[mail_class])).id
    for address in addresses:
        await system.logged(1, event="standing", address=address)
    taken = sum(LINES[lines.line_of(address)].copies for address in addresses)
    system.sink.receipts(at_least=taken, timeout_s=WAIT_S)
    system.kill_worker(worker)
    assert worker.returncode == -signal.SIGKILL
    system.sink.clear_faults()
    system.sink.drop_connections()
    return ids


async def end_on_both_sides(system: System, queue_id: str, address: str) -> End:
    view = (await system.recipients(queue_id))[address]
    events = await system.event_counts(address)
    return End(system.sink.counts().get(address, 0), view.status, view.reason, view.attempt, events)


@pytest.mark.parametrize(
    ("transactional", "bulk"), [(RETRY, HOLD), (HOLD, ASSUME), (ASSUME, RETRY)]
)
async def test_what_a_death_at_each_line_leaves_follows_the_policy_of_its_class(
    start: Start, transactional: UncertainPolicy, bulk: UncertainPolicy
) -> None:
    policies = {TRANSACTIONAL: transactional, BULK: bulk}
    system = await start(
        workers=0,
        RELAY_WORKER_UNCERTAIN_TRANSACTIONAL=transactional.value,
        RELAY_WORKER_UNCERTAIN_BULK=bulk.value,
    )
    addresses = {f"ann@{line}.{name}.test": name for line in LINES for name in policies}
    ids = await die_at_each_line(system, addresses)
    at_death = system.sink.counts()
    assert at_death == {address: 1 for address in addresses if LINES[lines.line_of(address)].copies}

    system.start_worker()
    await system.shift_clock(LEASE_S + 1)
    promised = {
        address: end_of(LINES[lines.line_of(address)], policies[name])
        for address, name in addresses.items()
    }
    for address, end in promised.items():
        await system.until(ids[address], {address: end.status})
    shown = {
        address: await end_on_both_sides(system, ids[address], address) for address in addresses
    }
    assert shown == promised
    told = {event.data["address"]: event.data["policy"] for event in await system.events(UNCERTAIN)}
    assert told == {
        address: policies[name].value
        for address, name in addresses.items()
        if UNCERTAIN in promised[address].events
    }
