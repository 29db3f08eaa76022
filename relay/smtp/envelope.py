"""An envelope as commands, with what the peer offers; and when it is not worth saying.

SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), DSN (RFC 3461), REQUIRETLS (RFC 8689).
"""

import msgspec

from relay.model.reply import Reply
from relay.smtp import command
from relay.smtp.command import MAIL
from relay.smtp.content import has_8bit_header, has_nul
from relay.smtp.extensions import Extensions
from relay.smtp.transaction import Transaction


class Terms(msgspec.Struct, frozen=True):
    """What of the session decides besides the peer's offers.

    `needs_8bitmime`: 8-bit content goes only where 8BITMIME is offered; else as it is, as everybody
    does; who wants it converted does that beforehand (`smtp.seven_bit`). `is_verified`: the path is
    encrypted and the peer proved its name.
    """

    needs_8bitmime: bool = False
    is_verified: bool = False


def local_refusal(transaction: Transaction, extensions: Extensions, terms: Terms) -> Reply | None:
    """Our own reply to MAIL where asking the peer is pointless; nothing goes on the wire."""
    limit = extensions.size_limit
    if limit is not None and _declared_octets(transaction) > limit:
        octets = _declared_octets(transaction)
        text = f"message of {octets} octets exceeds the limit of {limit} that the host announces"
        return Reply(552, "5.3.4", (text,), MAIL)
    if not extensions.smtputf8 and _is_utf8(transaction):
        text = "message needs SMTPUTF8, which the host does not offer"
        return Reply(553, "5.6.7", (text,), MAIL)
    if terms.needs_8bitmime and transaction.is_8bit and not extensions.eight_bit_mime:
        return _without_8bitmime(transaction.content)
    if transaction.requires_tls and not (terms.is_verified and extensions.requiretls):
        what = "offer REQUIRETLS" if terms.is_verified else "prove its name under TLS"
        text = f"message is to travel under TLS all the way, and the host does not {what}"
        return Reply(550, "5.7.30", (text,), MAIL)
    if has_nul(transaction.content):
        return Reply(554, "5.6.0", ("message contains NUL, which SMTP cannot carry",), MAIL)
    return None


def _without_8bitmime(content: bytes) -> Reply:
    if has_8bit_header(content):
        text = "message has 8-bit header fields, and the host does not offer SMTPUTF8"
        return Reply(553, "5.6.7", (text,), MAIL)
    text = "message has 8-bit content, and the host does not offer 8BITMIME"
    return Reply(554, "5.6.3", (text,), MAIL)


def envelope(transaction: Transaction, extensions: Extensions) -> list[bytes]:
    """MAIL with what the peer offers and the message needs, then RCPT…, then DATA."""
    dsn = transaction.dsn if extensions.dsn else None
    smtputf8 = extensions.smtputf8 and _is_utf8(transaction)
    has_size = extensions.size and not transaction.is_enquiry
    mail = command.mail(
        transaction.reverse_path,
        size=_declared_octets(transaction) if has_size else None,
        is_8bit=transaction.is_8bit and extensions.eight_bit_mime,
        smtputf8=smtputf8,
        ret=dsn.ret if dsn is not None else "",
        envid=dsn.envid if dsn is not None else "",
        requiretls=transaction.requires_tls,
    )
    if dsn is not None and dsn.recipients:
        rcpts = [
            command.rcpt_with_dsn(path, asked, smtputf8=smtputf8)
            for path, asked in zip(transaction.forward_paths, dsn.recipients, strict=True)
        ]
        return [mail, *rcpts, command.DATA_LINE]
    return [mail, *map(command.rcpt, transaction.forward_paths), command.DATA_LINE]


def _is_utf8(transaction: Transaction) -> bool:
    if transaction.needs_smtputf8 or not transaction.reverse_path.isascii():
        return True
    return any(not path.isascii() for path in transaction.forward_paths)


def _declared_octets(transaction: Transaction) -> int:
    content = transaction.content
    ending = 0 if not content or content.endswith(b"\n") else 2
    return max(transaction.size, len(content) + ending)
