"""The client's side of an SMTP session as a pure machine: no sockets, no clock, no opinion.

    client = Client("mail.example.org")
    client.receive(octets) · receive_eof()            what the peer sent
    client.next_event()                               what it means, in order; None: nothing yet
    client.hello() · starttls() · authenticate() · start() · send_content() · quit()
    client.data_to_send()                             what to write; empty: nothing more

Rules of this file:
- `states` decides what may be said and where a reply leads; here it is carried out.
- Every command that was written stands in `Wire.expected`, in order; each reply takes the first.
  A reply with nothing expected is a protocol error, unless it is 421 (RFC 5321 §3.8).
- A command counts as written when `data_to_send` returns it: a reply that is here before that
  cannot be its answer.
- After a protocol error, 421 or end of stream nothing is sent and nothing parsed any more; events
  that came before it are still given out, then `next_event` raises, again at every call.
"""

from collections import deque

import msgspec

from relay.model.errors import ConnectionLost, LocalProtocolError, RelayError, RemoteProtocolError
from relay.model.reply import Reply
from relay.smtp import command, sasl
from relay.smtp.command import AUTH, EHLO, GREETING, HELO, LHLO, MAIL, QUIT, STARTTLS, UNASKED
from relay.smtp.content import BLOCK_OCTETS
from relay.smtp.envelope import Terms
from relay.smtp.exchanges import Exchanges, Expected, Wire
from relay.smtp.extensions import NO_EXTENSIONS, Extensions, parse_extensions
from relay.smtp.reply_reader import ReplyReader
from relay.smtp.states import EHLO_UNKNOWN, HEARS, PHASES, SAYS, Phase, State
from relay.smtp.transaction import Answered, Event, Exchange, Stage, Transaction
from relay.smtp.transcript import reply_lines

_NOTHING: Expected = (UNASKED, None, 0)


