"""A mail transaction as a value, and the record of how the peer answered it (RFC 5321 §3.3)."""

from enum import Enum

import msgspec

from relay.model.dsn import Dsn
from relay.model.reply import Reply


class Transaction(msgspec.Struct, eq=False):
    """What one MAIL…DATA exchange carries; `key` belongs to the caller.

    `reverse_path` is empty for the null reverse-path. `content` has CRLF line ends and no
    dot-stuffing; `size` is what SIZE= declares (RFC 1870), 0 means the length of the content.
    `dsn` is said where the peer offers DSN (RFC 3461 §5.2.1).
    `is_enquiry`: it ends with the replies to RCPT; DATA is never said, nothing is sent.
    `requires_tls`: it goes only to who keeps it under TLS (RFC 8689).
    """

    reverse_path: str
    forward_paths: tuple[str, ...]
    content: bytes
    size: int = 0
    is_8bit: bool = False
    needs_smtputf8: bool = False
    requires_tls: bool = False
    dsn: Dsn | None = None
    is_enquiry: bool = False
    key: object = None


class Stage(Enum):
    """How far a transaction has come on its connection."""

    QUEUED = "nothing of it was written"
    ENVELOPE = "MAIL, RCPT or DATA is not answered yet"
    GO_AHEAD = "a recipient is accepted, and 354 was read: the content may be sent"
    CONTENT = "the content is being written"
    DOT_SENT = "the final dot was written"
    FINISHED = "nothing more will come"


class Exchange(msgspec.Struct, eq=False):
    """The replies to one transaction so far, by the command that they answer.

    `recipients[i]` answers `transaction.forward_paths[i]`; None was not answered, or not asked.
    `is_local`: `mail` is our own judgement, the peer was not asked. `lines` are the commands of
    the envelope: MAIL, one RCPT a recipient, DATA. `is_chunked`: the content goes by BDAT, so there
    is no DATA and no `data`; `dot_sent` then means the last chunk.
    `finals[i]`, in LMTP only, is what became of the content for recipient i (RFC 2033 §4.2); then
    `final` is there once all of them are answered, or where the content was refused before its end.
    """

    transaction: Transaction
    lines: list[bytes]
    recipients: list[Reply | None]
    stage: Stage = Stage.QUEUED
    mail: Reply | None = None
    data: Reply | None = None
    final: Reply | None = None
    is_local: bool = False
    is_chunked: bool = False
    dot_sent: bool = False
    accepted: int = 0
    finals: list[Reply | None] = []


class Answered(msgspec.Struct, frozen=True):
    """Event: the peer answered the greeting, EHLO, HELO, STARTTLS, AUTH or QUIT.

    `problem`: why we broke off AUTH; the reply is then that to our `*`.
    """

    reply: Reply
    problem: str = ""


class GoAhead(msgspec.Struct, frozen=True, eq=False):
    """Event: the content of this exchange may be sent."""

    exchange: Exchange


class Finished(msgspec.Struct, frozen=True, eq=False):
    """Event: nothing more will come for this exchange."""

    exchange: Exchange


Event = Answered | GoAhead | Finished
