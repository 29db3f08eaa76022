"""A mail transaction as a value, and the record of how the peer answered it (RFC 5321 §3.3)."""

from enum import StrEnum

import msgspec

from relay.model.reply import Reply


class Transaction(msgspec.Struct, eq=False):
    """What one MAIL…DATA exchange carries; `key` belongs to the caller.

    `reverse_path` is empty for the null reverse-path. `content` has CRLF line ends and no
    dot-stuffing; `size` is what SIZE= declares (RFC 1870), 0 means the length of the content.
    """

    reverse_path: str
    forward_paths: tuple[str, ...]
    content: bytes
    size: int = 0
    is_8bit: bool = False
    needs_smtputf8: bool = False
    key: object = None


class Stage(StrEnum):
    """How far a transaction has come on its connection."""

    QUEUED = "queued"  # nothing of it was written
    ENVELOPE = "envelope"  # MAIL, RCPT, DATA: some are not answered yet
    GO_AHEAD = "go-ahead"  # 354 read, a recipient accepted: the content may be sent
    CONTENT = "content"  # part of the content was written, not the final dot
    DOT_SENT = "dot-sent"  # the final dot was written
    FINISHED = "finished"  # nothing more will come


class Exchange(msgspec.Struct, eq=False):
    """The replies to one transaction so far, by the command that they answer.

    `recipients[i]` answers `transaction.forward_paths[i]`; None was not answered, or not asked.
    `is_local`: `mail` is our own judgement, the peer was not asked.
    """

    transaction: Transaction
    recipients: list[Reply | None]
    stage: Stage = Stage.QUEUED
    mail: Reply | None = None
    data: Reply | None = None
    final: Reply | None = None
    is_local: bool = False
    dot_sent: bool = False
    accepted: int = 0
    unanswered: int = 0
    sent: int = 0  # commands of the envelope written so far
