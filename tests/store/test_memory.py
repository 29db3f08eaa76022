"""What a queued message costs in Redis: 1.2 x its content and 600 octets a recipient, no more."""

import asyncio
import base64
import os

import pytest

from relay.model.address import parse_address
from relay.model.ids import new_queue_id
from relay.model.message import Submission
from relay.store.queue import Store

#: Enough that what the 100 queues cost by themselves (about 400 KB) is little for each.
MESSAGES = 8000


def submission(number: int, octets: int) -> Submission:
    body = base64.encodebytes(os.urandom(octets * 3 // 4)).replace(b"\n", b"\r\n")
    path = parse_address(f"reader{number}@domain{number % 100}.example.test")
    return Submission(
        queue_id=new_queue_id(),
        reverse_path=parse_address("news@example.org"),
        forward_paths=(path,),
        destinations=(path.domain,),
        content=b"From: <news@example.org>\r\nSubject: hi\r\n\r\n" + body,
        message_id=f"<{number}.abcdefgh@example.org>",
    )


async def used_memory(store: Store) -> int:
    """What Redis uses, but for the buffers of clients: ours shrinks when the server finds time."""
    fields = dict(
        line.split(":", 1)
        for line in (await store.wire.call("INFO", "memory")).decode().splitlines()
        if ":" in line
    )
    return int(fields["used_memory"]) - int(fields["mem_clients_normal"])


#: The smallest is what the header alone comes to that every door writes.
@pytest.mark.parametrize("octets", [400, 1_000, 2_000, 10_000])
async def test_queued_message_costs_its_content_and_600_octets_a_recipient(
    store: Store, octets: int
) -> None:
    submissions = [submission(number, octets) for number in range(MESSAGES)]
    content = sum(len(item.content) for item in submissions) / MESSAGES
    before = await used_memory(store)
    for start in range(0, MESSAGES, 100):
        await asyncio.gather(*map(store.accept, submissions[start : start + 100]))
    each = (await used_memory(store) - before) / MESSAGES
    print(f"{octets} octets: {each:.0f} a message, events included")
    assert each <= 1.2 * content + 600
