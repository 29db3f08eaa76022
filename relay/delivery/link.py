"""The protocol machine and the byte stream joined: whose reply is awaited decides how long.

A deadline is per reply, not per octet: a peer that drips one octet a minute does not prolong it
(RFC 5321 §4.5.3.2). An attempt as a whole has one too, up to the final dot: a peer that answers
each of 50 RCPTs at the last moment does not keep us for hours. Whatever ends the connection is told
to the machine, which gives out first what was read before it.
"""

import asyncio
import math
from collections.abc import Callable

from relay.model.errors import ConnectionLost, DeadlineExpired
from relay.net.stream import Stream
from relay.settings.schema import Timeouts
from relay.smtp.client import Client
from relay.smtp.states import Phase
from relay.smtp.transaction import Event


class Link:
    """One machine on one stream."""

    def __init__(self, client: Client, stream: Stream, timeouts: Timeouts) -> None:
        self.client = client
        self.stream = stream
        self._loop = asyncio.get_running_loop()
        self._timeouts: dict[Phase, float] = {phase: getattr(timeouts, phase) for phase in Phase}
        #: Called whenever something was written or heard; mostly nobody watches.
        self.watch: Callable[[], None] | None = None
        self.begin_attempt()

    def begin_attempt(self) -> None:
        """What follows has `timeouts.attempt` in all."""
        self._ends = self._loop.time() + self._timeouts[Phase.ATTEMPT]

    def end_attempt(self) -> None:
        """What follows has the deadline of its own phase only."""
        self._ends = math.inf

    def _deadline(self, phase: Phase) -> float:
        return min(self._loop.time() + self._timeouts[phase], self._ends)

    def _expired(self, phase: Phase) -> DeadlineExpired:
        """What has run out: the attempt or the phase."""
        if self._loop.time() >= self._ends:
            phase = Phase.ATTEMPT
        return DeadlineExpired(phase, self._timeouts[phase])

    async def next_event(self) -> Event:
        """Write what is to be written, read until the machine has an event, or raise its end."""
        client = self.client
        replies_read = -1
        phase = Phase.COMMAND
        deadline = 0.0
        while True:
            event = client.next_event()
            if event is not None:
                return event
            await self.flush()
            if client.replies_read != replies_read:
                replies_read = client.replies_read
                phase = client.phase
                deadline = self._deadline(phase)
            if not client.is_over:
                await self._hear(phase, deadline)

    async def flush_up_to_dot(self) -> None:
        """Write the content but for its last block, which carries the final dot."""
        while not self.client.dot_is_next and await self._flush_block():
            pass

    async def flush(self) -> None:
        """Write all that the machine has to say; ends early where the peer ends the session."""
        while await self._flush_block():
            pass

    async def _flush_block(self) -> bool:
        client, stream = self.client, self.stream
        data = client.data_to_send()
        if not data:
            return False
        try:
            stream.write(data)
        except ConnectionLost:
            await self.catch_up()
            return False
        if stream.unwritten:
            await self._drain()
        if self.watch is not None:
            self.watch()
        if client.is_sending:
            # More blocks follow: other sessions get their turn, and so does the peer's voice.
            await asyncio.sleep(0)
            await self.catch_up()
        return True

    async def catch_up(self) -> None:
        """Tell the machine what is here already: the peer may have spoken, or gone, unasked."""
        client, stream = self.client, self.stream
        while (stream.has_unread or not stream.is_open) and not client.is_over:
            await self._hear(Phase.COMMAND, self._loop.time())

    async def _drain(self) -> None:
        """Wait until the kernel has everything; hear the peer meanwhile."""
        phase = Phase.DATA_BLOCK
        deadline = self._deadline(phase)
        while not self.client.is_over:
            try:
                if await self.stream.drain(deadline):
                    return
            except TimeoutError:
                self.client.receive_eof(self._expired(phase))
                return
            except ConnectionLost as lost:
                self.client.receive_eof(lost)
                return
            await self._hear(phase, deadline)

    async def _hear(self, phase: Phase, deadline: float) -> None:
        """Give the machine what the peer sends, or that it sends nothing more."""
        client = self.client
        try:
            data = await self.stream.read(deadline)
        except TimeoutError:
            client.receive_eof(self._expired(phase))
        except ConnectionLost as lost:
            client.receive_eof(lost)
        else:
            if data:
                client.receive(data)
            else:
                client.receive_eof()
        if self.watch is not None:
            self.watch()
