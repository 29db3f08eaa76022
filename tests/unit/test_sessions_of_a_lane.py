"""Sessions of a lane: which of them looks for work that is offered, and when another is opened."""

import asyncio

import pytest

from relay.delivery.lanes import BACKLOG_PER_SESSION, Lanes
from relay.settings.schema import Worker
from relay.store.work import Claim, Taken

LANE = "site|default|none|"


class Sessions:
    """Sessions that note when they look for work, and find the claims that a test lays out."""

    def __init__(self, **worker: float) -> None:
        self.lanes = Lanes(Worker(**worker), self.serve)  # type: ignore[arg-type]
        self.looks = 0
        self.claims: list[Claim] = []

    async def serve(self, lane: str) -> Taken:
        while True:
            self.looks += 1
            claim = self.claims.pop(0) if self.claims else Claim()
            self.lanes.noticed(lane, claim)
            if not await self.lanes.await_work(lane, claim):
                return Taken("ok")

    async def open(self, count: int) -> None:
        """So many sessions, all idle."""
        self.claims = [Claim(backlog=BACKLOG_PER_SESSION * count)] * count
        self.lanes.offer(LANE)
        await settled()
        assert self.lanes.sessions == count
        self.looks = 0


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture(params=[3])
async def sessions(request: pytest.FixtureRequest) -> Sessions:
    sessions = Sessions()
    await sessions.open(request.param)
    return sessions


async def test_offer_lets_one_idle_session_look(sessions: Sessions) -> None:
    assert sessions.lanes.offer(LANE)
    await settled()
    assert sessions.looks == 1
    assert sessions.lanes.sessions == 3


async def test_backlog_wakes_idle_sessions_before_others_are_opened(sessions: Sessions) -> None:
    sessions.claims = [Claim(backlog=2 * BACKLOG_PER_SESSION), Claim()]
    sessions.lanes.offer(LANE)
    await settled()
    assert sessions.lanes.sessions == 3
    assert sessions.looks == 3, "one has backlog and wakes another; its next look finds nothing"


async def test_offer_to_busy_sessions_opens_another() -> None:
    sessions = Sessions()
    sessions.claims = [Claim(backlog=1, wait_until=0.0)]
    assert sessions.lanes.offer(LANE)
    assert sessions.lanes.offer(LANE)
    await settled()
    assert sessions.lanes.sessions == 2


async def test_idle_sessions_end_when_the_engine_drains(sessions: Sessions) -> None:
    await sessions.lanes.drain(within_s=10)
    assert sessions.lanes.sessions == 0


async def test_idle_session_ends_by_itself() -> None:
    sessions = Sessions(idle_session=0.01)
    sessions.lanes.offer(LANE)
    async with asyncio.timeout(30):
        while sessions.lanes.sessions:
            await asyncio.sleep(0.01)
