"""Plays a written SMTP dialogue against the machine, three ways.

A script has a line for each line on the wire, `S:` what the server says, `C:` what we must say,
and `TLS` where the handshake takes place. What we say is compared octet by octet. The ways:

- `replies`: the server waits for each command and answers it in one segment;
- `octets`: the same, in segments of one octet;
- `merged`: the server stays silent while we have anything to say, then says all it can at once.
"""

import textwrap
from collections.abc import Sequence

import msgspec
import pytest

from relay.model.credentials import Credentials
from relay.model.errors import RelayError
from relay.model.reply import Reply
from relay.smtp.client import Client
from relay.smtp.content import BLOCK_OCTETS
from relay.smtp.mechanisms import choose_mechanism
from relay.smtp.sasl import Mechanism
from relay.smtp.transaction import Answered, Exchange, Finished, GoAhead, Transaction

WAYS = ("replies", "octets", "merged")


class Played(msgspec.Struct, kw_only=True):
    """What came of a script."""

    client: Client
    answers: list[Reply]
    problems: list[str]
    exchanges: list[Exchange]
    finished: list[Exchange]
    broken: RelayError | None
    said: bytes


class Talker:
    """The caller of the machine: opens, runs all transactions, quits."""

    def __init__(
        self,
        *,
        transactions: Sequence[Transaction] = (),
        starttls: bool = False,
        credentials: Credentials | None = None,
        mechanism: Mechanism | None = None,
        is_private: bool = False,
        lmtp: bool = False,
        pipelines_next: bool = False,
        block_octets: int = BLOCK_OCTETS,
        quits: bool = True,
    ) -> None:
        self.client = Client(
            "relay.test", is_private=is_private, block_octets=block_octets, lmtp=lmtp
        )
        self.transactions = list(transactions)
        self.starttls = starttls
        self.credentials = credentials
        self.mechanism = mechanism
        self.pipelines_next = pipelines_next
        self.quits = quits
        self.answers: list[Reply] = []
        self.problems: list[str] = []
        self.exchanges: list[Exchange] = []
        self.finished: list[Exchange] = []
        self.broken: RelayError | None = None

    def listen(self) -> None:
        """Act on every event there is."""
        while self.broken is None:
            try:
                event = self.client.next_event()
            except RelayError as error:
                self.broken = error
                return
            if event is None:
                return
            try:
                self._act(event)
            except RelayError:
                if not self.client.is_over:
                    raise

    def _act(self, event: Answered | GoAhead | Finished) -> None:
        if isinstance(event, GoAhead):
            if self.pipelines_next and self.transactions:
                self.exchanges.append(self.client.start(self.transactions.pop(0)))
            self.client.send_content(event.exchange)
        elif isinstance(event, Finished):
            self.finished.append(event.exchange)
            if len(self.finished) == len(self.exchanges):
                self._next()
        else:
            self._answered(event)

    def _answered(self, event: Answered) -> None:
        reply = event.reply
        self.answers.append(reply)
        self.problems.append(event.problem)
        if reply.command == "QUIT":
            return
        if reply.command == "greeting" and reply.is_positive:
            self.client.hello()
        elif reply.command == "STARTTLS" and reply.is_positive:
            pass  # the script says when
        elif reply.command in ("greeting", "EHLO", "HELO", "LHLO") and not reply.is_positive:
            self._quit()
        elif self.starttls:
            self.starttls = False
            self.client.starttls()
        elif self.credentials is not None or self.mechanism is not None:
            self._authenticate()
        else:
            self._next()

    def _authenticate(self) -> None:
        credentials, self.credentials = self.credentials, None
        mechanism, self.mechanism = self.mechanism, None
        if mechanism is None:
            assert credentials is not None
            mechanism = choose_mechanism(self.client.extensions.auth, credentials)
        self.client.authenticate(mechanism)

    def _next(self) -> None:
        if not self.client.is_usable:
            return
        if self.transactions:
            self.exchanges.append(self.client.start(self.transactions.pop(0)))
            self.listen()
        else:
            self._quit()

    def _quit(self) -> None:
        if self.quits:
            self.quits = False
            self.client.quit()

    def handshake_done(self) -> None:
        self.client.handshake_done()
        self.client.hello()


def parse(script: str) -> list[tuple[str, bytes]]:
    """(who, octets) of each line; `\\xNN` and the like are read as in Python."""
    steps: list[tuple[str, bytes]] = []
    for line in textwrap.dedent(script).strip("\n").split("\n"):
        if not line.strip():
            continue
        who, _, text = line.strip(" ").partition(":")
        if who not in ("S", "C", "S!", "TLS", "EOF"):
            raise ValueError(f"not a line of a script: {line!r}")
        text = text.removeprefix(" ")
        octets = text.encode("latin-1").decode("unicode_escape").encode("latin-1")
        if who == "S!":  # no line end is added
            steps.append(("S", octets))
        else:
            steps.append((who, octets + b"\r\n"))
    return steps


def play(script: str, way: str, talker: Talker) -> Played:
    """Play a script to its end; AssertionError where we say anything else than written."""
    steps = parse(script)
    said = b""
    at = 0  # octets of `said` that the script has confirmed
    index = 0
    while True:
        talker.listen()
        while data := talker.client.data_to_send():
            said += data
        while index < len(steps) and steps[index][0] == "C":
            expected = steps[index][1]
            heard = said[at : at + len(expected)]
            if not said[at:] and talker.broken is not None:
                break
            assert heard == expected, f"line {index + 1} of the script: {said[at:]!r}"
            at += len(expected)
            index += 1
        if index >= len(steps):
            break
        who = steps[index][0]
        if who == "C":
            raise AssertionError(f"never said: {steps[index][1]!r}")
        if who == "TLS":
            talker.handshake_done()
            index += 1
        elif who == "EOF":
            talker.client.receive_eof()
            index += 1
        else:
            index = _server_speaks(steps, index, way, talker)
    assert said[at:] == b"", f"said beyond the script: {said[at:]!r}"
    return Played(
        client=talker.client,
        answers=talker.answers,
        problems=talker.problems,
        exchanges=talker.exchanges,
        finished=talker.finished,
        broken=talker.broken,
        said=said,
    )


def _server_speaks(steps: list[tuple[str, bytes]], index: int, way: str, talker: Talker) -> int:
    octets = b""
    while index < len(steps) and steps[index][0] == "S":
        octets += steps[index][1]
        index += 1
        if way != "merged" and octets.endswith(b"\n"):
            line = octets.rsplit(b"\n", 2)[-2].rsplit(b"\n")[-1]
            if line[3:4] != b"-":
                break
    if way == "octets":
        for octet in octets:
            talker.client.receive(bytes([octet]))
            talker.listen()
    else:
        talker.client.receive(octets)
    return index


three_ways = pytest.mark.parametrize("way", WAYS)


def transaction(
    *forward_paths: str,
    content: bytes = b"Subject: x\r\n\r\nhello\r\n",
    reverse_path: str = "a@relay.test",
    **more: object,
) -> Transaction:
    """A small transaction, to `b@mx.test` unless said."""
    return msgspec.structs.replace(
        Transaction(reverse_path, forward_paths or ("b@mx.test",), content), **more
    )


__all__ = [
    "Played",
    "Talker",
    "parse",
    "play",
    "three_ways",
    "transaction",
]
