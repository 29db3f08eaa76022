"""Sessions of a lane: which of them looks for work that is offered, and when another is opened."""

import asyncio

import pytest

from relay.delivery import lanes
from relay.delivery.lanes import BACKLOG_PER_SESSION, Lanes
from relay.settings.schema import Worker
from relay.store.claims import Claim
from relay.store.limits import Taken

LANE = "site|default|none|"


class Sessions:
    """Sessions that note when they look for work, and find the claims that a test lays out."""

    def __init__(self, **worker: float) -> None:
        self.lanes = Lanes(Worker(**worker), self.serve)  # type: ignore[arg-type]
        self.looks = 0
        self.claims: list[Claim] = []
        #: Sessions with mail in hand wait for that.
        self.goes_on = asyncio.Event()
        #: Sessions of tarpits wait for that while they open.
        self.speaks = asyncio.Event()

    async def serve_once(self, lane: str) -> Taken:
        """Claim once, send that when it may go on, and look whether there is more."""
        self.lanes.noticed(lane, Claim(messages=(object(),)))  # type: ignore[arg-type]
        await self.goes_on.wait()
        self.looks += await self.lanes.await_work(lane, Claim())
        return Taken("ok")

    async def serve(self, lane: str) -> Taken:
        if lane.startswith("tarpit"):
            await self.speaks.wait()
        while True:
            self.looks += 1
            claim = self.claims.pop(0) if self.claims else Claim()
            self.lanes.noticed(lane, claim)
            if claim.messages:
                await self.goes_on.wait()
            elif not await self.lanes.await_work(lane, claim):
                return Taken("ok")

    async def open(self, count: int) -> None:
        """So many sessions, all idle."""
        self.claims = [Claim(backlog=BACKLOG_PER_SESSION * count)] * count
        self.lanes.offer(LANE)
        await settled()
        assert self.lanes.sessions_of(LANE) == count
        self.looks = 0


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture(params=[3])
async def sessions(request: pytest.FixtureRequest) -> Sessions:
    sessions = Sessions()
    await sessions.open(request.param)
    return sessions


@pytest.fixture
async def busy() -> Sessions:
    """One session, with mail in hand."""
    sessions = Sessions()
    sessions.claims = [Claim(messages=(object(),))]  # type: ignore[arg-type]
    sessions.lanes.offer(LANE)
    await settled()
    assert sessions.looks == 1
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


async def test_offer_to_a_busy_session_is_left_to_it_when_it_claims_soon(
    busy: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SOON_S", 0.05)
    assert busy.lanes.offer(LANE)
    busy.goes_on.set()
    await asyncio.sleep(0.1)
    assert (busy.lanes.sessions, busy.looks) == (1, 2)


async def test_offer_to_a_session_that_stays_busy_opens_another(
    busy: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SOON_S", 0.01)
    assert busy.lanes.offer(LANE)
    assert busy.lanes.offer(LANE)
    async with asyncio.timeout(30):
        while busy.lanes.sessions < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert busy.lanes.sessions == 2, "one more for both offers"
    busy.goes_on.set()
    await settled()


@pytest.mark.parametrize("offers", [0, 1, 2])
async def test_session_claims_again_at_once_only_if_mail_was_offered_while_it_was_busy(
    offers: int,
) -> None:
    sessions = Sessions()
    sessions.lanes = Lanes(Worker(), sessions.serve_once)
    sessions.lanes.offer(LANE)
    await settled()
    for _ in range(offers):
        assert sessions.lanes.offer(LANE)
    sessions.goes_on.set()
    await settled()
    assert sessions.looks == (1 if offers else 0)
    assert sessions.lanes.sessions == (0 if offers else 1), "without an offer it is idle"


async def test_idle_sessions_end_for_lanes_that_found_no_room() -> None:
    sessions = Sessions(max_sessions=3)
    full = sessions.lanes
    for lane in "abc":
        assert full.offer(f"{lane}|default|none|")
    await settled()
    assert (full.room, full.places) == (0, 3)
    assert not full.offer("other|default|none|")
    full.give_way(1)
    full.give_way(1)  # asked again before that one has gone
    assert full.places == 2
    async with asyncio.timeout(30):
        while full.room < 1:
            await asyncio.sleep(0.01)
    assert (full.sessions, full.places) == (2, 3)
    assert full.offer("other|default|none|")


async def test_idle_session_ends_for_others_where_its_lane_has_another() -> None:
    sessions = Sessions(max_sessions=8)
    full = sessions.lanes
    for lane in ("a", "b"):
        assert full.offer(f"{lane}|default|none|")
    await settled()
    await sessions.open(4)
    full.give_way(3)
    async with asyncio.timeout(30):
        while full.sessions > 3:
            await asyncio.sleep(0.01)
    assert [full.sessions_of(f"{name}|default|none|") for name in ("a", "b", "site")] == [1, 1, 1]


async def test_last_places_are_kept_for_lanes_that_have_no_session() -> None:
    sessions = Sessions(max_sessions=8)
    sessions.claims = [Claim(backlog=BACKLOG_PER_SESSION * 9)] * 9
    sessions.lanes.offer(LANE)
    await settled()
    assert sessions.lanes.sessions == 6
    assert sessions.lanes.offer("other|default|none|")
    assert sessions.lanes.sessions == 7


async def test_silent_peers_leave_the_places_of_idle_sessions_alone() -> None:
    sessions = Sessions(max_sessions=32)
    full = sessions.lanes
    for number in range(14):
        assert full.offer(f"live{number}|default|none|")
    await settled()
    taken = [full.offer(f"tarpit{number}|default|none|") for number in range(32)]
    assert sum(taken) == 18, "half of all places and two more"
    full.give_way(14)
    await settled()
    assert (full.room, full.places) == (0, 14), "no idle session ended for a tarpit"
    sessions.speaks.set()
    await settled()
    assert full.places == 32, "they spoke: all may make room"


async def test_slow_peers_that_have_the_dot_leave_the_other_places_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They cannot be ended, and who is new may be a quick one."""
    monkeypatch.setattr(lanes, "SLOW_S", -1.0)
    monkeypatch.setattr(lanes, "SLOW_KNOWN_S", 0.0)
    sessions = Sessions(max_sessions=32)
    for number in range(32):
        sessions.claims = [Claim(messages=(object(),))]  # type: ignore[arg-type]
        assert sessions.lanes.offer(f"slow{number}|default|none|"), number
        await settled()
    assert (sessions.lanes.sessions, sessions.looks) == (32, 32)
    sessions.goes_on.set()
    await settled()


async def test_mail_for_a_lane_whose_first_session_only_opens_is_left_to_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "SOON_S", 0.01)
    sessions = Sessions()
    for _ in range(3):
        assert sessions.lanes.offer("tarpit|default|none|")
    await asyncio.sleep(0.05)
    assert sessions.lanes.sessions == 1


async def test_idle_sessions_end_when_the_engine_drains(sessions: Sessions) -> None:
    await sessions.lanes.drain(within_s=10)
    assert sessions.lanes.sessions == 0


async def test_idle_session_ends_by_itself() -> None:
    sessions = Sessions(idle_session=0.01)
    sessions.lanes.offer(LANE)
    async with asyncio.timeout(30):
        while sessions.lanes.sessions:
            await asyncio.sleep(0.01)
