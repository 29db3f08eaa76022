"""Commands and replies in lockstep on one stream; what goes out of step ends the connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from relay.model.errors import (
    ConnectionLost,
    DeadlineExpired,
    LocalProtocolError,
    RelayError,
    RemoteProtocolError,
    TlsFailed,
)
from relay.model.reply import Reply
from relay.net.stream import Stream
from relay.smtp.command import UNASKED
from relay.smtp.reply_reader import ReplyReader

#: Seconds that a closed connection is granted to be gone.
_CLOSE_S = 1.0


class CommandRefused(RelayError):
    """Raised when the server refuses a command; `reply` is its answer.

    `reply.is_transient`: the same may be tried again later; else it is refused for good.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.command} was answered {reply}")
        self.reply = reply


class Dialogue:
    """One speaker at a time; after an error of the network or the protocol nothing is said more."""

    def __init__(self, stream: Stream, timeout_s: float) -> None:
        self.stream = stream
        self.timeout_s = timeout_s
        self._reader = ReplyReader()
        self._owner: asyncio.Task[object] | None = None
        self._broken: RelayError | None = None

    @property
    def is_open(self) -> bool:
        """Whether another command may be said."""
        return self._broken is None and self.stream.is_open

    async def ask(self, *commands: tuple[str, bytes], timeout_s: float = 0) -> list[Reply]:
        """Write commands (name, line) in one go; their replies in order, whatever they are."""
        async with self._turn():
            await self._refuse_unasked()
            with contextlib.suppress(ConnectionLost):  # what came before the end is read first
                self.stream.write(b"".join(line for _, line in commands))
            return [await self._hear(name, timeout_s) for name, _ in commands]

    async def hear(self, name: str) -> Reply:
        """The next reply, to what was said before."""
        async with self._turn():
            return await self._hear(name, 0)

    async def write(self, data: bytes) -> None:
        """Hand octets over and wait until the kernel has them; the server's voice ends that."""
        async with self._turn():
            self.stream.write(data)
            deadline = self._deadline(0)
            try:
                if not await self.stream.drain(deadline):
                    reply = await self._hear(UNASKED, 0)
                    raise CommandRefused(reply)
            except TimeoutError:
                raise DeadlineExpired("data", self.timeout_s) from None

    def start_anew(self) -> None:
        """What the server said in clear is forgotten (RFC 3207 §4.2).

        TlsFailed where it said more than the reply that was read: that may be injected.
        """
        if self._reader.has_rest:
            raise TlsFailed("octets in clear before the handshake")
        self._reader = ReplyReader()

    async def end(self, error: RelayError | None = None) -> None:
        """Close; with an error by force. Never raises but CancelledError."""
        if self._broken is None:
            self._broken = error or ConnectionLost("the connection was closed by us")
        if error is None:
            self.stream.close()
        else:
            self.stream.abort()
        await self.stream.wait_closed(_CLOSE_S)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._broken is not None:
            raise self._broken.with_traceback(None)
        if self._owner is not None:
            raise LocalProtocolError("another call on this client is not finished")
        self._owner = asyncio.current_task()
        try:
            yield
        except LocalProtocolError:
            raise
        except RelayError as error:
            self._broken = error
            self.stream.abort()
            raise
        except BaseException:
            # Cancelled in the middle: which reply answers what is unknown from now on.
            self._broken = ConnectionLost("the connection was dropped by us")
            self.stream.abort()
            raise
        finally:
            self._owner = None

    async def _refuse_unasked(self) -> None:
        """Nothing may be here before the question, but 421 (RFC 5321 §3.8)."""
        if not (self.stream.has_unread or self._reader.has_rest):
            return
        if self.stream.has_unread:
            self._reader.feed(await self.stream.read(self._deadline(0)))
        reply = self._reader.next_reply(UNASKED)
        if reply is not None and reply.code == 421:
            raise CommandRefused(reply)
        raise RemoteProtocolError("the server spoke before it was asked")

    def _deadline(self, timeout_s: float) -> float:
        return asyncio.get_running_loop().time() + (timeout_s or self.timeout_s)

    async def _hear(self, name: str, timeout_s: float) -> Reply:
        deadline = self._deadline(timeout_s)
        while True:
            reply = self._reader.next_reply(name)
            if reply is not None:
                if reply.code == 421:  # RFC 5321 §3.8: it closes the connection
                    raise CommandRefused(reply)
                return reply
            try:
                data = await self.stream.read(deadline)
            except TimeoutError:
                raise DeadlineExpired(name, timeout_s or self.timeout_s) from None
            if not data:
                raise ConnectionLost(f"the server closed in place of a reply to {name}")
            self._reader.feed(data)


def require(replies: Sequence[Reply]) -> Reply:
    """The last reply, if none of them refuses; CommandRefused by the first that does."""
    for reply in replies:
        if not (reply.is_positive or reply.is_intermediate):
            raise CommandRefused(reply)
    return replies[-1]
