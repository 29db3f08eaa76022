"""The Python door: `Relay` and `AsyncRelay` with only Redis running."""

import multiprocessing
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay import AsyncRelay, Attachment, Mailbox, Message, Relay
from relay.model.errors import (
    ConfigError,
    IdempotencyConflict,
    NotFound,
    StoreUnavailable,
    SubmissionRefused,
)
from relay.settings.schema import Delivery, Mode, Settings, Up
from relay.store.queue import Store
from tests.support.redis_server import RedisServer

HELLO = Message(from_="News <news@example.org>", to="ann@gmail.test", subject="hi", text="hello")
SETTINGS = Settings(delivery=Delivery(mode=Mode.SINK, hostname="relay.example"))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def test_sync_client_sends_and_looks(redis: RedisServer) -> None:
    with Relay(redis.url, settings=SETTINGS) as relay:
        receipt = relay.send(HELLO)
        assert receipt.accepted == 1 and not receipt.replayed
        view = relay.message(receipt.id)
        assert view.ingress == "python" and view.recipients[0].address == "ann@gmail.test"
        assert relay.message(f"{receipt.id}.1") == view
        with pytest.raises(NotFound):
            relay.message("01J00000000000000000")


async def test_async_client_sends_and_looks(redis: RedisServer) -> None:
    async with AsyncRelay(redis.url, settings=SETTINGS) as relay:
        receipt = await relay.send(
            Message(
                from_=Mailbox("news@example.org", "Ünï"),
                to=[Mailbox("ann@gmail.test"), "Bob <bob@x.test>"],
                cc="c@x.test",
                text="t",
                html="<p>t</p>",
                attachments=[Attachment(filename="a.pdf", content=b"%PDF")],
                expires_at=datetime.now(UTC) + timedelta(hours=1),
                mail_class="bulk",
            )
        )
        view = await relay.message(receipt.id)
        assert len(view.recipients) == 3 and view.mail_class == "bulk"
        assert 3500 < view.expires - view.created < 3601


async def test_finished_message_is_sent_as_it_is(redis: RedisServer) -> None:
    content = b"From: a@example.org\nTo: ann@gmail.test\n\nhello\n"
    async with AsyncRelay(redis.url, settings=SETTINGS) as relay:
        receipt = await relay.send_raw(content)
        assert receipt.recipients[0].address == "ann@gmail.test"
        receipt = await relay.send_raw(content, sender="", recipients=["bob@x.test"])
        assert (await relay.message(receipt.id)).reverse_path == ""


def test_idempotency_key_sends_once(redis: RedisServer) -> None:
    with Relay(redis.url, settings=SETTINGS) as relay:
        first = relay.send(HELLO, idempotency_key="k")
        second = relay.send(HELLO, idempotency_key="k")
        assert second.replayed and second.id == first.id
        other = Message(from_="a@b.test", to="c@d.test", text="other")
        with pytest.raises(IdempotencyConflict):
            relay.send(other, idempotency_key="k")


def test_refusal_carries_every_fault(redis: RedisServer) -> None:
    wrong = Message(from_="news", to=["ann@"], subject="a\nb", text="t")
    with Relay(redis.url, settings=SETTINGS) as relay, pytest.raises(SubmissionRefused) as refused:
        relay.send(wrong)
    assert [finding.field for finding in refused.value.findings] == ["from", "to[0]", "subject"]


def test_client_is_shared_by_threads(redis: RedisServer) -> None:
    ids: list[str] = []
    with Relay(redis.url, settings=SETTINGS) as relay:
        threads = [
            threading.Thread(target=lambda: ids.extend(relay.send(HELLO).id for _ in range(20)))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(ids)) == 100


def test_client_works_in_a_forked_child(redis: RedisServer) -> None:
    with Relay(redis.url, settings=SETTINGS) as relay:
        relay.send(HELLO)
        context = multiprocessing.get_context("fork")
        answers = context.SimpleQueue()
        child = context.Process(target=lambda: answers.put(relay.send(HELLO).id))
        child.start()
        assert relay.message(answers.get()).status == "ready"
        child.join(10)
        assert child.exitcode == 0
        assert relay.send(HELLO).id
        answers.close()


def test_client_goes_on_after_a_restart_of_redis_and_after_close(redis: RedisServer) -> None:
    relay = Relay(redis.url, settings=SETTINGS)
    first = relay.send(HELLO)
    redis.kill()
    with pytest.raises(StoreUnavailable):
        relay.send(HELLO)
    redis.start()
    assert relay.message(first.id).id == first.id
    relay.close()
    assert relay.send(HELLO).id
    relay.close()


async def test_mode_is_that_in_which_the_store_is_used(redis: RedisServer) -> None:
    unsaid = Settings(delivery=Delivery(hostname="relay.example"))
    async with AsyncRelay(redis.url, settings=unsaid) as relay:
        with pytest.raises(ConfigError, match="no mode yet"):
            await relay.send(HELLO)
        await (await Store.connect(redis.url, "sink")).close()
        await relay.send(HELLO)
        await (await Store.connect(redis.url, "live")).close()
    async with AsyncRelay(redis.url, settings=unsaid) as relay:
        with pytest.raises(ConfigError, match="both modes"):
            await relay.send(HELLO)


def test_redis_of_relay_up_is_found_by_its_data_folder(tmp_path: Path) -> None:
    settings = Settings(delivery=Delivery(hostname="h.test"), up=Up(data_dir=str(tmp_path)))
    with Relay(settings=settings) as relay, pytest.raises(StoreUnavailable, match="relay up"):
        relay.send(HELLO)
    folder = tmp_path / "sink"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    (folder / "redis.sock").symlink_to(server.socket)
    try:
        with Relay(mode="sink", settings=settings) as relay:
            assert relay.send(HELLO).accepted == 1
    finally:
        server.stop()
