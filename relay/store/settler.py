"""Gathers the outcomes of all sessions of a process and commits them in groups.

Outcomes outlive an absent Redis: they stay here and are settled when it is back; sending them
again is harmless (fenced by recipient and attempt). At most `LIMIT` are unsettled; then sessions
wait before the next dot.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

import structlog

from relay.model.errors import ScriptMismatch, StoreError, StoreUnavailable
from relay.model.message import Outcome, Submission
from relay.model.state import State
from relay.store.codec import encode_content, pack_nested
from relay.store.queue import accept_request, rows_of
from relay.store.work import Work

LIMIT = 256
#: Outcomes of one moment are committed together; longer waits would only add delay.
GATHER_S = 0.002
RETRY_S = 0.5

_LETTER = {
    State.DELIVERED: "D",
    State.FAILED: "F",
    State.EXPIRED: "X",
    State.DEFERRED: "d",
    State.HELD: "h",
    State.READY: "r",
}
#: Kept of a reply in the recipient's record.
_TEXT_CHARACTERS = 400

_log = structlog.get_logger("relay.settler")


def _item(outcome: Outcome) -> list[Any]:
    verdict = outcome.verdict
    first, second = (*outcome.events, "", "")[:2]
    text = str(verdict.reply) if verdict.reply is not None else verdict.text
    return [
        outcome.queue_id,
        outcome.number,
        outcome.attempt,
        _LETTER[outcome.state],
        int(outcome.delay_s * 1000),
        outcome.advance,
        verdict.reason,
        text[:_TEXT_CHARACTERS],
        outcome.provider,
        first,
        pack_nested(outcome.event) if first else "",
        f"{verdict.severity}:{verdict.scope}",
        second,
    ]


class Settler:
    """`await settle(outcomes)` hands over; `await mark(marks)` goes before a dot."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._items: deque[list[Any]] = deque()
        self._reports: list[Submission] = []
        self._in_flight = 0
        self._room = asyncio.Event()
        self._room.set()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def unsettled(self) -> int:
        """Outcomes that Redis has not confirmed."""
        return len(self._items) + self._in_flight

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
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        return self.unsettled == 0

    async def settle(self, outcomes: Iterable[Outcome], reports: Iterable[Submission] = ()) -> None:
        """Take over outcomes and the reports that are to be queued with them."""
        self._items.extend(_item(outcome) for outcome in outcomes)
        self._reports.extend(reports)
        if self._items:
            self._idle.clear()
            self._more.set()
        if self.unsettled >= LIMIT:
            self._room.clear()

    async def mark(self, marks: list[str], *, confirmed: bool) -> bool:
        """Record that dots are about to be sent; False where that was not possible.

        Returns once the mark has left this process, so that it survives our own death; with
        `confirmed` once Redis has it on disk.
        """
        await self._room.wait()
        request = {"holder": self._work.holder, "marks": marks, "items": [], "reports": []}
        call = asyncio.ensure_future(self._work.store.scripts.call("settle", request))
        call.add_done_callback(_retrieved)
        try:
            if confirmed:
                await call
                return True
            await asyncio.sleep(0)
            await self._work.store.wire.flushed()
        except StoreError:
            return False
        return not (call.done() and call.exception() is not None)

    async def _run(self) -> None:
        while True:
            await self._more.wait()
            if len(self._items) < LIMIT:
                await asyncio.sleep(GATHER_S)
            self._more.clear()
            count = min(len(self._items), LIMIT)
            batch = [self._items.popleft() for _ in range(count)]
            reports, self._reports = self._reports, []
            self._in_flight = len(batch)
            try:
                await self._commit(batch, reports)
            except asyncio.CancelledError:
                self._items.extendleft(reversed(batch))
                self._in_flight = 0
                raise
            self._in_flight = 0
            if self._items:
                self._more.set()
            else:
                self._idle.set()
            if self.unsettled < LIMIT:
                self._room.set()

    async def _commit(self, batch: list[list[Any]], reports: list[Submission]) -> None:
        """Settle one group, however long Redis is away."""
        request: dict[str, Any] = {"holder": self._work.holder, "marks": [], "items": batch}
        request["reports"] = [_report(report) for report in reports]
        contents = [encode_content(report.content) for report in reports]
        waited = 0.0
        while True:
            try:
                answers = await self._work.store.scripts.call("settle", request, *contents)
            except ScriptMismatch:
                raise
            except StoreUnavailable as error:
                if waited % 30 == 0:
                    _log.warning("store.unavailable", detail=str(error), unsettled=self.unsettled)
                await asyncio.sleep(RETRY_S)
                waited += RETRY_S
                continue
            except StoreError as error:
                # One bad item must not block the others: settle them one by one.
                if len(batch) > 1:
                    for item in batch:
                        await self._commit([item], [])
                    return
                _log.error("store.settle_rejected", item=repr(batch[0])[:500], error=str(error))
                answers = [b"ok"]
            for queue_id, number, attempt, *_ in batch:
                self._work.holdings.settled(f"{queue_id}.{number}", attempt)
            _complain(batch, answers)
            return


def _report(submission: Submission) -> dict[str, object]:
    return accept_request(submission, rows_of(submission), 1)


def _complain(batch: list[list[Any]], answers: list[bytes]) -> None:
    for item, answer in zip(batch, answers, strict=True):
        if answer not in (b"ok", b"again"):
            _log.info(
                "recipient.outcome_fenced",
                recipient_id=f"{item[0]}.{item[1]}",
                attempt=item[2],
                answer=answer.decode(),
            )


def _retrieved(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()
