"""A Celery worker whose sessions come to stand at the line that a recipient's domain names.

    python -m tests.support.standing_worker -A workers.app worker …

`ann@after-mark.bulk.test` goes as far as the line `after-mark`, and no further. The product's code
runs as it is up to that line: what is wrapped here only waits. Each session that stands writes
the event `standing` to the log, with the address; then the process can be killed, and what a
death at each line leaves behind is seen in one.
"""

import asyncio
import json
from typing import Any

from celery.__main__ import main

from relay.delivery.link import Link
from relay.delivery.session import Session
from relay.net.stream import Stream
from relay.store.scripts import Scripts
from relay.store.settler import Settler

#: In the order of the road; what each is, tests/system/test_killed_at_each_line.py tells.
BEFORE_MARK = "before-mark"
AFTER_MARK = "after-mark"
DOT_WRITTEN = "dot-written"
DOT_TAKEN = "dot-taken"
BEFORE_READING = "before-reading"
BEFORE_SETTLING = "before-settling"
SETTLE_SENT = "settle-sent"
LINES = (
    BEFORE_MARK,
    AFTER_MARK,
    DOT_WRITTEN,
    DOT_TAKEN,
    BEFORE_READING,
    BEFORE_SETTLING,
    SETTLE_SENT,
)
#: A settle carries outcomes of several sessions: so many come to stand in one.
SETTLED_TOGETHER = 2

_transact, _end_attempt, _data_received = Session.transact, Link.end_attempt, Stream.data_received
_settle, _call = Settler.settle, Scripts.call
_waiting_for_answer: dict[Link, str] = {}
_deaf: dict[Stream, str] = {}
_settling: list[str] = []
_all_settle = asyncio.Event()


def line_of(address: str) -> str:
    """The line at which an address comes to stand."""
    return address.partition("@")[2].partition(".")[0]


def report(address: str) -> None:
    """Say that a session stands."""
    print(json.dumps({"event": "standing", "level": "info", "address": address}), flush=True)


async def stand(address: str) -> None:
    """Never return."""
    report(address)
    await asyncio.get_running_loop().create_future()


async def transact(self: Session, transaction: Any, *, before_dot: Any, **more: Any) -> Any:
    """One transaction, as far as its recipient goes."""
    address = transaction.forward_paths[0]
    line = line_of(address)

    async def gate() -> bool:
        if line == BEFORE_MARK:
            await stand(address)
        may_send: bool = await before_dot()
        if line == AFTER_MARK and may_send:
            await stand(address)
        if line in (DOT_WRITTEN, DOT_TAKEN):
            _waiting_for_answer[self._link] = address
        if line == BEFORE_READING:
            _deaf[self._stream] = address
        return may_send

    return await _transact(self, transaction, before_dot=gate, **more)


def end_attempt(self: Link) -> None:
    """What follows the writing of the dot: the receiver does not answer."""
    _end_attempt(self)
    if self in _waiting_for_answer:
        report(_waiting_for_answer[self])


def data_received(self: Stream, data: bytes) -> None:
    """The reply to the dot is here, and not read."""
    if self in _deaf:
        report(_deaf[self])
    else:
        _data_received(self, data)


async def settle(self: Settler, outcomes: Any, reports: Any = ()) -> None:
    """The reply was read: its outcome is handed to the settler."""
    outcomes = list(outcomes)
    address = outcomes[0].event["address"]
    if line_of(address) == BEFORE_SETTLING:
        await stand(address)
    _settling.append(address)
    if len(_settling) == SETTLED_TOGETHER:
        _all_settle.set()
    await _all_settle.wait()
    await _settle(self, outcomes, reports)


async def call(self: Scripts, name: str, request: dict[str, Any], *blobs: bytes) -> Any:
    """A settle leaves, and its reply is never heard."""
    if name != "settle":
        return await _call(self, name, request, *blobs)
    await self.post(name, request)
    for address in _settling:
        report(address)
    return await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    Session.transact = transact  # type: ignore[assignment]
    Link.end_attempt = end_attempt  # type: ignore[method-assign]
    Stream.data_received = data_received  # type: ignore[method-assign]
    Settler.settle = settle  # type: ignore[method-assign]
    Scripts.call = call  # type: ignore[method-assign]
    raise SystemExit(main())
