"""Lists come in pages, and a page is bounded by what it looks at, not only by what it shows."""

from itertools import chain

import pytest

from relay.store import reader
from relay.store.queue import Store
from relay.store.views import MessageFilter, QueueMatch
from tests.store import mail


async def pages(store: Store, which: MessageFilter, *, limit: int) -> list[list[str]]:
    """Ids of every page, as a client follows the cursors."""
    found, cursor = [], ""
    while True:
        page, cursor = await store.messages(which, limit=limit, cursor=cursor)
        found.append([view.id for view in page])
        if not cursor:
            return found


async def test_page_of_a_filter_that_few_fit_ends_early_and_is_followed_by_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LOOKED_AT", 20)
    rare = [mail.submission("ann@one.test", campaign="rare") for _ in range(3)]
    for position, submission in enumerate(rare):
        for _ in range(10 * position + 10):
            await store.accept(mail.submission("bob@two.test"))
        await store.accept(submission)

    found = await pages(store, MessageFilter(campaign="rare"), limit=50)
    assert sorted(chain(*found)) == sorted(one.queue_id for one in rare)
    assert len(found) == 7  # 63 messages of one recipient, 10 of them a page
    everything = await pages(store, MessageFilter(), limit=5)
    assert len(set(chain(*everything))) == 63
    assert max(map(len, everything)) == 5


async def test_message_with_more_recipients_than_a_page_looks_at_is_shown_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LOOKED_AT", 20)
    large = [mail.submission(*(f"r{n}@one.test" for n in range(120))) for _ in range(2)]
    for submission in large:
        await store.accept(submission)
    found = await pages(store, MessageFilter(), limit=50)
    assert [len(page) for page in found] == [1, 1]
    (view,) = (await store.messages(MessageFilter(), limit=1))[0]
    assert [item.address for item in view.recipients] == [f"r{n}@one.test" for n in range(120)]


async def test_queues_are_the_first_by_name_up_to_the_limit(store: Store) -> None:
    await store.accept(mail.submission(*(f"ann@d{n:03}.test" for n in range(120))))
    shown = await store.queues(QueueMatch(), limit=70)
    assert [view.destination for view in shown] == [f"d{n:03}.test" for n in range(70)]
    assert [view.ready for view in shown] == [1] * 70
