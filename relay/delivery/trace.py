"""The dialogue of a traced message, told as events while it happens (`session.dialogue`).

Each event has what is new since the one before: entries of a stage, the seconds since the entry
before it, and lines as transcripts have them, passwords left out. A session that is there already
tells its opening with the times that it took. What cannot be written is left out: nothing of a
delivery depends on it.
"""

import asyncio
import time
from itertools import groupby
from typing import Any

import structlog

from relay.delivery.load import Load
from relay.delivery.session import Session
from relay.delivery.values import TransactionResult
from relay.model.errors import StoreError
from relay.smtp.transaction import Exchange, Stage
from relay.smtp.transcript import exchange_lines
from relay.store.work import Work

_UNFINISHED = frozenset({Stage.GO_AHEAD, Stage.CONTENT})

EVENT = "session.dialogue"
#: The outcome waits so long for the last of its dialogue to be written.
PATIENCE_S = 2.0

_log = structlog.get_logger("relay.session")


class Trace:
    """Tells one transaction: `watch` is given to the session, `end` awaited after it."""

    def __init__(self, load: Load, session: Session, session_id: str, work: Work) -> None:
        self._work = work
        self._first = f"{load.recipient_ids[0]}:{load.recipients[0].attempt}"
        self._about = {
            "queue_id": load.message.queue_id,
            "recipient_ids": load.recipient_ids,
            "recipients": list(load.transaction.forward_paths),
            "attempt": load.recipients[0].attempt,
            "session_id": session_id,
            "remote": session.remote,
            "tls": session.tls or None,
            "messages_before": session.transactions,
        }
        self._exchange: Exchange | None = None
        self._told = 0
        self._stage = ""
        self._moment = time.monotonic()
        self._unwritten: list[dict[str, Any]] = []
        self._number = 0
        self._writer: asyncio.Task[None] | None = None
        self._tell(opening_entries(session))

    def watch(self, exchange: Exchange) -> None:
        """Tell what was said or heard since the last call."""
        self._exchange = exchange
        lines = exchange_lines(exchange)
        if exchange.stage in _UNFINISHED:
            del lines[-1]  # that content was begun is news only where it comes to no end
        self._tell_new(lines)

    def _tell_new(self, lines: list[str]) -> None:
        new, self._told = lines[self._told :], len(lines)
        if new:
            self._tell(self._entries(new))

    async def end(self, result: TransactionResult) -> None:
        """Tell the rest, and wait a little until all is written."""
        if self._exchange is not None:
            self._tell_new(exchange_lines(self._exchange))
        if result.broken is not None:
            self._tell(self._entries([f"! {result.broken}"]))
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=PATIENCE_S)

    def _entries(self, lines: list[str]) -> list[dict[str, Any]]:
        """The lines by their stage; the time that has passed stands with the first."""
        now = time.monotonic()
        passed_s, self._moment = now - self._moment, now
        entries: list[dict[str, Any]] = []
        for stage, group in groupby(lines, self._stage_of):
            entries.append(_entry(stage, 0.0 if entries else passed_s, list(group)))
        return entries

    def _stage_of(self, line: str) -> str:
        """Which command a line belongs to; the reply to the content is a stage of its own."""
        if line.startswith("> ["):
            self._stage = "content"
        elif line.startswith("> "):
            self._stage = line[2:].partition(" ")[0]
        elif self._stage == "content":
            self._stage = "reply"
        return self._stage

    def _tell(self, entries: list[dict[str, Any]]) -> None:
        if not entries:
            return
        self._unwritten += entries
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="trace")

    async def _write(self) -> None:
        while self._unwritten:
            entries, self._unwritten = self._unwritten, []
            self._number += 1
            event_id = f"{self._first}:{self._number}:{EVENT}"
            try:
                await self._work.tell(EVENT, event_id, {**self._about, "entries": entries})
            except StoreError as error:
                _log.debug("trace.not_written", detail=str(error))


def opening_entries(session: Session) -> list[dict[str, Any]]:
    """How a session came about: each phase, what it took, and what was said in it."""
    entries, begin = [], 0
    for phase, spent_s, end in session.stages:
        entries.append(_entry(phase, spent_s, list(session.opening[begin:end])))
        begin = end
    if session.clear_because:
        entries[-1]["lines"].append(f"! in clear, because {session.clear_because}")
    return entries


def _entry(stage: str, after_s: float, lines: list[str]) -> dict[str, Any]:
    return {"stage": stage, "after_s": round(after_s, 6), "lines": lines}