class Client:
    """One SMTP session, from the greeting to QUIT.

    `is_private`: the path carries passwords safely as it is (implicit TLS, or a loopback address).
    `block_octets` of content are encoded at a time; larger content goes by BDAT where it may.
    `lmtp`: the peer speaks LMTP (RFC 2033): LHLO, and a reply to the content for each recipient.
    LocalProtocolError where `hello_name` cannot stand in EHLO.
    """

    def __init__(
        self,
        hello_name: str,
        *,
        is_private: bool = False,
        block_octets: int = BLOCK_OCTETS,
        lmtp: bool = False,
    ) -> None:
        self._greet = LHLO if lmtp else EHLO
        self._ehlo = command.hello(self._greet, hello_name)
        self._helo = command.hello(HELO, hello_name)
        self._is_private = is_private
        self._reader = ReplyReader()
        self._wire = Wire()
        self._events: deque[Event] = deque()
        self._exchanges = Exchanges(self._wire, self._events, block_octets, lmtp=lmtp)
        self._mechanism: sasl.Mechanism | None = None
        self._auth_problem = ""
        self._broken: RelayError | None = None
        self.state = State.CONNECTED
        self.extensions: Extensions = NO_EXTENSIONS
        #: The name that the peer gave itself in its last reply to EHLO or HELO.
        self.server_name = ""
        #: Complete replies read so far: what a deadline per reply watches.
        self.replies_read = 0
        #: The dialogue up to READY, one line an entry, passwords and challenges left out.
        self.opening: list[str] = []
        self._wire.expected.append((GREETING, None, 0))

    # -- what the peer sent ------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take octets from the peer; what they mean comes out of `next_event`."""
        if self._broken is not None:
            return
        if self.state is State.HANDSHAKE:
            self._break(RemoteProtocolError("octets in clear before the TLS handshake"))
            return
        self._reader.feed(data)
        try:
            self._read_replies()
        except (RemoteProtocolError, ConnectionLost) as error:
            self._break(error)

    def receive_eof(self, cause: RelayError | None = None) -> None:
        """The peer sends nothing more; `cause` is why, where the transport knows."""
        if self._broken is not None:
            return
        if cause is None:
            awaited = self.awaited
            what = f"in place of the reply to {awaited}" if awaited else "while idle"
            cause = ConnectionLost(f"the server closed the connection {what}")
        self._break(cause)

    def next_event(self) -> Event | None:
        """The next event, None when more octets are needed; raises what broke the session."""
        if self._events:
            return self._events.popleft()
        if self._broken is not None:
            raise self._broken.with_traceback(None)
        return None

    @property
    def awaited(self) -> str:
        """The command whose reply comes next; empty: none."""
        return self._wire.expected[0][0] if self._wire.expected else ""

    @property
    def phase(self) -> Phase:
        """Which deadline holds while the next reply is awaited."""
        return PHASES.get(self.awaited, Phase.COMMAND)

    @property
    def is_over(self) -> bool:
        """Whether the session ended: by the peer, the network, or a broken rule."""
        return self._broken is not None

    @property
    def is_sending(self) -> bool:
        """Whether content is being sent and its last block was not given out yet."""
        return self._exchanges.is_sending

    @property
    def dot_is_next(self) -> bool:
        """Whether content is being sent and the next `data_to_send` carries the final dot."""
        return self._exchanges.dot_is_next

    @property
    def is_usable(self) -> bool:
        """Whether a transaction may be started."""
        return self._broken is None and MAIL in SAYS[self.state]

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is open, owed or left over: QUIT, or silence, fits now."""
        return self.is_usable and self._exchanges.is_idle and not self._reader.has_rest

    # -- what we say -------------------------------------------------------------------------

    def data_to_send(self) -> bytes:
        """What is to be written now; call until empty. Content comes in blocks."""
        self._exchanges.send_block()
        return self._wire.take()

    def hello(self) -> None:
        """Say EHLO; where it is unknown, HELO follows by itself. In LMTP it is LHLO alone."""
        self._say(self._greet, self._ehlo)

    def starttls(self) -> None:
        """Say STARTTLS, offered or not; after its 2yz do the handshake, then `handshake_done`."""
        self._say(STARTTLS, command.STARTTLS_LINE)

    def handshake_done(self) -> None:
        """The path is encrypted; what the peer offered in clear is forgotten (RFC 3207 §4.2)."""
        if self.state is not State.HANDSHAKE:
            raise LocalProtocolError(f"no TLS handshake is due: {self.state.value}")
        self._reader = ReplyReader()
        self._is_private = True
        self.state = State.GREETED

    def authenticate(self, mechanism: sasl.Mechanism) -> None:
        """Say AUTH; LocalProtocolError, and no octet, where the path would show the password."""
        if not self._is_private:
            raise LocalProtocolError(f"AUTH {mechanism.name} refused on a path without TLS")
        initial = mechanism.initial_response()
        encoded = None if initial is None else sasl.encode(initial)
        line = command.auth(mechanism.name, encoded)
        self._mechanism = mechanism
        self._auth_problem = ""
        self._say(AUTH, line, shown=f"AUTH {mechanism.name}{' ***' if encoded else ''}")

    def agree(self, terms: Terms) -> None:
        """What is to hold for the transactions started from now on."""
        self._exchanges.terms = terms

    def forgo_chunking(self) -> None:
        """Send all content by DATA, whatever the peer offers."""
        self.extensions = msgspec.structs.replace(self.extensions, chunking=False)

    def start(self, transaction: Transaction) -> Exchange:
        """Queue a transaction; it is spoken as soon as its turn comes.

        LocalProtocolError where an address cannot stand in a command: nothing is said of it.
        """
        self._check_sayable(MAIL)
        exchange = self._exchanges.start(transaction, self.extensions)
        self._settle_state()
        return exchange

    def send_content(self, exchange: Exchange) -> None:
        """After GoAhead: let `data_to_send` give the content and the final dot."""
        if self._broken is not None:
            raise self._broken.with_traceback(None)
        self._exchanges.send_content(exchange)

    def quit(self) -> None:
        """Say QUIT; whatever is answered, the session is over."""
        self._say(QUIT, command.QUIT_LINE)

    def _say(self, verb: str, line: bytes, shown: str = "") -> None:
        state = self._check_sayable(verb)
        self._wire.say(line, (verb, None, 0))
        self.opening.append(f"> {shown or line[:-2].decode('ascii')}")
        self.state = state

    def _check_sayable(self, verb: str) -> State:
        if self._broken is not None:
            raise self._broken.with_traceback(None)
        state = SAYS[self.state].get(verb)
        if state is None:
            raise LocalProtocolError(f"{verb} cannot be said: {self.state.value}")
        if not self._wire.expected and self._reader.has_rest:
            surplus = RemoteProtocolError("the server sent more than it was asked for")
            self._break(surplus)
            raise surplus
        return state

    # -- from replies to events --------------------------------------------------------------

    def _read_replies(self) -> None:
        expected = self._wire.expected
        while True:
            if expected:
                verb, exchange, index = expected[0]
            elif not self._reader.has_rest:
                return
            elif self.state is State.HANDSHAKE:
                raise RemoteProtocolError("octets in clear behind the reply to STARTTLS")
            else:
                verb, exchange, index = _NOTHING
            reply = self._reader.next_reply(verb)
            if reply is None:
                return
            self.replies_read += 1
            if expected:
                expected.popleft()
                self._hear(verb, exchange, index, reply)
            elif reply.code != 421:
                raise RemoteProtocolError(f"a reply that was not asked for: {reply}")
            if reply.code == 421:
                raise ConnectionLost(f"the server closes the session: {reply}")

    def _hear(self, verb: str, exchange: Exchange | None, index: int, reply: Reply) -> None:
        state = HEARS[verb].get(reply.code // 100)
        if state is None:
            raise RemoteProtocolError(f"{reply.code} is no reply to {verb}")
        if exchange is not None:
            self._exchanges.hear(verb, exchange, index, reply)
            if exchange.stage is Stage.FINISHED:
                self._settle_state()
            return
        self.state = state
        self._note(reply)
        if verb == AUTH:
            self._hear_auth(reply)
            return
        if verb in (EHLO, HELO, LHLO) and not self._hear_hello(verb, reply):
            return
        if state is State.HANDSHAKE:
            self.extensions = NO_EXTENSIONS
        self._events.append(Answered(reply))

    def _settle_state(self) -> None:
        self.state = State.READY if self._exchanges.is_idle else State.TRANSACTION

    def _hear_hello(self, verb: str, reply: Reply) -> bool:
        """Take what the peer offers; False where HELO is tried instead."""
        if reply.is_positive:
            self.server_name = reply.lines[0].partition(" ")[0]
            self.extensions = NO_EXTENSIONS if verb == HELO else parse_extensions(reply)
        elif verb == EHLO and reply.code in EHLO_UNKNOWN:
            self.state = State.GREETED
            self._say(HELO, self._helo)
            return False
        return True

    def _hear_auth(self, reply: Reply) -> None:
        if not reply.is_intermediate:
            if reply.is_positive:
                self._check_server(reply)
            self._events.append(Answered(reply, self._auth_problem))
            return
        if self._auth_problem or self._mechanism is None:
            raise RemoteProtocolError(f"{reply.code} is no reply to a cancelled AUTH")
        try:
            if len(reply.lines) > 1:
                raise ValueError("a challenge of several lines")
            response = self._mechanism.respond(sasl.decode(reply.text))
            line = command.auth_response(sasl.encode(response))
        except (ValueError, LocalProtocolError) as error:
            self._auth_problem = f"AUTH {self._mechanism.name}: {error}"
            line = command.AUTH_CANCEL
        if self._mechanism.refusal:
            self.opening.append(f"! AUTH {self._mechanism.name}: {self._mechanism.refusal}")
        self.opening.append("> *" if self._auth_problem else "> ***")
        self._wire.say(line, (AUTH, None, 0))

    def _check_server(self, reply: Reply) -> None:
        """RemoteProtocolError where a server that says yes to AUTH must not be trusted."""
        if self._auth_problem or self._mechanism is None:
            raise RemoteProtocolError(f"{reply.code} is no reply to a cancelled AUTH")
        try:
            self._mechanism.verify()
        except ValueError as error:
            raise RemoteProtocolError(f"AUTH {self._mechanism.name}: {error}") from None

    def _note(self, reply: Reply) -> None:
        """Add a reply to the opening dialogue; challenges may repeat secrets, so not those."""
        if reply.is_intermediate:
            self.opening.append(f"< {reply.code} ***")
        else:
            self.opening.extend(reply_lines(reply))

    def _break(self, error: RelayError) -> None:
        self._broken = error
        self.state = State.CLOSED
        self._wire.clear()
        self._exchanges.stop()
