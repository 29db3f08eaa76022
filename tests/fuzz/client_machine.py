"""The client's machine against a server that is honest for a while and then is not.

The server is a model of its own: it reads what the machine says as any server would, and keeps
what it answered. While it was honest, the machine's record of each transaction must be the
server's; whatever it says, no dot goes to nobody, nothing follows the end, no password leaks.
"""

import msgspec

from relay.model.credentials import Credentials
from relay.model.errors import LocalProtocolError, RelayError
from relay.smtp import sasl
from relay.smtp.client import Client
from relay.smtp.content import normalize
from relay.smtp.mechanisms import FOR_PASSWORDS
from relay.smtp.states import State
from relay.smtp.transaction import Answered, Exchange, Finished, GoAhead, Transaction
from tests.fuzz import content_encoder, reply_reader
from tests.fuzz.campaign import Target
from tests.fuzz.source import Source

_PASSWORD = "correct horse"
_SECRETS = (b"Y29ycmVjdCBob3JzZQ", sasl.encode(b"\0user\0correct horse"))
_EXTENSIONS = (
    "PIPELINING",
    "CHUNKING",
    "SIZE 100000",
    "SIZE 40",
    "8BITMIME",
    "SMTPUTF8",
    "STARTTLS",
    "AUTH",
)
_PATHS = (
    "ann@gmail.test",
    "bob@gmail.test",
    "jörg@gmail.test",
    '"a b"@gmail.test',
    "x@[192.0.2.1]",
)


class Taken(msgspec.Struct):
    """What the server noted of one transaction: its replies as it meant them."""

    mail: int
    recipients: list[int]
    data: int = 0
    final: int = 0
    content: bytes = b""
    is_chunked: bool = False
    finals: list[int] = []


