"""The sessions of a process by lane: when to open another, when to wait, when to stop."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

import structlog

from relay.model.errors import StoreError
from relay.settings.schema import Worker
from relay.store.claims import Claim
from relay.store.limits import Taken

#: Backlog that justifies one more session (KumoMTA ramps by queue length too).
BACKLOG_PER_SESSION = 10
#: After a refused `take` no further session is tried for so long; a release wakes us earlier.
REFUSED_PAUSE_S = 1.0
#: A session whose peer has not moved anything for this long counts as slow.
SLOW_S = 5.0
SLOW_KNOWN_S = 0.1
#: One that is opened gets so long at least, when others that may be silent wait for its place.
OPENS_S = 1.0
_POLL_S = 0.5
#: New mail is left to a busy session of its lane so long: most claim again within that, and opening
#: another costs as much as sending five messages.
SOON_S = 0.03
#: The last share of all places is kept for lanes that have no session yet.
FIRST_SESSIONS = 1 / 4
#: Beside the half of all places that silent peers may have, so many are for finding out who speaks.
TRIALS = 1 / 16
#: How long room is waited for.
MAKE_ROOM_S = 2.0

_log = structlog.get_logger("relay.engine")


class Leaver(Protocol):
    """A session that may have to end before its time."""

    def is_dispensable(self) -> bool:
        """Whether mail is being sent and could be given back: its dot was not sent."""
        ...

    def is_past_dot(self) -> bool:
        """Whether the peer has the final dot: its reply is worth waiting for."""
        ...


class _Lane:
    """Sessions of one lane in this process."""

    def __init__(self) -> None:
        self.sessions = 0
        self.refused_until = 0.0
        self.is_asked = False
        self.has_claimed = False
        self.claimed_at: dict[asyncio.Task[Any], float] = {}
        self._idle: list[asyncio.Future[None]] = []

    async def be_offered_work(self) -> None:
        """Wait, idle, until this session is the one to look for work."""
        offered = asyncio.get_running_loop().create_future()
        self._idle.append(offered)
        try:
            await offered
        finally:
            if offered in self._idle:
                self._idle.remove(offered)

    def wake_one(self) -> bool:
        """Let the session that became idle last look for work; False where none is idle."""
        while self._idle:
            offered = self._idle.pop()
            if not offered.done():
                offered.set_result(None)
                return True
        return False


class Lanes:
    """Owns the session tasks; `serve` is what one of them does."""

    def __init__(self, worker: Worker, serve: Callable[[str], Coroutine[Any, Any, Taken]]) -> None:
        self._worker = worker
        self._serve = serve
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Both in the order of their beginning, the longest first.
        self._idle: dict[asyncio.Task[Any], tuple[_Lane, asyncio.Timeout]] = {}
        self._leaving: set[asyncio.Task[Any]] = set()
        self._opening: dict[asyncio.Task[Any], tuple[float, asyncio.Timeout]] = {}
        self._unproven: set[asyncio.Task[Any]] = set()
        self._leavers: dict[asyncio.Task[Any], Leaver] = {}
        self._giving_way: set[asyncio.Task[Any]] = set()
        self._retreating: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._slow_until, self._slow_count = 0.0, 0
        self.is_draining = False

    @property
    def sessions(self) -> int:
        """Sessions of this process."""
        return len(self._tasks)

    def sessions_of(self, lane: str) -> int:
        """Sessions of this process that serve a lane."""
        state = self._lanes.get(lane)
        return state.sessions if state is not None else 0

    @property
    def room(self) -> int:
        """Sessions that may still be opened."""
        return 0 if self.is_draining else min(self._free, max(self._trials, 0))

    @property
    def places(self) -> int:
        """Lanes that may be taken up, idle sessions making room for them where there is none."""
        return 0 if self.is_draining else self.room + len(self._idle)

    @property
    def _free(self) -> int:
        return self._worker.max_sessions - len(self._tasks)

    @property
    def _trials(self) -> int:
        """Sessions that may still be opened to find out whether the peer speaks.

        Peers that are silent, or have not spoken yet, get half of all places: the others stay with
        those that take mail. A few may be tried beyond, however many are slow: some of those cannot
        be ended, for their dot was sent.
        """
        half = math.ceil(self._worker.max_sessions / 2)
        return self._turning + max(half - self._slow(), 0) - len(self._unproven)

    @property
    def _turning(self) -> int:
        """Places in which silent peers give way to others that may be silent."""
        return max(int(self._worker.max_sessions * TRIALS), 1)

    def _slow(self) -> int:
        """How many peers became slow; looked up often, so it is counted now and then."""
        now = time.monotonic()
        if len(self._tasks) - len(self._idle) <= self._worker.max_sessions // 2:
            return 0  # not so many that it mattered
        if now >= self._slow_until:
            self._slow_until = now + SLOW_KNOWN_S
            self._slow_count = sum(task not in self._unproven for _, task in self._slow_ones())
        return self._slow_count

    def _slow_ones(self) -> list[tuple[float, asyncio.Task[Any]]]:
        """Sessions whose peer is slow, each with the time of its last claim."""
        before = time.monotonic() - SLOW_S
        return [
            (at, task)
            for lane in self._lanes.values()
            for task, at in lane.claimed_at.items()
            if at < before and task not in self._idle
        ]

    async def make_room(self) -> bool:
        """Lanes wait: whether there is a place for one, or comes to be within a while.

        Where all are taken, silent peers beyond their half lose theirs.
        """
        end = time.monotonic() + MAKE_ROOM_S
        while self.places <= 0 and not self.is_draining and time.monotonic() < end:
            self._moved.clear()
            self._end_dispensable()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), _POLL_S)
        return self.places > 0

    def give_way(self, lanes: int) -> None:
        """End sessions for so many lanes that found no room.

        Where silent peers have more than their share of places, theirs are taken. Then idle ones
        end, the longest idle first; before them those whose lane has another one.
        """
        is_beyond = self._trials <= 0 or self._slow() > self._worker.max_sessions // 2
        ending = self._end_dispensable() if is_beyond else 0
        if self._trials <= 0:
            return
        now = asyncio.get_running_loop().time()
        for task in self._dispensable_idle(lanes - ending - len(self._leaving)):
            self._leaving.add(task)
            _, patience = self._idle.pop(task)
            if not patience.expired():
                patience.reschedule(now)

    def _dispensable_idle(self, count: int) -> list[asyncio.Task[Any]]:
        if count <= 0:
            return []
        spare: list[asyncio.Task[Any]] = []
        only: list[asyncio.Task[Any]] = []
        left = {state: state.sessions for state, _ in self._idle.values()}
        for task, (state, _) in self._idle.items():
            (spare if left[state] > 1 else only).append(task)
            left[state] -= 1
        return [*spare, *only][:count]

    def _end_dispensable(self) -> int:
        """End sessions of silent peers beyond their half; how many with mail in hand are ending.

        Those that have been opening for long go first, the longest of all; then of those with mail
        in hand, unless its dot was sent, the latest.
        """
        before, now = time.monotonic() - OPENS_S, asyncio.get_running_loop().time()
        beyond = self._turning - self._trials
        for began, patience in self._opening.values():
            if beyond <= 0 or began >= before:
                break
            if patience.when() is None:
                patience.reschedule(now)
            beyond -= 1
        slow = [task for _, task in sorted(self._slow_ones(), key=lambda one: -one[0])]
        for task in slow[: max(0, len(slow) - self._worker.max_sessions // 2)]:
            leaver = self._leavers.get(task)
            if leaver and leaver.is_dispensable() and task not in self._giving_way:
                self._giving_way.add(task)
                task.cancel()
        return len(self._giving_way)

    def may_leave(self, leaver: Leaver) -> None:
        """The running session tells by this whether it may be cancelled now."""
        task = asyncio.current_task()
        assert task is not None
        self._leavers[task] = leaver

    def retreat(self) -> int:
        """End every session that does not wait for the reply to a dot; how many."""
        ending = [
            task
            for task in self._tasks - self._retreating
            if not (task in self._leavers and self._leavers[task].is_past_dot())
        ]
        for task in ending:
            self._retreating.add(task)
            task.add_done_callback(self._retreating.discard)
            task.cancel()
        return len(ending)

    def gives_way(self) -> bool:
        """Whether the running session was cancelled because others need its place."""
        return asyncio.current_task() in self._giving_way

    @contextlib.asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """While a session opens; TimeoutError when others need the place of a silent peer."""
        task = asyncio.current_task()
        assert task is not None
        async with asyncio.timeout(None) as patience:
            self._opening[task] = (time.monotonic(), patience)
            try:
                yield
            finally:
                del self._opening[task]

    def offer(self, lane: str) -> bool:
        """A lane wants a session; False where there is no room for one."""
        state = self._lanes.get(lane)
        if state is not None and state.wake_one():
            return True
        if state is not None and state.sessions > 0 and state.refused_until > time.monotonic():
            return True
        if self.room <= 0:
            return state is not None and state.sessions > 0
        if state is None or state.sessions == 0:
            self._open(lane)
        elif not state.is_asked:
            state.is_asked = True
            asyncio.get_running_loop().call_later(SOON_S, self._insist, lane, state)
        return True

    def _insist(self, lane: str, state: _Lane) -> None:
        """Open another session for mail that none has claimed meanwhile."""
        if not (state.is_asked and state.has_claimed and self._lanes.get(lane) is state):
            return
        if self._has_room_for_another():
            state.is_asked = False
            self._open(lane)

    def _open(self, lane: str) -> None:
        state = self._lanes.setdefault(lane, _Lane())
        state.sessions += 1
        task = asyncio.create_task(self._run(lane, state), name=f"session:{lane}")
        self._tasks.add(task)
        if not state.has_claimed:
            self._unproven.add(task)
        state.claimed_at[task] = time.monotonic()
        task.add_done_callback(self._tasks.discard)

    async def _run(self, lane: str, state: _Lane) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            taken = await self._serve(lane)
            if taken.word == "no":
                state.refused_until = time.monotonic() + REFUSED_PAUSE_S
        except StoreError as error:
            _log.warning("session.store_unavailable", lane=lane, detail=str(error))
        except Exception:
            _log.exception("session.crashed", lane=lane)
        finally:
            self._moved.set()
            self._unproven.discard(task)
            state.claimed_at.pop(task, None)
            self._leavers.pop(task, None)
            self._giving_way.discard(task)
            self._leaving.discard(task)
            state.sessions -= 1
            if state.sessions == 0:
                self._lanes.pop(lane, None)

    def noticed(self, lane: str, claim: Claim) -> None:
        """A claim of a session: ramp up while the backlog justifies it."""
        state = self._lanes[lane]
        state.is_asked, state.has_claimed = False, True
        task = asyncio.current_task()
        if task is not None and task in state.claimed_at:
            state.claimed_at[task] = time.monotonic()
            if task in self._unproven:
                self._unproven.remove(task)
                self._moved.set()
        # What was claimed goes by this session, the recipients of one message in one transaction.
        wanted = math.ceil((claim.backlog + len(claim.messages)) / BACKLOG_PER_SESSION)
        if wanted > 1 and state.wake_one():
            return
        if state.sessions >= wanted or time.monotonic() <= state.refused_until:
            return
        if self._has_room_for_another():
            self._open(lane)

    def _has_room_for_another(self) -> bool:
        """Whether a lane that has a session may get one more."""
        return self._free > FIRST_SESSIONS * self._worker.max_sessions and not self.is_draining

    def may_open(self, lane: str) -> None:
        """What refused the lane's last session may let the next one pass."""
        if (state := self._lanes.get(lane)) is not None:
            state.refused_until = 0.0

    async def await_work(self, lane: str, claim: Claim) -> bool:
        """Keep the session warm for a while; whether to claim again."""
        if claim.backlog > 0:
            return True
        if claim.wait_s > 0:
            await asyncio.sleep(min(claim.wait_s, _POLL_S))
            return not self.is_draining
        state, task = self._lanes[lane], asyncio.current_task()
        assert task is not None
        if state.is_asked:
            return not self.is_draining
        try:
            async with asyncio.timeout(self._worker.idle_session) as patience:
                self._idle[task] = (state, patience)
                self._moved.set()
                await state.be_offered_work()
        except TimeoutError:
            return False
        finally:
            self._idle.pop(task, None)
        return not self.is_draining

    async def drain(self, *, within_s: float) -> None:
        """Let sessions finish the transaction they are in; cancel what is left after a while.

        A session that is only being opened has nothing to finish, however silent its peer is.
        """
        self.is_draining = True
        for task in list(self._opening):
            task.cancel()
        for state in self._lanes.values():
            while state.wake_one():
                pass
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
