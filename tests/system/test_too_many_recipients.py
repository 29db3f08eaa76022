"""A receiver takes only some recipients at once: the rest go in the next transaction, at once."""

from collections import Counter

import pytest

from tests.support.system import System
from tests.system.conftest import Start

BY_A_SMARTHOST = """
[[routes]]
domain = ".partner.test"
smarthost = "smtp://domains2.announced.out.test:{smtp_port}"
"""


@pytest.mark.client_row("C71")
async def test_recipients_over_the_receivers_limit_go_at_once_in_further_transactions(
    system: System,
) -> None:
    addresses = [f"reader{n}@rcpts10.test" for n in range(25)]
    receipt = await system.submit(addresses)
    await system.until_delivered(receipt)

    seen = system.sink.receipts()
    assert [len(one.forward_paths) for one in seen] == [10, 10, 5]
    assert len({one.session for one in seen}) == 1
    assert {refusal.reply for one in seen for refusal in one.refused} == {
        "452 4.5.3 Too many recipients"
    }
    views = (await system.recipients(receipt)).values()
    assert {(view.attempt, view.step) for view in views} == {(1, 0)}
    assert set(await system.event_counts()) == {"message.accepted", "recipient.delivered"}


@pytest.mark.parametrize("code", ["452 4.5.3", "552 5.5.3"])
@pytest.mark.client_row("C72")
async def test_first_recipient_refused_as_one_too_many_is_deferred_not_looped(
    system: System, code: str
) -> None:
    system.sink.add_fault(
        "shop.test", "RCPT", "reply", reply=f"{code} Too many recipients", count=2
    )
    receipt = await system.submit(["ann@shop.test", "bob@shop.test"])
    await system.until_delivered(receipt)
    assert len(await system.events("recipient.deferred")) == 1
    assert system.sink.counts() == {"ann@shop.test": 1, "bob@shop.test": 1}


async def test_our_own_limit_splits_before_the_receiver_must(start: Start) -> None:
    system = await start(RELAY_FILES_SHAPING='["default"]\nrecipients_per_transaction = 4\n')
    receipt = await system.submit([f"reader{n}@shop.test" for n in range(10)])
    await system.until_delivered(receipt)
    assert [len(one.forward_paths) for one in system.sink.receipts()] == [4, 4, 2]


@pytest.mark.client_row("C32")
async def test_announced_limit_of_recipients_is_kept(system: System) -> None:
    addresses = [f"reader{n}@rcpts1.announced.test" for n in range(5)]
    receipt = await system.submit(addresses)
    await system.until_delivered(receipt)

    seen = system.sink.receipts()
    assert [one.forward_paths for one in seen] == [(address,) for address in addresses]
    assert len({one.session for one in seen}) == 1
    assert [one.refused for one in seen] == [()] * 5
    views = (await system.recipients(receipt)).values()
    assert {(view.attempt, view.step) for view in views} == {(1, 0)}


async def test_announced_limits_of_messages_and_domains_are_kept(start: Start) -> None:
    system = await start(workers=0, RELAY_CONFIG=BY_A_SMARTHOST)
    several = [f"ann@{name}.partner.test" for name in "abcde"]
    receipts = [await system.submit([f"reader{n}@mails2.announced.test"]) for n in range(5)]
    receipts += [await system.submit(several), await system.submit(several[1:3])]
    system.start_worker()
    await system.until_delivered(*receipts)

    seen = system.sink.receipts(domain="mails2.announced.test")
    assert len(seen) == 5
    assert max(Counter(one.session for one in seen).values()) == 2
    relayed = [one for one in system.sink.receipts() if one not in seen]
    domains = Counter(one.session for one in relayed for path in one.forward_paths)
    assert sum(domains.values()) == 7
    for session in domains:
        paths = {path for one in relayed if one.session == session for path in one.forward_paths}
        assert len(paths) <= 2
    assert [one.refused for one in relayed] == [()] * len(relayed)
    assert await system.events("recipient.deferred") == []
