"""Messages made 7-bit for hosts without 8BITMIME, large ones beside the loop."""

import asyncio

import msgspec
import structlog

from relay.delivery.sign import LARGE
from relay.model.message import ClaimedMessage
from relay.settings.schema import Delivery
from relay.smtp.seven_bit import CannotConvert, to_7bit

_log = structlog.get_logger("relay.content")


async def in_7bit(message: ClaimedMessage, rules: Delivery) -> ClaimedMessage | None:
    """The message, which has no signature of ours, in 7-bit form; None: it stays as it is."""
    try:
        if len(message.content) > LARGE:
            content = await asyncio.to_thread(_convert, message.content, rules)
        else:
            content = _convert(message.content, rules)
            await asyncio.sleep(0)
    except CannotConvert as cannot:
        _log.info("content.not_converted", queue_id=message.queue_id, text=f"{cannot}")
        return None
    return msgspec.structs.replace(message, content=content, size=len(content), is_8bit=False)


def _convert(content: bytes, rules: Delivery) -> bytes:
    return to_7bit(content, may_break_signatures=rules.convert_signed)
