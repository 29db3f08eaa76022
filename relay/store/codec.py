"""Records as they lie in Redis, and content as it is stored.

Records are msgpack arrays whose first element is a version; Lua reads and writes the same ones
(`lua/_common.lua` names the indices). Strings are always valid UTF-8: Lua packs every string as
text.
"""

import json
from typing import Any, Final

import msgspec
import zstandard

from relay.model.dsn import FULL, HEADERS
from relay.model.errors import StoreError
from relay.model.message import Submission
from relay.store.keys import CLASS_LETTER, CLASS_OF_LETTER

RECORD_VERSION: Final = 1

#: Content above this is compressed (zstd level 1: 3-5 times cheaper than level 3 on base64 bodies).
COMPRESS_ABOVE_OCTETS = 1024

FLAG_8BIT, FLAG_SMTPUTF8, FLAG_DSN, FLAG_TRACED = 1, 2, 4, 64
#: RET of MAIL (RFC 3461 §4.3).
FLAG_REQUIRETLS = 32
FLAG_OF_RET = {"": 0, FULL: 8, HEADERS: 16}
_RET_OF_FLAGS = {flag: ret for ret, flag in FLAG_OF_RET.items()}

_PLAIN, _ZSTD = b"\x00", b"\x01"
_compressor = zstandard.ZstdCompressor(level=1)
_decompressor = zstandard.ZstdDecompressor()


class MessageRecord(msgspec.Struct, array_like=True):
    """Field `m` of a message's hash; times in milliseconds."""

    version: int
    reverse_path: str
    tenant: str
    class_letter: str
    campaign: str
    labels: str  # JSON [tags, metadata], "" where both are empty
    message_id: str
    created_ms: float
    expires_ms: float
    notice_ms: float
    size: int
    count: int
    flags: int
    ingress: str

    @property
    def mail_class(self) -> str:
        return CLASS_OF_LETTER.get(self.class_letter, self.class_letter)

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(json.loads(self.labels)[0]) if self.labels else ()

    @property
    def metadata(self) -> dict[str, str]:
        return dict(json.loads(self.labels)[1]) if self.labels else {}

    @property
    def ret(self) -> str:
        return _RET_OF_FLAGS.get(self.flags & 24, "")

    @property
    def requires_tls(self) -> bool:
        """Whether it may travel only under TLS, all the way (RFC 8689)."""
        return bool(self.flags & FLAG_REQUIRETLS)


class StoredMessage(MessageRecord, array_like=True):
    """A message's record as it is read, with what stands at the end of some."""

    envid: str = ""


#: Left of a holder's name when its claim is over (`sign_of` in `lua/_state.lua`).
SIGN_CHARACTERS: Final = 6


class RecipientRecord(msgspec.Struct, array_like=True):
    """A field of a message's hash or bucket: one recipient (see `lua/_common.lua`)."""

    version: int
    state: str
    address: str
    destination: str
    step: int
    claims: int
    attempt: int
    reason: str
    text: str
    due_ms: float
    holder: str
    wish: str
    answer: str = ""
    dsn: str = ""


def message_record(submission: Submission) -> MessageRecord:
    """The record of a submission; the script fills in the three times."""
    labels = ""
    if submission.tags or submission.metadata:
        labels = json.dumps([list(submission.tags), submission.metadata], separators=(",", ":"))
    flags = (
        (FLAG_8BIT if submission.is_8bit else 0)
        | (FLAG_SMTPUTF8 if submission.needs_smtputf8 else 0)
        | (FLAG_DSN if submission.wants_dsn else 0)
        | (FLAG_REQUIRETLS if submission.requires_tls else 0)
        | (FLAG_TRACED if submission.is_traced else 0)
    )
    dsn = submission.dsn
    if dsn is not None:
        flags |= FLAG_OF_RET[dsn.ret]
    record = MessageRecord(
        RECORD_VERSION,
        str(submission.reverse_path or ""),
        submission.tenant,
        CLASS_LETTER[submission.mail_class],
        submission.campaign,
        labels,
        submission.message_id,
        0,
        0,
        0,
        len(submission.content),
        len(submission.forward_paths),
        flags,
        submission.ingress,
    )
    if dsn is None or not dsn.envid:
        return record
    return StoredMessage(**msgspec.structs.asdict(record), envid=dsn.envid)


_encoder = msgspec.msgpack.Encoder()
_message_decoder = msgspec.msgpack.Decoder(StoredMessage)
_recipient_decoder = msgspec.msgpack.Decoder(RecipientRecord)


def pack(value: Any) -> bytes:
    """Any value as msgpack."""
    return _encoder.encode(value)


def pack_nested(value: Any) -> msgspec.Raw:
    """A value packed as a string inside another: Redis' cmsgpack knows no binary type."""
    data = _encoder.encode(value)
    length = len(data)
    if length < 32:
        head = bytes((0xA0 | length,))
    elif length < 1 << 8:
        head = b"\xd9" + length.to_bytes(1, "big")
    elif length < 1 << 16:
        head = b"\xda" + length.to_bytes(2, "big")
    else:
        head = b"\xdb" + length.to_bytes(4, "big")
    return msgspec.Raw(head + data)


def unpack(data: bytes) -> Any:
    """A value from msgpack."""
    return msgspec.msgpack.decode(data)


def decode_message(data: bytes) -> StoredMessage:
    """A message record; StoreError where it cannot be read."""
    try:
        return _message_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise StoreError(f"unreadable message record: {error}") from None


def decode_recipient(data: bytes) -> RecipientRecord:
    """A recipient record; StoreError where it cannot be read."""
    try:
        return _recipient_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise StoreError(f"unreadable recipient record: {error}") from None


def encode_content(content: bytes) -> bytes:
    """Content as stored: a format octet, then the bytes, compressed where that saves."""
    if len(content) > COMPRESS_ABOVE_OCTETS:
        squeezed = _compressor.compress(content)
        if len(squeezed) < len(content):
            return _ZSTD + squeezed
    return _PLAIN + content


def decode_content(stored: bytes) -> bytes:
    """The bytes of stored content; StoreError where they cannot be read."""
    kind, body = stored[:1], stored[1:]
    if kind == _PLAIN:
        return body
    if kind == _ZSTD:
        try:
            return _decompressor.decompress(body)
        except zstandard.ZstdError as error:
            raise StoreError(f"unreadable content: {error}") from None
    raise StoreError(f"unreadable content: unknown format {kind!r}")
