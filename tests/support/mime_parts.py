"""What Python's `email` makes of a message: the same parts, whatever their transfer encoding."""

import email
from email.message import Message

_MAY_DIFFER = ("content-transfer-encoding", "mime-version")


def assert_same_parts(before: bytes, after: bytes) -> None:
    """Both messages have the same fields and the same parts, which decode to the same octets.

    Fields may have been added; what is in a `message/global` may be encoded as a whole.
    """
    old = email.message_from_bytes(before)
    assert facts(email.message_from_bytes(after), old) == facts(old)


def facts(part: Message, before: Message | None = None) -> tuple[object, ...]:
    """What a part is: its type, its fields, its octets or its parts; fields that `before` has."""
    names = (part if before is None else before).keys()
    known = {name.lower() for name in names if name.lower() not in _MAY_DIFFER}
    fields = [(name, value) for name, value in part.raw_items() if name.lower() in known]
    kind = part.get_content_type()
    if kind.startswith("message/global"):
        return kind, fields
    if not part.is_multipart():
        return kind, fields, part.get_payload(decode=True)
    inner: list[Message] = part.get_payload()  # type: ignore[assignment]
    others: list[Message] = inner if before is None else before.get_payload()  # type: ignore[assignment]
    return kind, fields, [facts(one, other) for one, other in zip(inner, others, strict=True)]
