"""Mail transactions on one connection: a queue of exchanges, and what each reply leads to.

Rules of this file:
- Only the first exchange of the queue is spoken about, except that with PIPELINING the second
  one's envelope is written behind the first one's final dot.
- Content is sent only after 354 to an envelope with MAIL and at least one RCPT accepted.
- Content larger than a block goes in chunks by BDAT (RFC 3030) where CHUNKING and PIPELINING are
  offered, once the envelope is answered: there is nothing to stuff, a refusal in the middle costs
  no connection, nobody accepted costs no content. Smaller content has as many round trips by DATA.
- An exchange ends in `Finished` exactly once, or never when the connection breaks before.
- An enquiry ends with the reply to its last RCPT: no DATA, no content, no dot.
- In LMTP the content has a reply for each accepted recipient; an exchange ends with the last one,
  and nothing goes by BDAT.
- RSET comes before MAIL whenever the exchange before was not ended by an accepted dot, and behind
  the last chunk, whose reply is not known yet (RFC 3030 §2: a failed BDAT demands RSET).
"""

from collections import deque
from typing import Final

from relay.model.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from relay.model.reply import Reply
from relay.smtp import command
from relay.smtp.command import BDAT, DATA, END_OF_DATA, MAIL, RCPT, RSET
from relay.smtp.content import BLOCK_OCTETS, ContentEncoder
from relay.smtp.envelope import Terms, envelope, local_refusal
from relay.smtp.extensions import NO_EXTENSIONS, Extensions
from relay.smtp.states import BDAT_UNKNOWN
from relay.smtp.transaction import Event, Exchange, Finished, GoAhead, Stage, Transaction

#: A reply that is owed to us: the command, its exchange, the recipient's index.
Expected = tuple[str, Exchange | None, int]

#: In place of a recipient's index: the dot of an exchange without an accepted recipient.
_LONE: Final = -1


class Wire:
    """Octets not yet written, and the replies that are owed for what was written."""

    def __init__(self) -> None:
        self.expected: deque[Expected] = deque()
        self._octets: list[bytes] = []
        self._unwritten: list[Expected] = []

    def say(self, octets: bytes, *expected: Expected) -> None:
        """Queue octets; their replies are owed from the moment they are taken."""
        if octets:
            self._octets.append(octets)
        self._unwritten.extend(expected)

    def take(self) -> bytes:
        """What is to be written now; the caller writes all of it."""
        if self._unwritten:
            self.expected.extend(self._unwritten)
            self._unwritten.clear()
        if not self._octets:
            return b""
        octets = self._octets[0] if len(self._octets) == 1 else b"".join(self._octets)
        self._octets.clear()
        return octets

    def clear(self) -> None:
        """Forget everything: the connection is over."""
        self.expected.clear()
        self._octets.clear()
        self._unwritten.clear()


