"""The content of one message, written in pieces.

A message that breaks off in the middle is never ended by a dot: the connection is dropped.
"""

from types import TracebackType
from typing import Self

from relay.mailer.dialogue import Dialogue, require
from relay.model.errors import LocalProtocolError
from relay.model.reply import Reply
from relay.smtp import command
from relay.smtp.content import BLOCK_OCTETS, ContentEncoder, has_nul

#: RFC 5321 §4.5.3.2.6: ten minutes for the reply to the final dot.
END_OF_DATA_S = 600.0


class DataWriter:
    """The content of one message: line ends become CRLF, dots are stuffed, `close` ends it.

    As a context manager it closes at the end, and drops the connection after an exception.
    """

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._encoder = ContentEncoder()
        self._is_closed = False
        #: The server's answer to the message, once it is closed.
        self.reply: Reply | None = None

    async def write(self, content: bytes) -> None:
        """The next piece; LocalProtocolError where it has a NUL, and the connection is dropped."""
        if self._is_closed:
            raise LocalProtocolError("the message is closed")
        for start in range(0, len(content), BLOCK_OCTETS):
            block = content[start : start + BLOCK_OCTETS]
            if has_nul(block):
                await self.abort()
                raise LocalProtocolError("content with a NUL octet, which SMTP cannot carry")
            await self._dialogue.write(self._encoder.encode(block))

    async def close(self) -> Reply:
        """End the message; the reply that takes it. CommandRefused where it is not taken."""
        if self._is_closed:
            raise LocalProtocolError("the message is closed")
        self._is_closed = True
        dot = (command.END_OF_DATA, self._encoder.finish())
        timeout_s = max(END_OF_DATA_S, self._dialogue.timeout_s)
        self.reply = require(await self._dialogue.ask(dot, timeout_s=timeout_s))
        return self.reply

    async def abort(self) -> None:
        """Drop the connection: the server must not take what it has for a message."""
        self._is_closed = True
        await self._dialogue.end(LocalProtocolError("a message was broken off"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_closed:
            return
        if error is None:
            await self.close()
        else:
            await self.abort()
