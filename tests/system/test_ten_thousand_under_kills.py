"""10,000 messages while workers, Redis and the listener are killed -9: none is lost.

Each copy too many that a receiver got is among those that were reported: an operator who reads
the events knows whose mail may have come twice.
"""

import asyncio
import smtplib
from collections.abc import Callable, Iterable

from tests.support.ledger import balance, submit_all, until_all_ended
from tests.support.system import UNSHAPED, System
from tests.system.conftest import Start
from tests.system.test_redis_restarted import ABSENCE

ROUNDS = 6
BY_API = 9_000
BY_SMTP = 1_000
DOMAINS = 200
#: A lease, and the time for which nothing is taken back after a restart of Redis.
GRACE_S = 15 + 30


def address(number: int) -> str:
    return f"reader{number}@slowdot20ms.domain{number % DOMAINS}.test"


async def test_kills_of_every_process_lose_nothing_and_hide_no_duplicate(
    start: Start, tell: Callable[[object], None]
) -> None:
    system = await start(workers=2, RELAY_FILES_SHAPING=UNSHAPED)
    system.expects(*ABSENCE, "lease.lost", "message.refused")
    port = await asyncio.to_thread(system.start_smtpd)
    drafts = (system.draft([address(number)]) for number in range(BY_API))
    submissions = [system.submitter.prepare(draft).submission for draft in drafts]
    by_smtp = [address(number) for number in range(BY_API, BY_API + BY_SMTP)]
    listener = asyncio.create_task(asyncio.to_thread(submit_by_smtp, port, by_smtp))
    for number in range(ROUNDS):
        kill = kill_at_once if number % 3 == 2 else kill_in_turn
        submitting = asyncio.create_task(submit_all(system, submissions[number::ROUNDS]))
        await asyncio.sleep(1)
        await kill(system, port)
        await submitting
    await listener

    await system.until_leased()
    await system.shift_clock(GRACE_S)
    await until_all_ended(system, within_s=90)

    ledger = await balance(system)
    tell(f"{ROUNDS} rounds of kills: {ledger}")
    arrived = {path for _, path in ledger.copies}
    assert arrived == {address(number) for number in range(BY_API + BY_SMTP)}
    assert set(ledger.copies) == set(ledger.ends)
    assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
    assert ledger.accepted == len(ledger.ends)
    assert ledger.doubled <= ledger.uncertain | ledger.duplicates


async def kill_in_turn(system: System, port: int) -> None:
    """A worker, the listener and Redis die one after the other."""
    system.kill_worker(system.workers.pop(0))
    system.start_worker()
    system.kill_door("smtpd")
    await asyncio.to_thread(system.start_smtpd, port)
    await asyncio.sleep(1)
    await asyncio.to_thread(system.redis.restart)


async def kill_at_once(system: System, port: int) -> None:
    """Everything dies together, as when the machine loses its power."""
    system.redis.kill()
    for worker in system.workers:
        system.kill_worker(worker)
    system.kill_door("smtpd")
    await asyncio.to_thread(system.redis.start)
    system.workers = [system.start_worker(), system.start_worker()]
    await asyncio.to_thread(system.start_smtpd, port)
    await asyncio.sleep(1)


def submit_by_smtp(port: int, addresses: Iterable[str]) -> None:
    """As a client that tries each message until it is told 250; a lost reply makes it try again."""
    for address in addresses:
        while not submitted_by_smtp(port, address):
            pass


def submitted_by_smtp(port: int, address: str) -> bool:
    content = f"From: news@example.org\r\nTo: {address}\r\nSubject: hi\r\n\r\nhello\r\n"
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.sendmail("news@example.org", [address], content)
    except (OSError, smtplib.SMTPException):
        return False
    return True