class Exchanges:
    """The queue of exchanges of one connection."""

    def __init__(
        self,
        wire: Wire,
        events: deque[Event],
        block_octets: int = BLOCK_OCTETS,
        *,
        lmtp: bool = False,
    ) -> None:
        self._is_lmtp = lmtp
        self._wire = wire
        self._events = events
        self._queue: deque[Exchange] = deque()
        self.terms = Terms()
        self._extensions = NO_EXTENSIONS
        self._needs_reset = False
        self._sending: Exchange | None = None
        self._encoder = ContentEncoder()
        self._sent_octets = 0
        self._block_octets = block_octets
        self._chunks_owed = 0

    @property
    def is_idle(self) -> bool:
        """Whether no exchange is open."""
        return not self._queue

    @property
    def is_sending(self) -> bool:
        """Whether blocks of content are left to be queued."""
        return self._sending is not None

    @property
    def dot_is_next(self) -> bool:
        """Whether the next block carries the final dot."""
        exchange = self._sending
        if exchange is None:
            return False
        return len(exchange.transaction.content) - self._sent_octets <= self._block_octets

    def start(self, transaction: Transaction, extensions: Extensions) -> Exchange:
        """Queue a transaction; LocalProtocolError, and nothing said, where it is malformed."""
        if not transaction.forward_paths:
            raise LocalProtocolError("a transaction without recipients")
        refusal = local_refusal(transaction, extensions, self.terms)
        is_large = len(transaction.content) > self._block_octets
        is_chunked = (
            is_large and extensions.chunking and extensions.pipelining and not self._is_lmtp
        )
        lines = envelope(transaction, extensions)
        if is_chunked or transaction.is_enquiry:
            del lines[-1]
        exchange = Exchange(
            transaction,
            lines,
            [None] * len(transaction.forward_paths),
            mail=refusal,
            is_local=refusal is not None,
            is_chunked=is_chunked,
        )
        self._extensions = extensions
        self._queue.append(exchange)
        self._proceed()
        return exchange

    def send_content(self, exchange: Exchange) -> None:
        """Begin to send the content; blocks follow by `send_block`."""
        if exchange.stage is not Stage.GO_AHEAD:
            raise LocalProtocolError(f"content cannot be sent: {exchange.stage.value}")
        exchange.stage = Stage.CONTENT
        self._sending = exchange
        self._encoder = ContentEncoder()
        self._sent_octets = 0
        self._chunks_owed = 0
        if self._is_lmtp:
            self._expect_finals(exchange)
        elif not exchange.is_chunked:
            self._wire.say(b"", (END_OF_DATA, exchange, 0))

    def _expect_finals(self, exchange: Exchange) -> None:
        """LMTP: the content is answered once for each accepted recipient (RFC 2033 §4.2)."""
        exchange.finals = [None] * len(exchange.recipients)
        accepted = [
            index
            for index, reply in enumerate(exchange.recipients)
            if reply is not None and reply.is_positive
        ]
        self._wire.say(b"", *[(END_OF_DATA, exchange, index) for index in accepted])

    def send_block(self) -> None:
        """Queue the next block of the content being sent, if any; the last carries the dot."""
        exchange = self._sending
        if exchange is None:
            return
        content = exchange.transaction.content
        if self._sent_octets == 0 and len(content) <= self._block_octets:
            block = content
        else:
            block = content[self._sent_octets : self._sent_octets + self._block_octets]
        self._sent_octets += len(block)
        if exchange.is_chunked:
            self._send_chunk(exchange, block)
            return
        self._wire.say(self._encoder.encode(block))
        if self._sent_octets >= len(content):
            self._wire.say(self._encoder.finish())
            self._sending = None
            exchange.dot_sent = True
            exchange.stage = Stage.DOT_SENT
            self._proceed()

    def _send_chunk(self, exchange: Exchange, block: bytes) -> None:
        """Queue a block as a chunk; the last one stands for the final dot."""
        is_last = self._sent_octets >= len(exchange.transaction.content)
        octets = self._encoder.encode_chunk(block, is_last=is_last)
        verb = END_OF_DATA if is_last else BDAT
        self._wire.say(command.bdat(len(octets), is_last=is_last), (verb, exchange, 0))
        self._wire.say(octets)
        self._chunks_owed += 1
        if is_last:
            self._sending = None
            exchange.dot_sent = self._needs_reset = True
            exchange.stage = Stage.DOT_SENT
            self._proceed()

    def stop(self) -> None:
        """Send nothing more: the connection is over."""
        self._sending = None
        self._queue.clear()

    def hear(self, verb: str, exchange: Exchange, index: int, reply: Reply) -> None:
        """Record the reply to a command of an exchange, and go on from there."""
        if verb == RCPT:
            exchange.recipients[index] = reply
            if reply.is_positive:
                exchange.accepted += 1
            if exchange.is_chunked and index + 1 == len(exchange.recipients):
                self._hear_last_rcpt(exchange, reply)
        elif verb == MAIL:
            exchange.mail = reply
        elif verb == DATA:
            self._hear_data(exchange, reply)
            return
        elif verb == BDAT or (verb == END_OF_DATA and exchange.is_chunked):
            self._hear_chunk(exchange, reply, is_last=verb == END_OF_DATA)
            return
        elif verb == END_OF_DATA:
            self._hear_final(exchange, index, reply)
            return
        elif not reply.is_positive and reply.code != 421:
            raise RemoteProtocolError(f"RSET refused: {reply}")
        if not self._extensions.pipelining and reply.code != 421:
            self._ask_next(exchange, verb, index)
        elif verb == RCPT and reply.code != 421 and _is_end_of_enquiry(exchange, index):
            self._finish(exchange, is_clean=False)

    def _hear_last_rcpt(self, exchange: Exchange, reply: Reply) -> None:
        """The envelope before chunks is answered; they follow, if anybody gets them."""
        if exchange.accepted:
            self._require_mail(exchange)
            exchange.stage = Stage.GO_AHEAD
            self._events.append(GoAhead(exchange))
        elif reply.code != 421:
            self._finish(exchange, is_clean=False)

    def _hear_chunk(self, exchange: Exchange, reply: Reply, *, is_last: bool) -> None:
        """The first refusal of a chunk refuses the content; those behind it are counted only."""
        self._chunks_owed -= 1
        if exchange.final is None:
            if reply.code in BDAT_UNKNOWN:
                exchange.dot_sent = False
                raise RemoteProtocolError(f"the server offers CHUNKING, but no BDAT: {reply}")
            if is_last or not reply.is_positive:
                exchange.final = reply
                self._sending = None
        if exchange.final is not None and not self._chunks_owed:
            self._finish(exchange, is_clean=exchange.final.is_positive)

    def _require_mail(self, exchange: Exchange) -> None:
        if exchange.mail is None or not exchange.mail.is_positive:
            raise RemoteProtocolError("a recipient accepted after MAIL was refused")

    def _hear_data(self, exchange: Exchange, reply: Reply) -> None:
        exchange.data = reply
        if not reply.is_intermediate:
            self._finish(exchange, is_clean=False)
        elif exchange.mail is None or not exchange.mail.is_positive:
            if exchange.accepted:
                raise RemoteProtocolError("a recipient accepted after MAIL was refused")
            self._send_lone_dot(exchange)
        elif exchange.accepted:
            exchange.stage = Stage.GO_AHEAD
            self._events.append(GoAhead(exchange))
        else:
            self._send_lone_dot(exchange)

    def _send_lone_dot(self, exchange: Exchange) -> None:
        """End a message that no recipient gets (RFC 2920 §3.1); its reply delivers nothing."""
        if self._is_lmtp:  # nobody's reply would come
            raise RemoteProtocolError("354 in LMTP though no recipient was accepted")
        self._wire.say(command.LONE_DOT, (END_OF_DATA, exchange, _LONE))
        exchange.stage = Stage.DOT_SENT

    def _hear_final(self, exchange: Exchange, index: int, reply: Reply) -> None:
        if index == _LONE:
            self._finish(exchange, is_clean=True)
        elif exchange.stage is Stage.DOT_SENT:
            if exchange.finals:
                exchange.finals[index] = reply
                if sum(final is not None for final in exchange.finals) < exchange.accepted:
                    return
            exchange.final = reply
            self._finish(exchange, is_clean=reply.is_positive)
        elif reply.is_positive:
            raise RemoteProtocolError(f"{reply.code} before the content was at its end")
        else:
            self._sending = None
            exchange.final = reply
            self._finish(exchange, is_clean=False)
            raise ConnectionLost(f"the server refused the content before its end: {reply}")

    def _finish(self, exchange: Exchange, *, is_clean: bool) -> None:
        self._queue.popleft()
        exchange.stage = Stage.FINISHED
        self._needs_reset = not is_clean
        self._events.append(Finished(exchange))
        self._proceed()

    def _proceed(self) -> None:
        """Say the next envelope, if it is its turn."""
        while self._queue and self._queue[0].is_local:
            local = self._queue.popleft()
            local.stage = Stage.FINISHED
            self._events.append(Finished(local))
        if not self._queue:
            return
        first = self._queue[0]
        if first.stage is Stage.QUEUED:
            self._say_envelope(first)
        elif first.stage is Stage.DOT_SENT and self._extensions.pipelining:
            second = self._queue[1] if len(self._queue) > 1 else None
            if second is not None and second.stage is Stage.QUEUED and not second.is_local:
                self._say_envelope(second)

    def _say_envelope(self, exchange: Exchange) -> None:
        exchange.stage = Stage.ENVELOPE
        needs_reset, self._needs_reset = self._needs_reset, False
        if not self._extensions.pipelining:
            if needs_reset:
                self._wire.say(command.RSET_LINE, (RSET, exchange, 0))
            else:
                self._wire.say(exchange.lines[0], (MAIL, exchange, 0))
            return
        expected: list[Expected] = [(RSET, exchange, 0)] if needs_reset else []
        expected.append((MAIL, exchange, 0))
        expected.extend([(RCPT, exchange, index) for index in range(len(exchange.recipients))])
        if len(exchange.lines) > 1 + len(exchange.recipients):
            expected.append((DATA, exchange, 0))
        octets = b"".join(exchange.lines)
        self._wire.say(command.RSET_LINE + octets if needs_reset else octets, *expected)

    def _ask_next(self, exchange: Exchange, verb: str, index: int) -> None:
        """Without PIPELINING: the command after the one just answered, or the end."""
        if verb == RSET:
            self._wire.say(exchange.lines[0], (MAIL, exchange, 0))
            return
        if verb == MAIL:
            if exchange.mail is None or not exchange.mail.is_positive:
                self._finish(exchange, is_clean=False)
                return
            index = -1
        if index + 1 < len(exchange.recipients):
            self._wire.say(exchange.lines[index + 2], (RCPT, exchange, index + 1))
        elif exchange.accepted and not exchange.transaction.is_enquiry:
            self._wire.say(exchange.lines[-1], (DATA, exchange, 0))
        else:
            self._finish(exchange, is_clean=False)


def _is_end_of_enquiry(exchange: Exchange, index: int) -> bool:
    return exchange.transaction.is_enquiry and index == len(exchange.recipients) - 1
