"""F4: Redis is away under traffic, once gone and once silent, with deliveries at their final dot.

Doors say that they cannot take mail for now, and never that they did; what is at its dot comes to
its end, and its outcome is recorded when Redis is back.
"""

import asyncio
import time
from pathlib import Path

import msgspec

from tests.chaos.clients import clients
from tests.chaos.figures import submit
from tests.support.ledger import balance, until_all_ended
from tests.support.system import UNSHAPED, System, running_system
from tests.system.test_redis_restarted import ABSENCE

#: What was said before is read until then.
MARGIN_S = 1.0
NEWS = (
    *ABSENCE,
    "lease.",
    "message.refused",
    "http.unavailable",
    "store.",
    "Redis BRPOP got no reply",
)


class Size(msgspec.Struct, frozen=True):
    """How long Redis is away; transactions at their dot, which is answered after `dot_s`."""

    away_s: float
    at_dot: int
    dot_s: int


SHORT = Size(away_s=2.5, at_dot=20, dot_s=2)
LONG = Size(away_s=60.0, at_dot=200, dot_s=5)


async def run(folder: Path, size: Size) -> str:
    """Both ways to be away; the figures."""
    told = []
    for silent in (False, True):
        place = folder / ("silent" if silent else "gone")
        place.mkdir()
        told.append(await _away(place, size, silent=silent))
    return "\n".join(told)


async def _away(folder: Path, size: Size, *, silent: bool) -> str:
    async with running_system(folder, workers=1, RELAY_FILES_SHAPING=UNSHAPED) as system:
        system.expects(*NEWS)
        smtp = await asyncio.to_thread(system.start_smtpd)
        http = await asyncio.to_thread(system.start_http)
        await system.until_leased()
        async with clients(smtp, http) as senders:
            at_dot = await _until_at_dot(system, size)
            left = time.monotonic()
            if silent:
                system.redis.pause()
            else:
                system.redis.kill()
            await asyncio.sleep(size.away_s)
            back = time.monotonic()
            if silent:
                system.redis.resume()
            else:
                await asyncio.to_thread(system.redis.start)
            again_s = await senders.until_taken(back, within_s=60)
        await until_all_ended(system, within_s=90)
        ledger = await balance(system)
        meanwhile = senders.between(left + MARGIN_S, back)
        assert all(answer.is_for_now for answer in meanwhile), meanwhile
        # Nobody waits for who is gone; who is silent may yet speak.
        assert silent or {answer.door for answer in meanwhile} == {"smtp", "http"}
        assert {tuple(ends) for ends in ledger.ends.values()} == {("delivered",)}
        assert ledger.accepted == len(ledger.ends)
        assert set(senders.taken) | at_dot <= {path for _, path in ledger.copies}
        hidden = ledger.doubled - ledger.uncertain - ledger.duplicates
        assert not hidden, sorted(hidden)[:10]
        twice = {path for _, path in ledger.doubled} & at_dot
        assert not twice, sorted(twice)[:10]
        assert not system.complaints(), system.complaints()[:3]
    return (
        f"F4   Redis {'silent' if silent else 'gone'} for {size.away_s:g} s: {len(at_dot)} at "
        f"their dot delivered once each, {len(ledger.uncertain)} uncertain, "
        f"{len(ledger.doubled)} twice; "
        f"{len(meanwhile)} times told to come again, {len(senders.taken):,} taken, "
        f"0 lost; both doors took mail {again_s:.1f} s after it was back"
    )


async def _until_at_dot(system: System, size: Size) -> set[str]:
    addresses = [f"r{n}@slowdot{size.dot_s}s.far{n}.test" for n in range(size.at_dot)]
    await submit(system, addresses)
    await system.until_marked(size.at_dot)
    return set(addresses)
