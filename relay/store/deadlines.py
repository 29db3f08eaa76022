"""What is due to a message as a whole: bounces that were ordered, its delay notice, its expiry.

Each concerns recipients that a report to the sender must name, and the report is queued in the
transition that ends them. So it takes two calls: `due` says whom it concerns, `act` does it, or
nothing where one of these recipients has moved on meanwhile; the message then stays due.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from relay.model.message import Submission
from relay.store.codec import (
    FLAG_DSN,
    RecipientRecord,
    StoredMessage,
    decode_message,
    encode_content,
    unpack,
)
from relay.store.queue import Store, accept_request, rows_of

#: Recipients looked at in one call.
PAGE = 500


class Due(msgspec.Struct, frozen=True):
    """What is due to recipients of a message from number `start` on; `following`: 0 at the end.

    `kind` is bounce, notice or expiry; `asked` tells bounces that were ordered later.
    """

    queue_id: str
    start: int
    kind: str
    message: StoredMessage
    recipients: tuple[tuple[int, RecipientRecord], ...]
    following: int
    asked: str

    @property
    def wants_report(self) -> bool:
        """Whether the sender is to be told by mail: his door promises it, and he has an address."""
        has_sender = bool(self.message.reverse_path)
        return has_sender and bool(self.message.flags & FLAG_DSN) and bool(self.recipients)


class Deadlines:
    """The two calls; see `lua/deadline.lua`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def due(self, queue_id: str, start: int = 1) -> Due | None:
        """What is due now; None where nothing is."""
        answer = await self._call(queue_id, start)
        if answer[0] == b"none":
            return None
        recipients = tuple(
            (number, msgspec.convert(record, RecipientRecord))
            for number, record in unpack(answer[2])
        )
        return Due(
            queue_id=queue_id,
            start=start,
            kind=answer[0].decode(),
            message=decode_message(answer[1]),
            recipients=recipients,
            following=answer[3],
            asked=answer[4].decode(),
        )

    async def act(self, due: Due, reports: Sequence[Submission] = ()) -> int:
        """Do what is due and queue the reports; how many recipients it concerned."""
        requests = [accept_request(report, rows_of(report), 1) for report in reports]
        contents = [encode_content(report.content) for report in reports]
        answer = await self._call(
            due.queue_id,
            due.start,
            *contents,
            act=due.kind,
            asked=due.asked,
            named=[number for number, _ in due.recipients],
            reports=requests,
        )
        return int(answer[1]) if answer[0] != b"none" else 0

    async def _call(self, queue_id: str, start: int, *contents: bytes, **more: Any) -> list[Any]:
        request = {"id": queue_id, "from": start, "limit": PAGE, **more}
        answer: list[Any] = await self.store.scripts.call("deadline", request, *contents)
        return answer
