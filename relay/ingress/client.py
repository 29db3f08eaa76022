"""The Python door: `Relay` for ordinary programs, `AsyncRelay` for asyncio.

    from relay import Message, Relay

    with Relay() as relay:
        receipt = relay.send(Message(from_="news@example.org", to="ann@gmail.test", text="hello"))

It speaks to Redis itself: no other process has to run for mail to be accepted.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop

from relay.ingress.draft import RawMessage, draft_of_message, draft_of_raw
from relay.ingress.labels import Labels
from relay.ingress.message import Attachment, Mailbox, Message
from relay.ingress.report_fields import ReportFields
from relay.ingress.store_link import find_store
from relay.ingress.submit import Draft, Submitter
from relay.ingress.suppression_entry import SuppressionEntry, suppression_of
from relay.model.ids import is_recipient_id, split_recipient_id
from relay.model.message import Receipt
from relay.model.suppression import Suppression, suppression_name
from relay.policy.route import RouteTable
from relay.settings.loader import load_settings
from relay.settings.schema import Settings
from relay.store.queue import Store
from relay.store.suppressions import SuppressionFilter, Suppressions
from relay.store.views import MessageView

__all__ = ["AsyncRelay", "Attachment", "Mailbox", "Message", "Relay"]

Answer = TypeVar("Answer")


class AsyncRelay:
    """Sends mail from asyncio programs; one instance serves all tasks of one event loop.

    `url` is the Redis of the queue (`redis://host:6379/0`, `unix:///path`); without it that of the
    configuration (`RELAY_REDIS_URL`, …), else the one that `relay up` started for this user.
    Nothing is opened before the first use. ConfigError says what does not fit.
    """

    def __init__(self, url: str = "", *, mode: str = "", settings: Settings | None = None) -> None:
        self._settings = load_settings() if settings is None else settings
        self._url = url
        self._mode = mode
        self._store: Store | None = None
        self._submitter: Submitter | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def send(self, message: Message, *, idempotency_key: str = "") -> Receipt:
        """Compose a message (RFC 5322) and queue it for all its recipients, or for none.

        It is durable when this returns. A second send with the same `idempotency_key` within 24 h
        answers the first receipt. Raises SubmissionRefused with every fault by field,
        MessageTooLarge, IdempotencyConflict, StoreUnavailable or StoreFull.
        """
        submitter = await self._open()
        draft = draft_of_message(
            message,
            ingress="python",
            hostname=submitter.hostname,
            idempotency_key=idempotency_key,
        )
        return await submitter.submit(draft)

    async def send_raw(
        self,
        content: bytes,
        *,
        sender: str | None = None,
        recipients: Sequence[str] = (),
        idempotency_key: str = "",
        notify: Sequence[str] = (),
        report_content: str | None = None,
        envelope_id: str = "",
    ) -> Receipt:
        """Queue a finished message; without sender or recipients the header names them.

        `sender=""` is the null reverse-path. Line ends may be LF. `notify`, `report_content` and
        `envelope_id` as those of `Message`. Errors as `send`.
        """
        raw = RawMessage(
            content=content,
            sender=sender,
            recipients=tuple(recipients),
            recipients_from_header=not recipients,
            labels=Labels(idempotency_key=idempotency_key),
            reports=ReportFields(tuple(notify), report_content, envelope_id),
        )
        return await self._submit(draft_of_raw(raw, ingress="python"))

    async def message(self, id: str) -> MessageView:
        """One message with its recipients, by queue-id or recipient-id; times in epoch seconds.

        Raises NotFound where it is unknown or finished over an hour ago, StoreUnavailable.
        """
        queue_id = split_recipient_id(id)[0] if is_recipient_id(id) else id
        await self._open()
        assert self._store is not None
        return await self._store.message(queue_id)

    async def suppress(
        self, address: str, *, reason: str = "other", keep_s: float = 0.0, note: str = ""
    ) -> Suppression:
        """Let an address, or everybody of a domain, get no more mail, for `keep_s` (0: for good).

        Reasons are those of `SuppressionReason`. Raises SubmissionRefused where it is no address,
        no reason, or no line, StateConflict where the list is full, StoreUnavailable.
        """
        entry = suppression_of(
            SuppressionEntry(address=address, reason=reason, origin="manual", note=note)
        )
        found = await self._suppressions()
        most = self._settings.suppression.entries
        await found.add([entry], most=most, keep_s=keep_s, actor="python")
        return (await found.find(entry.name))[0]

    async def unsuppress(self, address: str) -> bool:
        """Let an address, or a domain, get mail again; whether it was on the suppression list."""
        name = suppression_name(address)
        return bool(await (await self._suppressions()).remove([name], actor="python"))

    async def suppression(self, address: str) -> Suppression | None:
        """What keeps an address from mail: its entry, that of its domain, or nothing (None)."""
        found = await (await self._suppressions()).find(suppression_name(address))
        return found[0] if found else None

    async def suppressions(
        self, *, limit: int = 100, cursor: str = ""
    ) -> tuple[list[Suppression], str]:
        """A page of the suppression list, newest first, and the cursor of the next one or ""."""
        page = (await self._suppressions()).page
        return await page(SuppressionFilter(), limit=limit, cursor=cursor)

    async def _suppressions(self) -> Suppressions:
        await self._open()
        assert self._store is not None
        return Suppressions(self._store)

    async def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        store, self._store, self._submitter = self._store, None, None
        if store is not None:
            await store.close()

    async def _submit(self, draft: Draft) -> Receipt:
        return await (await self._open()).submit(draft)

    async def _open(self) -> Submitter:
        if self._submitter is None:
            async with self._opening:
                if self._submitter is None:
                    self._store = await find_store(
                        self._settings, "relay-python", url=self._url, mode=self._mode
                    )
                    routes = RouteTable.from_settings(self._settings)
                    self._submitter = Submitter(self._settings, self._store, routes)
        return self._submitter


class Relay:
    """Sends mail from ordinary programs; safe to share between threads, and across fork.

    As `AsyncRelay`, whose calls it runs on an event loop in a thread of its own.
    """

    def __init__(self, url: str = "", *, mode: str = "", settings: Settings | None = None) -> None:
        self._settings = load_settings() if settings is None else settings
        self._url = url
        self._mode = mode
        self._starting = threading.Lock()
        self._runner: _Runner | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, message: Message, *, idempotency_key: str = "") -> Receipt:
        """Compose a message (RFC 5322) and queue it for all its recipients, or for none.

        It is durable when this returns. A second send with the same `idempotency_key` within 24 h
        answers the first receipt. Raises SubmissionRefused with every fault by field,
        MessageTooLarge, IdempotencyConflict, StoreUnavailable or StoreFull.
        """
        runner = self._running()
        return runner.run(runner.relay.send(message, idempotency_key=idempotency_key))

    def send_raw(
        self,
        content: bytes,
        *,
        sender: str | None = None,
        recipients: Sequence[str] = (),
        idempotency_key: str = "",
        notify: Sequence[str] = (),
        report_content: str | None = None,
        envelope_id: str = "",
    ) -> Receipt:
        """Queue a finished message; without sender or recipients the header names them.

        `sender=""` is the null reverse-path. Line ends may be LF. `notify`, `report_content` and
        `envelope_id` as those of `Message`. Errors as `send`.
        """
        runner = self._running()
        return runner.run(
            runner.relay.send_raw(
                content,
                sender=sender,
                recipients=recipients,
                idempotency_key=idempotency_key,
                notify=notify,
                report_content=report_content,
                envelope_id=envelope_id,
            )
        )

    def message(self, id: str) -> MessageView:
        """One message with its recipients, by queue-id or recipient-id; times in epoch seconds.

        Raises NotFound where it is unknown or finished over an hour ago, StoreUnavailable.
        """
        runner = self._running()
        return runner.run(runner.relay.message(id))

    def suppress(
        self, address: str, *, reason: str = "other", keep_s: float = 0.0, note: str = ""
    ) -> Suppression:
        """Let an address, or everybody of a domain, get no more mail, for `keep_s` (0: for good).

        Reasons are those of `SuppressionReason`. Raises SubmissionRefused where it is no address,
        no reason, or no line, StateConflict where the list is full, StoreUnavailable.
        """
        runner = self._running()
        return runner.run(runner.relay.suppress(address, reason=reason, keep_s=keep_s, note=note))

    def unsuppress(self, address: str) -> bool:
        """Let an address, or a domain, get mail again; whether it was on the suppression list."""
        runner = self._running()
        return runner.run(runner.relay.unsuppress(address))

    def suppression(self, address: str) -> Suppression | None:
        """What keeps an address from mail: its entry, that of its domain, or nothing (None)."""
        runner = self._running()
        return runner.run(runner.relay.suppression(address))

    def suppressions(self, *, limit: int = 100, cursor: str = "") -> tuple[list[Suppression], str]:
        """A page of the suppression list, newest first, and the cursor of the next one or ""."""
        runner = self._running()
        return runner.run(runner.relay.suppressions(limit=limit, cursor=cursor))

    def close(self) -> None:
        """Close the connection and end the thread; the next use starts anew."""
        with self._starting:
            runner, self._runner = self._runner, None
        if runner is not None and runner.pid == os.getpid():
            runner.stop()

    def _running(self) -> "_Runner":
        with self._starting:
            # A forked child has the object but neither the thread nor a connection of its own.
            if self._runner is None or self._runner.pid != os.getpid():
                self._runner = _Runner(self._settings, self._url, self._mode)
            return self._runner


class _Runner:
    """An AsyncRelay on an event loop in a daemon thread."""

    def __init__(self, settings: Settings, url: str, mode: str) -> None:
        self.pid = os.getpid()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self.relay = self.run(_make(settings, url, mode))

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Run a coroutine on the loop and wait for its answer."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """Close the connection, end the thread."""
        self.run(self.relay.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _make(settings: Settings, url: str, mode: str) -> AsyncRelay:
    return AsyncRelay(url, mode=mode, settings=settings)
