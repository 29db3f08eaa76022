"""At maxmemory nothing is accepted, and everything that is there can be delivered."""

from collections import Counter
from pathlib import Path

import pytest

from relay.model.errors import StoreFull
from relay.store.audit import audit
from relay.store.queue import Store
from tests.store.mail import submission
from tests.store.road import drain
from tests.support.redis_server import RedisServer


async def test_full_store_refuses_mail_and_delivers_all_it_has(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, max_memory="8mb")
    redis.start()
    store = await Store.connect(redis.url, "sink", watermark=1.0)
    sent: Counter[str] = Counter()
    accepted: set[str] = set()
    try:
        with pytest.raises(StoreFull):
            for number in range(100_000):
                mail = submission(f"reader{number}@d{number % 20}.test", content=b"x" * 900)
                receipt = await store.accept(mail)
                accepted.update(item.id for item in receipt.recipients)
        assert len(accepted) > 500
        assert await audit(store) == []
        await drain(store, sent)
        assert set(sent) == accepted
        assert set(sent.values()) == {1}
        assert await audit(store) == []
        await store.accept(submission("late@d1.test"))
    finally:
        await store.close()
        redis.stop()


async def test_watermark_refuses_before_memory_is_full(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, max_memory="8mb")
    redis.start()
    store = await Store.connect(redis.url, "sink", watermark=0.1)
    try:
        with pytest.raises(StoreFull, match="memory limit"):
            await store.accept(submission("ann@d1.test"))
    finally:
        await store.close()
        redis.stop()
