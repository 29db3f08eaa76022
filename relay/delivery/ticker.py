"""Lets time pass in the store: due mail, dead incarnations, deadlines, half-made commits.

Every engine runs one; a short lock in Redis lets one act at a time.
"""

import asyncio
import time

import structlog

from relay.delivery.context import Context
from relay.delivery.dsn import Reported, Subject
from relay.delivery.reports import report
from relay.model.errors import NotFound, StoreError, StoreUnavailable
from relay.model.message import Submission
from relay.store.codec import FLAG_DSN
from relay.store.work import Due, Ticked

BUSY_EVERY_S = 0.1
IDLE_EVERY_S = 1.0
STANDBY_EVERY_S = 0.5

_log = structlog.get_logger("relay.ticker")


class Ticker:
    """`run()` until cancelled; `hurry()` makes the next tick come at once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.directory.settings
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Do not sleep: something happened."""
        self._hurry.set()

    async def run(self) -> None:
        """Tick until cancelled, through every absence of Redis."""
        while True:
            pause_s = STANDBY_EVERY_S
            try:
                ticked = await self._tick()
                for queue_id in ticked.due:
                    await self._deadline(queue_id)
                for queue_id in ticked.committing:
                    await self._context.work.store.commit(queue_id)
                pause_s = self._pause_s(ticked)
            except StoreUnavailable:
                pass
            except StoreError as error:
                _log.error("ticker.failed", detail=str(error))
            except Exception:  # out of memory, say: the next tick may have it
                _log.exception("ticker.failed")
            self._hurry.clear()
            try:
                async with asyncio.timeout(pause_s):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def _tick(self) -> Ticked:
        worker = self._settings.worker
        return await self._context.work.tick(
            pools=tuple(worker.pools),
            uncertain=self._context.uncertain_policies,
            keep_events=self._settings.events.keep,
        )

    def _pause_s(self, ticked: Ticked) -> float:
        if not ticked.acting:
            return STANDBY_EVERY_S
        if ticked.worked or ticked.due:
            return BUSY_EVERY_S
        if ticked.next_timer:
            until_timer = ticked.next_timer - time.time()
            return min(max(until_timer, 0.01), IDLE_EVERY_S)
        return IDLE_EVERY_S

    async def _deadline(self, queue_id: str) -> None:
        """A delay notice or the expiry of one message, with its report in the same transition."""
        start, work = 1, self._context.work
        while start:
            due = await work.due(queue_id, start)
            if due is None:
                return
            reports = await self._reports(queue_id, due)
            changed = await work.act_on_deadline(queue_id, due.kind, start, reports)
            _log.info("message." + due.kind, queue_id=queue_id, recipients=changed)
            start = due.following

    async def _reports(self, queue_id: str, due: Due) -> list[Submission]:
        if not due.message.flags & FLAG_DSN or not due.message.reverse_path or not due.recipients:
            return []
        try:
            content = await self._context.work.store.content(queue_id)
        except NotFound:
            content = b""
        is_notice = due.kind == "notice"
        recipients = [
            Reported(
                address=record.address,
                action="delayed" if is_notice else "failed",
                status="4.0.0" if is_notice else "4.4.7",
                text=record.text or "No attempt could be made in time.",
                diagnostic="",
            )
            for _, record in due.recipients
        ]
        subject = Subject(
            due.message.reverse_path,
            due.message.message_id,
            due.message.created_ms / 1000,
            content,
        )
        return report(subject, recipients, self._context.directory)