class Server:
    """Reads commands, answers each; `is_honest` until it says something damaged.

    `asked` counts what it was to answer.
    """

    def __init__(self, source: Source, *, lmtp: bool = False) -> None:
        self._source = source
        self._is_lmtp = lmtp
        self._input = b""
        self._in_content = False
        self._chunk_octets: int | None = None
        self._chunk_is_last = False
        self._knows_bdat = source.chance(0.9)
        self.is_honest = True
        self.is_gone = False
        self.is_private = False
        self.asked = 0
        self.taken: list[Taken] = []
        self._is_open = False
        self.offers_chunking = False
        self._honest = source.chance(0.4)

    def greet(self) -> bytes:
        return self._say(self._code(220, (421, 450, 554)), "mx.test ESMTP")

    def receive(self, octets: bytes) -> bytes:
        """What it answers to what was said."""
        self._input += octets
        said = b""
        while True:
            if self._chunk_octets is not None:
                if len(self._input) < self._chunk_octets:
                    break
                chunk = self._input[: self._chunk_octets]
                self._input = self._input[self._chunk_octets :]
                self._chunk_octets = None
                said += b"" if self.is_gone else self._end_chunk(chunk)
                continue
            end = b"\r\n.\r\n" if self._in_content else b"\r\n"
            before = b"\r\n" if self._in_content else b""
            head, found, rest = (before + self._input).partition(end)
            if not found:
                break
            self._input = rest
            self.asked += 1
            if self._begins_chunk(head):
                continue
            if not self.is_gone:
                said += self._end_content(head) if self._in_content else self._answer(head)
        return said

    def _answer(self, line: bytes) -> bytes:
        assert b"\r" not in line and b"\n" not in line, f"bare line end said: {line!r}"
        if not self.is_private:
            assert not any(secret in line for secret in _SECRETS), "a password in clear"
        verb = line.split(b" ")[0].split(b":")[0].upper()
        if verb in (b"EHLO", b"HELO", b"LHLO"):
            assert (verb == b"LHLO") == self._is_lmtp, "the other protocol's greeting"
            return self._hello(verb)
        if verb == b"MAIL":
            assert not (self._is_open and self.is_honest), "MAIL inside a transaction"
            self.taken.append(Taken(self._code(250, (450, 550, 421)), []))
            self._is_open = self.taken[-1].mail == 250
            return self._say(self.taken[-1].mail)
        if verb == b"RCPT":
            accepts = self.taken[-1].mail == 250
            code = self._code(250, (450, 452, 550, 421)) if accepts else 503
            self.taken[-1].recipients.append(code)
            return self._say(code)
        if verb == b"DATA":
            return self._data()
        if verb == b"BDAT":
            assert not self._is_lmtp, "BDAT in LMTP"
            return self._say(502)
        if verb == b"STARTTLS":
            return self._say(self._code(220, (454,)))
        if verb not in (b"RSET", b"QUIT"):  # AUTH, and the lines of its dialogue
            return self._say(self._source.one((235, 334, 334, 535)), "VXNlcm5hbWU6")
        self._is_open = False
        return self._say(221 if verb == b"QUIT" else 250)

    def _hello(self, verb: bytes) -> bytes:
        code = self._code(250, (421, 450, 502, 554))
        if code != 250 or verb == b"HELO":
            return self._say(code, "mx.test")
        words = [word for word in _EXTENSIONS if self._source.chance(0.6)]
        words = ["AUTH PLAIN LOGIN" if word == "AUTH" else word for word in words]
        self.offers_chunking = "CHUNKING" in words
        lines = ["mx.test", *words]
        octets = "".join(f"250-{word}\r\n" for word in lines[:-1]) + f"250 {lines[-1]}\r\n"
        return self._perhaps_damaged(octets.encode())

    def _data(self) -> bytes:
        taken = self.taken[-1]
        if 250 in taken.recipients:
            taken.data = self._code(354, (451, 554, 421))
        else:  # some servers take the content all the same
            taken.data = self._source.one((503, 354)) if not self._is_lmtp else 503
        self._in_content = taken.data == 354
        return self._say(taken.data)

    def _begins_chunk(self, line: bytes) -> bool:
        """Whether the line is a BDAT that is understood; its octets follow."""
        words = line.split(b" ")
        if self._in_content or words[0] != b"BDAT" or not self._knows_bdat:
            return False
        assert self.offers_chunking or not self.is_honest, "BDAT without CHUNKING"
        self._chunk_octets, self._chunk_is_last = int(words[1]), words[2:] == [b"LAST"]
        return True

    def _end_chunk(self, octets: bytes) -> bytes:
        taken = self.taken[-1]
        taken.is_chunked = True
        if self.is_honest:
            assert 250 in taken.recipients, "a chunk for nobody"
            assert not self._chunk_is_last or octets.endswith(b"\r\n"), "half a line at the end"
            bare = octets.replace(b"\r\n", b"")
            assert b"\n" not in bare and b"\r" not in bare[1:-1], "a bare line end in a chunk"
        if taken.final:  # a chunk before it was refused
            return self._say(503)
        taken.content += octets
        code = self._code(250, (450, 552, 554, 421))
        if self._chunk_is_last or code != 250:
            taken.final = code
            self._is_open = False
        return self._say(code)

    def _end_content(self, octets: bytes) -> bytes:
        self._in_content = self._is_open = False
        taken = self.taken[-1]
        lines = octets.removeprefix(b"\r\n").split(b"\r\n") if octets else []
        taken.content = b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)
        if self.is_honest and taken.content:
            assert 250 in taken.recipients, "content for nobody"
        if self._is_lmtp:
            return self._answer_each(taken)
        taken.final = self._code(250, (450, 552, 554, 421))
        return self._say(taken.final)

    def _answer_each(self, taken: Taken) -> bytes:
        """LMTP: one reply for each accepted recipient, none after a 421."""
        said = b""
        for _ in range(taken.recipients.count(250)):
            taken.final = self._code(250, (450, 552, 554, 421))
            taken.finals.append(taken.final)
            said += self._say(taken.final)
            if self.is_gone:
                break
        self.asked += max(len(taken.finals) - 1, 0)
        return said

    def _code(self, usual: int, others: tuple[int, ...]) -> int:
        return usual if self._source.chance(0.85) else self._source.one(others)

    def _say(self, code: int, text: str = "2.0.0 as you say") -> bytes:
        self.is_gone = code == 421
        return self._perhaps_damaged(f"{code} {text}\r\n".encode())

    def _perhaps_damaged(self, octets: bytes) -> bytes:
        if self._honest or self._source.chance(0.9):
            return octets
        kind = self._source.below(4)
        if kind == 0:
            damaged = self._source.mutated(octets, reply_reader.WORDS)
        elif kind == 1:
            damaged = octets + reply_reader.reply(self._source)
        elif kind == 2:
            damaged = reply_reader.stream(self._source)
        else:
            damaged = b""
        self.is_honest = self.is_honest and damaged == octets
        return damaged


