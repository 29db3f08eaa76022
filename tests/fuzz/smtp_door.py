"""Sessions of hostile clients with the SMTP listener: each reply is one, none is a crash.

The real session, submitter and gate; the socket is replaced by memory, for speed (the listener
on sockets has its own tests), and what is accepted stays in memory too.
"""

import asyncio
import re
from pathlib import Path
from typing import Any

from relay.ingress.gate import Gate
from relay.ingress.smtp_session import SubmissionSession
from relay.ingress.smtp_transaction import Surroundings
from relay.ingress.submit import Submitter
from relay.model.dsn import Dsn
from relay.model.message import Submission
from relay.policy.route import RouteTable
from relay.settings.schema import Delivery, Limits, Settings, Smtp
from relay.smtp import command
from relay.smtp.content import is_normal
from relay.smtp.reply_reader import ReplyReader
from tests.fuzz.campaign import Target
from tests.fuzz.source import Source
from tests.support.acceptor import MemoryAcceptor

_LIMIT = 2000
_COMMANDS = (
    b"EHLO client.test",
    b"HELO client.test",
    b"MAIL FROM:<a@example.org>",
    b"MAIL FROM:<a@example.org> SIZE=100 BODY=8BITMIME SMTPUTF8",
    b"MAIL FROM:<>",
    b"MAIL FROM:<a@example.org> RET=FULL ENVID=QQ+2B17",
    b" NOTIFY=SUCCESS,DELAY",
    b" ORCPT=rfc822;",
    b"+2B",
    b"RCPT TO:<ann@gmail.test> NOTIFY=NEVER ORCPT=rfc822;ann@gmail.test",
    b"RCPT TO:<ann@gmail.test>",
    b'RCPT TO:<"a b"@gmail.test>',
    "RCPT TO:<jörg@müller.test>".encode(),
    b"RCPT TO:<@a,@b:c@d.test>",
    b"RCPT TO:<postmaster>",
    b"DATA",
    b"RSET",
    b"NOOP",
    b"VRFY ann",
    b"HELP",
    b"EXPN x",
    b"BDAT 5 LAST",
    b"AUTH PLAIN AHgAeA==",
    b"STARTTLS",
    b"QUIT",
    b"GET / HTTP/1.1",
)
_FIELDS = (
    b"From: a@example.org",
    b"Subject: x",
    b"To: ann@gmail.test",
    b"Bcc: eve@gmail.test",
    b"Received: by x",
    b"Message-ID: <1@x>",
    b"Date: Thu, 1 Jan 2026 00:00:00 +0000",
    b"X-Relay-Campaign: c",
    b"X-Relay-Metadata-Key: v",
    b"X-Relay-Expires: 1h",
    b"List-Unsubscribe: <mailto:x>",
    b" folded",
    b"no field",
    b"",
)
WORDS = (*_COMMANDS, b"\r\n", b"\n", b"\r", b"\0", b".\r\n", b"<", b">", b'"', b"\\", b"\xff", b"@")
_REPLY = re.compile(rb"(?:[245]\d\d-[ -~]*\r\n)*(?:[2345]\d\d [ -~]*\r\n)")
#: Nothing that ends a line, for whom ever.
_PATH = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+@[a-z0-9._-]+")
#: Behind these a client waits for the reply (RFC 2920 §3.1).
_MUST_WAIT = re.compile(rb"(?i)(?<=LO client.test\r\n)|(?<=DATA\r\n)")
#: Turns of the loop after which a session has answered all that it has.
_TURNS = 4


