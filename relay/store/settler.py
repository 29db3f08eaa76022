"""Gathers the outcomes of all sessions of a process and commits them in groups.

Outcomes outlive an absent Redis: they stay here and are settled when it is back; sending them
again is harmless (fenced by recipient and attempt). At most `LIMIT` are unsettled; then sessions
wait before the next dot.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import structlog

from relay.model.errors import ScriptMismatch, StoreError, StoreUnavailable
from relay.model.message import Outcome, Submission
from relay.model.state import State
from relay.store.answer import TEXT_CHARACTERS, pack_answer
from relay.store.codec import encode_content, pack_nested
from relay.store.queue import accept_request, rows_of
from relay.store.suppressions import pack_consequence
from relay.store.wire import has_failed
from relay.store.work import Work

LIMIT = 256
#: Outcomes of one moment are committed together; longer waits would only add delay.
GATHER_S = 0.002
RETRY_S = 0.5
#: Redis has answered nothing for so long: what is sent to it may never arrive.
DOUBTFUL_S = 0.1
#: A mark whose answer was lost is made again this soon, and so on.
INSIST_S = 0.05

_LETTER = {
    State.DELIVERED: "D",
    State.FAILED: "F",
    State.EXPIRED: "X",
    State.DEFERRED: "d",
    State.HELD: "h",
    State.READY: "r",
}
#: Outcomes that end a recipient without delivery: what reports tell of.
_ENDS = frozenset("FX")

_log = structlog.get_logger("relay.settler")


def settle_item(outcome: Outcome) -> list[Any]:
    """An outcome as settle.lua takes it."""
    verdict = outcome.verdict
    first, second = (*outcome.events, "", "")[:2]
    reply, remote = verdict.reply, outcome.event.get("remote", {})
    # A recipient that is given back keeps the answer it had, unless there is a new one.
    is_answer = reply is not None or outcome.state is not State.READY
    item = [
        outcome.queue_id,
        outcome.number,
        outcome.attempt,
        _LETTER[outcome.state],
        int(outcome.delay_s * 1000),
        outcome.advance,
        verdict.reason,
        verdict.text[:TEXT_CHARACTERS] if reply is None else "",
        outcome.provider,
        first,
        pack_nested(outcome.event) if first else "",
        f"{verdict.severity}:{verdict.scope}",
        second,
        pack_answer(remote, reply) if is_answer else "",
    ]
    if outcome.consequence is not None:
        item.append(pack_consequence(outcome.consequence))
    return item


class Group(NamedTuple):
    """Outcomes (as `settle_item` makes them) with the reports that tell of them: one commit."""

    items: list[list[Any]]
    reports: list[Submission]


class Settler:
    """`await settle(outcomes)` hands over; `await mark(marks)` goes before a dot."""

    def __init__(self, work: Work, *, on_fenced: Callable[[], None] = lambda: None) -> None:
        """`on_fenced` is called when what was marked turns out to be others' already."""
        self._work = work
        self._on_fenced = on_fenced
        self._groups: deque[Group] = deque()
        self._unsettled = 0
        self._room = asyncio.Event()
        self._room.set()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._marks: list[str] = []
        self._leaving: asyncio.Task[bool] | None = None
        self._insisting: set[asyncio.Task[None]] = set()

    @property
    def unsettled(self) -> int:
        """Outcomes that Redis has not confirmed."""
        return self._unsettled

    def start(self) -> None:
        """Begin committing."""
        self._task = asyncio.create_task(self._run(), name="settler")

    async def stop(self, *, within_s: float) -> bool:
        """Commit what is left; whether all of it was."""
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        tasks = [*self._insisting, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self.unsettled == 0

    async def settle(self, outcomes: Iterable[Outcome], reports: Iterable[Submission] = ()) -> None:
        """Take over outcomes and the reports that are to be queued with them."""
        group = Group([settle_item(outcome) for outcome in outcomes], list(reports))
        if not group.items:
            return
        self._groups.append(group)
        self._unsettled += len(group.items)
        self._idle.clear()
        self._more.set()
        if self._unsettled >= LIMIT:
            self._room.clear()

    async def mark(self, marks: list[str], *, confirmed: bool) -> bool:
        """Record that dots are about to be sent; False where they must not be.

        Returns once the mark has left this process, so that it survives our own death; with
        `confirmed`, or where the way to Redis is in doubt, once Redis has it on disk and these
        recipients are known to be still ours.
        """
        await self._room.wait()
        if not confirmed and self._work.store.wire.silence_s < DOUBTFUL_S:
            self._marks += marks
            if self._leaving is None:
                self._leaving = asyncio.create_task(self._leave(), name="marks")
            return await asyncio.shield(self._leaving)
        request = {"holder": self._work.holder, "marks": marks}
        try:
            return bool(await self._work.store.scripts.call("mark", request) == len(marks))
        except StoreError:
            return False

    async def _leave(self) -> bool:
        """The marks of one turn of the loop leave together."""
        marks, self._marks, self._leaving = self._marks, [], None
        request = {"holder": self._work.holder, "marks": marks}
        try:
            reply = await self._work.store.scripts.post("mark", request)
        except StoreError:
            return False
        reply.add_done_callback(lambda answered: self._see_to_marks(request, answered))
        return True

    def _see_to_marks(self, request: dict[str, Any], answered: "asyncio.Future[Any]") -> None:
        """A mark that Redis lost when it died, or refused, is made again, in case we die next."""
        if answered.cancelled():
            return
        if has_failed(answered):
            task = asyncio.create_task(self._insist(request), name="mark")
            self._insisting.add(task)
            task.add_done_callback(self._insisting.discard)
        elif answered.result() < len(request["marks"]) and request["holder"] == self._work.holder:
            self._on_fenced()

    async def _insist(self, request: dict[str, Any]) -> None:
        while True:
            try:
                await self._work.store.scripts.call("mark", request)
                return
            except StoreUnavailable:
                await asyncio.sleep(INSIST_S)
            except StoreError:
                return  # another version has the store

    async def _run(self) -> None:
        while True:
            await self._more.wait()
            if self._unsettled < LIMIT:
                await asyncio.sleep(GATHER_S)
            self._more.clear()
            batch = self._next_batch()
            try:
                await self._commit(batch)
            except BaseException as error:
                self._groups.extendleft(reversed(batch))
                if not isinstance(error, Exception):
                    raise
                # Out of memory, say: what was sent must be recorded, in a moment if not now.
                _log.exception("settler.failed")
                await asyncio.sleep(RETRY_S)
                self._more.set()
                continue
            self._unsettled -= sum(len(group.items) for group in batch)
            if self._groups:
                self._more.set()
            else:
                self._idle.set()
            if self._unsettled < LIMIT:
                self._room.set()

    def _next_batch(self) -> list[Group]:
        batch: list[Group] = []
        count = 0
        while self._groups and (not batch or count + len(self._groups[0].items) <= LIMIT):
            batch.append(self._groups.popleft())
            count += len(batch[-1].items)
        return batch

    async def _commit(self, batch: list[Group]) -> None:
        """Settle groups, however long Redis is away or of another mind."""
        request, contents = settle_request(self._work.holder, batch)
        waited = 0.0
        while True:
            try:
                answers = await self._work.store.scripts.call("settle", request, *contents)
            except (StoreUnavailable, ScriptMismatch) as error:
                if waited % 30 == 0:
                    _log.warning("store.unavailable", detail=str(error), unsettled=self.unsettled)
                await asyncio.sleep(RETRY_S)
                waited += RETRY_S
                continue
            except StoreError as error:
                # One bad item must not block the others: settle them one by one.
                parts = _parts(batch)
                for part in parts:
                    await self._commit([part])
                if parts:
                    return
                _log.error("store.settle_rejected", item=repr(batch)[:500], error=str(error))
                answers = [b"ok"]
            for queue_id, number, attempt, *_ in request["items"]:
                self._work.holdings.settled(f"{queue_id}.{number}", attempt)
            _complain(request["items"], answers)
            return


def _parts(batch: list[Group]) -> list[Group]:
    """The groups one by one; the items of a single group one by one; nothing of a single item."""
    if len(batch) > 1:
        return batch
    items, reports = batch[0]
    if len(items) == 1:
        return []
    # Its reports go with the first item that they may tell of.
    teller = next((n for n, item in enumerate(items) if item[3] in _ENDS), 0)
    return [Group([item], reports if n == teller else []) for n, item in enumerate(items)]


def settle_request(holder: str, batch: list[Group]) -> tuple[dict[str, Any], list[bytes]]:
    """What settle.lua takes: items, and reports with the positions of the items they tell of."""
    items: list[list[Any]] = []
    reports: list[dict[str, object]] = []
    contents: list[bytes] = []
    for group in batch:
        positions = range(len(items) + 1, len(items) + 1 + len(group.items))
        ended = [
            position
            for position, item in zip(positions, group.items, strict=True)
            if item[3] in _ENDS
        ]
        items += group.items
        for report in group.reports:
            request = accept_request(report, rows_of(report), 1)
            reports.append({**request, "about": ended or list(positions)})
            contents.append(encode_content(report.content))
    return {"holder": holder, "marks": [], "items": items, "reports": reports}, contents


def _complain(batch: list[list[Any]], answers: list[bytes]) -> None:
    for item, answer in zip(batch, answers, strict=True):
        if answer not in (b"ok", b"again"):
            _log.info(
                "recipient.outcome_fenced",
                recipient_id=f"{item[0]}.{item[1]}",
                attempt=item[2],
                answer=answer.decode(),
            )