class Caller:
    """Uses the machine as the session does: opens, sends its transactions, quits."""

    def __init__(self, source: Source, *, lmtp: bool = False) -> None:
        self._source = source
        self.client = Client("relay.test", block_octets=source.one((8, 60, 131_072)), lmtp=lmtp)
        self._left = [_transaction(source) for _ in range(1 + source.below(3))]
        self._wants_tls = source.chance(0.3)
        self._mechanism: sasl.Mechanism | None = None
        if source.chance(0.3):
            credentials = Credentials("user", _PASSWORD)
            self._mechanism = source.one(tuple(FOR_PASSWORDS.values()))(
                credentials, sasl.NO_CHANNEL
            )
        self.exchanges: list[Exchange] = []
        self.finished: list[Exchange] = []
        self.broken: RelayError | None = None

    def listen(self) -> None:
        """Act on every event there is."""
        try:
            while (event := self.client.next_event()) is not None:
                self._act(event)
        except LocalProtocolError:
            self.client.receive_eof()  # the caller gives the connection up
        except RelayError as error:
            assert self.client.is_over
            self.broken = error

    def _act(self, event: Answered | GoAhead | Finished) -> None:
        if isinstance(event, GoAhead):
            if self._left and self._source.chance(0.7):
                self._start()
            self.client.send_content(event.exchange)
        elif isinstance(event, Finished):
            assert event.exchange not in self.finished
            self.finished.append(event.exchange)
            if len(self.finished) == len(self.exchanges):
                self._go_on()
        else:
            self._answered(event)

    def _answered(self, event: Answered) -> None:
        if event.reply.command == "QUIT" or self.client.state is State.HANDSHAKE:
            return
        if event.reply.command == "greeting" and event.reply.is_positive:
            self.client.hello()
        elif self.client.state is State.READY:
            self._go_on()
        else:
            self.client.quit()

    def _go_on(self) -> None:
        client = self.client
        if not client.is_usable:
            return
        if self._wants_tls:
            self._wants_tls = False
            client.starttls()
        elif self._mechanism is not None:
            mechanism, self._mechanism = self._mechanism, None
            client.authenticate(mechanism)
        elif self._left:
            self._start()
        else:
            client.quit()

    def _start(self) -> None:
        self.exchanges.append(self.client.start(self._left.pop(0)))


class ClientMachineTarget(Target):
    name = "client-machine"

    def check(self, source: Source) -> None:
        lmtp = source.chance(0.2)
        caller, server = Caller(source, lmtp=lmtp), Server(source, lmtp=lmtp)
        heard = server.greet()
        for _ in range(60):
            for segment in source.cut(heard):
                caller.client.receive(segment)
                if source.chance(0.5):
                    caller.listen()
            caller.listen()
            if caller.client.state is State.HANDSHAKE:
                heard = self._encrypt(caller, server)
                continue
            said = _written(caller.client)
            if caller.client.is_over or not (said or heard):
                break
            heard = server.receive(said)
        caller.client.receive_eof()
        caller.listen()
        # The greeting is not asked for, nor is a 421; a reply too many ends it.
        assert caller.client.replies_read <= server.asked + 2, "more replies than questions"
        _check_end(caller)
        _check_outcomes(caller, server)

    def _encrypt(self, caller: Caller, server: Server) -> bytes:
        caller.client.handshake_done()
        server.is_private = True
        caller.client.hello()
        return server.receive(_written(caller.client))


def _transaction(source: Source) -> Transaction:
    octets = content_encoder.content(source)
    paths = [source.one(_PATHS) for _ in range(1 + source.below(4))]
    if source.chance(0.02):
        paths.append(source.text(20))
    return Transaction(
        reverse_path=source.one(("news@example.org", "")),
        forward_paths=tuple(paths),
        content=normalize(octets),
        is_8bit=source.chance(0.5),
    )


def _written(client: Client) -> bytes:
    said = b""
    while data := client.data_to_send():
        said += data
    return said


def _check_end(caller: Caller) -> None:
    """After the end the machine is silent and deaf."""
    client = caller.client
    assert client.is_over and caller.broken is not None
    client.receive(b"250 ok\r\n")
    assert client.data_to_send() == b"" and not client.is_usable
    try:
        client.next_event()
    except RelayError as again:
        assert again is caller.broken
    else:
        raise AssertionError("the end is not told again")


def _check_outcomes(caller: Caller, server: Server) -> None:
    for exchange in caller.exchanges:
        if exchange.final is not None and exchange.final.is_positive:
            assert exchange.dot_sent
            assert exchange.mail is not None and exchange.mail.is_positive
            is_asked = exchange.data is not None and exchange.data.is_intermediate
            assert is_asked or exchange.is_chunked
            assert any(reply is not None and reply.is_positive for reply in exchange.recipients)
    if server.is_honest:
        _check_same(caller.exchanges, server.taken)


def _check_same(exchanges: list[Exchange], taken: list[Taken]) -> None:
    """An honest server and the machine tell the same of each transaction."""
    asked = [one for one in exchanges if not one.is_local]
    assert len(taken) <= len(asked)
    for exchange, noted in zip(asked, taken, strict=False):
        codes = [reply.code for reply in exchange.recipients if reply is not None]
        assert exchange.mail is None or exchange.mail.code == noted.mail
        assert codes == noted.recipients[: len(codes)]
        assert exchange.data is None or exchange.data.code == noted.data
        finals = [reply.code for reply in exchange.finals if reply is not None]
        assert finals == noted.finals[: len(finals)]
        if exchange.final is not None:
            assert exchange.final.code == noted.final
            if exchange.final.is_positive:
                assert noted.content == _ended(exchange.transaction.content)


def _ended(octets: bytes) -> bytes:
    return octets if not octets or octets.endswith(b"\r\n") else octets + b"\r\n"
