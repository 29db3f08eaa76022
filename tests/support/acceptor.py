"""An acceptor in memory, for tests of a door's protocol alone: the same contract as the store's."""

import asyncio

from relay.model.message import Receipt, ReceiptRecipient, Submission


class MemoryAcceptor:
    """Keeps submissions; `error` is raised instead, `gate` holds every acceptance back."""

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.is_waited_for = asyncio.Event()

    @property
    def last(self) -> Submission:
        return self.submissions[-1]

    async def accept(self, submission: Submission) -> Receipt:
        self.is_waited_for.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.submissions.append(submission)
        return Receipt(
            id=submission.queue_id,
            message_id=submission.message_id,
            recipients=tuple(
                ReceiptRecipient(f"{submission.queue_id}.{number}", str(path), "ready")
                for number, path in enumerate(submission.forward_paths, 1)
            ),
        )