class SmtpDoorTarget(Target):
    name = "smtp-door"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._settings = Settings(
            smtp=Smtp(listen=("127.0.0.1:0",), max_recipients=5, max_errors=8),
            delivery=Delivery(hostname="relay.example"),
            limits=Limits(message_size=_LIMIT),
        )

    def open(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._queue = MemoryAcceptor()
        self._sessions: set[SubmissionSession] = set()
        submitter = Submitter(self._settings, self._queue, RouteTable.from_settings(self._settings))
        self._gate = Gate(self._settings.smtp)
        self._around = Surroundings(
            settings=self._settings,
            gate=self._gate,
            submit=submitter.submit,
            hostname=submitter.hostname,
        )
        self._room = self._gate._room

    def close(self) -> None:
        self._loop.close()

    def check(self, source: Source) -> None:
        self._queue.submissions.clear()
        octets = dialogue(source)
        said = self._loop.run_until_complete(self._converse(source, octets))
        assert _REPLY.sub(b"", said) == b"", said
        _check_replies(said, octets)
        for submission in self._queue.submissions:
            _check_submission(submission)
        assert said.count(b" queued as ") == len(self._queue.submissions)
        assert not self._sessions and self._gate.connections == 0
        assert self._gate._room == self._room

    async def _converse(self, source: Source, octets: bytes) -> bytes:
        session = _Session(self._around, self._sessions)
        transport = _Transport(session)
        session.connection_made(transport)
        await _settle()  # who speaks before the greeting is told so in its own tests
        for turn in _turns(source, octets):
            for segment in source.cut(turn):
                session.data_received(segment)
                if source.chance(0.3):
                    await _settle()
            await _settle()
            if transport.is_closing():
                break
        if not transport.is_closing():
            session.eof_received()
        async with asyncio.timeout(10):
            await session._handler_coroutine
        transport.close()
        await asyncio.sleep(0)
        if session.crash is not None:
            raise session.crash
        return bytes(transport.said)


class _Session(SubmissionSession):
    """Keeps what the session would only log."""

    crash: Exception | None = None

    async def failed(self, error: Exception) -> str:
        self.crash = error
        return await super().failed(error)


class _Transport(asyncio.Transport):
    """A connection in memory: keeps what is written."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 4711)})
        self._protocol = protocol
        self._closing = False
        self.said = bytearray()

    def write(self, data: Any) -> None:
        if not self._closing:
            self.said += data

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def _settle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _turns(source: Source, octets: bytes) -> list[bytes]:
    """The octets as a client sends them that waits where it must; some do not."""
    if source.chance(0.15):
        return [octets]
    return [turn for turn in _MUST_WAIT.split(octets) if turn]


def dialogue(source: Source) -> bytes:
    """What a client says: a dialogue that mostly makes sense, then damaged."""
    parts = [b"EHLO client.test\r\n"]
    for _ in range(1 + source.below(3)):
        if source.chance(0.7):
            parts.append(_transaction(source))
        parts += [source.one(_COMMANDS) + b"\r\n" for _ in range(source.size(6))]
    octets = b"".join(parts)
    if source.chance(0.75):
        octets = source.mutated(octets, WORDS)
    if source.chance(0.05):
        octets += source.octets(300)
    if source.chance(0.01):
        octets += source.one(WORDS) * source.below(3000)
    return octets


def _transaction(source: Source) -> bytes:
    fields = [source.one(_FIELDS) for _ in range(source.size(6))]
    body = source.one((b"hi", b".", b"..", b"", b"x" * 1500, b"\xc3\xa4", source.telling(30)))
    content = b"\r\n".join([*fields, b"", body])
    recipients = [source.one(_COMMANDS[5:10]) for _ in range(1 + source.below(3))]
    lines = [source.one(_COMMANDS[2:5]), *recipients, b"DATA"]
    return b"\r\n".join([*lines, content.replace(b"\r\n.", b"\r\n.."), b".", b""])


def _check_replies(said: bytes, octets: bytes) -> None:
    """Replies that a client can read, at most one for each line, the greeting and a last word."""
    reader = ReplyReader()
    reader.feed(said)
    count = 0
    while reader.next_reply("RCPT") is not None:
        count += 1
    assert not reader.has_rest
    assert 1 <= count <= octets.count(b"\n") + 2
    assert all(len(line) <= 510 for line in said.split(b"\r\n"))


def _check_submission(submission: Submission) -> None:
    """What was accepted can be sent: nothing bare, no field of ours forged, clean addresses."""
    content = submission.content
    assert is_normal(content) and content.endswith(b"\r\n")
    assert content.startswith(b"Received: from ")
    header = content.partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nbcc:" not in header and b"\r\nx-relay-" not in header
    assert len(content) <= _LIMIT + 1500
    assert 1 <= len(submission.forward_paths) <= 5
    for path in (submission.reverse_path, *submission.forward_paths):
        assert path is None or _PATH.fullmatch(str(path))
    if submission.dsn is not None:
        _check_dsn(submission, submission.dsn)


def _check_dsn(submission: Submission, dsn: Dsn) -> None:
    """What was asked of reports goes on as one command a recipient, nothing more."""
    lines = [command.mail("a@b.test", ret=dsn.ret, envid=dsn.envid)]
    assert len(dsn.recipients) in (0, len(submission.forward_paths))
    lines += [command.rcpt_with_dsn("a@b.test", asked) for asked in dsn.recipients]
    for line in lines:
        assert line.count(b"\r\n") == 1 and line.endswith(b"\r\n") and line.isascii()
        assert line.count(b" ") <= 3 and len(line) <= 700 and line.isascii()
