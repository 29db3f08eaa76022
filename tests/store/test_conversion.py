"""Mail for a host without 8BITMIME: what becomes 7-bit, its signatures, and what is remembered."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import dkim
import msgspec
import pytest

from relay.delivery.context import Context
from relay.delivery.directory import load_directory
from relay.delivery.lanes import Lanes
from relay.delivery.load import Load, load_of
from relay.delivery.sign import LARGE
from relay.model.message import ClaimedMessage, ClaimedRecipient
from relay.net.resolver import Resolver
from relay.settings.schema import Delivery, DkimKey, Mode, Settings, Without8BitMime
from relay.smtp.dkim_key import make_key
from relay.store.limits import Taken
from relay.store.queue import Store
from relay.store.settler import Settler
from tests.store import mail

HEADER = b"From: a@example.org\r\nSubject: hi\r\nContent-Type: text/plain; charset=utf-8\r\n"
CONTENT = HEADER + b"\r\nFor G\xc3\xbcnther and his many friends\r\n"
ENCODED = b"\r\n\r\nFor G=C3=BCnther and his many friends\r\n"
SIGNED_BY_OTHERS = b"DKIM-Signature: v=1; d=other.test\r\n" + CONTENT
KEY = make_key("example.org", "e1", "ed25519")


class Lease(msgspec.Struct):
    """One that was just renewed."""

    age_s: float = 0.0


async def _serve_nothing(_lane: str) -> Taken:
    return Taken("idle")


@contextlib.asynccontextmanager
async def context_of(store: Store, folder: Path, **delivery: object) -> AsyncIterator[Context]:
    """What sessions share, with a key of example.org."""
    path = folder / "e1.pem"
    path.touch(mode=0o600)
    path.write_bytes(KEY.pem())
    settings = Settings(
        delivery=Delivery(mode=Mode.SINK, hostname="relay.example", **delivery),  # type: ignore[arg-type]
        dkim_keys=(DkimKey(domain="example.org", selector="e1", file=str(path)),),
    )
    work = await mail.worker(store)
    resolver = Resolver.from_settings(settings)
    settler = Settler(work, on_fenced=lambda: None)
    lanes = Lanes(settings.worker, _serve_nothing)
    context = Context(load_directory(settings, resolver), work, settler, Lease(), lanes)
    try:
        yield context
    finally:
        await settler.stop(within_s=1)
        await resolver.aclose()


def loads(content: bytes = CONTENT, **more: object) -> list[Load]:
    """One message for two recipients, each in a transaction of his own."""
    message = ClaimedMessage(
        queue_id="0" * 20,
        reverse_path="news@example.org",
        recipients=tuple(
            ClaimedRecipient(number, f"r{number}@x.test", "x.test", 1, 0, "q") for number in (1, 2)
        ),
        content=content,
        size=len(content),
        created=0.0,
        expires=1e10,
        message_id="<1@x.test>",
        mail_class="bulk",
        tenant="default",
        campaign="",
        is_8bit=True,
        **more,  # type: ignore[arg-type]
    )
    return [load_of(message, (recipient,)) for recipient in message.recipients]


def assert_verified(load: Load) -> None:
    assert dkim.verify(
        load.transaction.content, dnsfunc=lambda name, timeout=5: KEY.record.encode()
    )


async def test_what_was_signed_for_another_host_is_converted_and_signed_anew(
    store: Store, tmp_path: Path
) -> None:
    async with context_of(store, tmp_path) as context:
        room, both = context.content_room(), loads()
        for load in both:
            context.hold(load)
        await context.sign(both)
        before = both[0].transaction
        assert before.is_8bit and before.content.endswith(CONTENT)
        assert await context.convert(both) == both
        await context.sign(both)
        for load in both:
            assert not load.transaction.is_8bit and load.transaction.content.isascii()
            assert load.transaction.content.endswith(ENCODED)
            assert load.transaction.content.count(b"DKIM-Signature:") == 1
            assert load.transaction.size == len(load.transaction.content)
            assert_verified(load)
            again = load.of(load.recipients)
            assert again.unsigned.content.startswith(b"From:")
            assert await context.convert([again]) == []
            context.let_go(load)
        assert context.content_room() == room


async def test_message_of_several_transactions_is_converted_once(
    store: Store, tmp_path: Path
) -> None:
    async with context_of(store, tmp_path) as context:
        first, second = await context.convert(loads())
        assert first.message is second.message
        assert store.meter.drain()["conversion|yes"] == 1


async def test_large_message_is_converted_like_a_small_one(store: Store, tmp_path: Path) -> None:
    content = HEADER + b"\r\n" + b"many words in a line, and \xc3\xbc\r\n" * 6000
    assert len(content) > LARGE
    async with context_of(store, tmp_path) as context:
        both = await context.convert(loads(content))
        await context.sign(both)
        assert both[0].transaction.content.count(b"=C3=BC\r\n") == 6000
        assert_verified(both[0])


@pytest.mark.parametrize("rule", list(Without8BitMime))
async def test_setting_decides_whether_content_is_converted(
    store: Store, tmp_path: Path, rule: Without8BitMime
) -> None:
    async with context_of(store, tmp_path, without_8bitmime=rule) as context:
        made = await context.convert(loads())
        assert bool(made) is (rule in ("convert", "convert-or-refuse"))


async def test_what_another_has_signed_stays_8bit_and_is_looked_at_once(
    store: Store, tmp_path: Path
) -> None:
    async with context_of(store, tmp_path) as context:
        both = loads(SIGNED_BY_OTHERS)
        assert await context.convert(both) == [] == await context.convert(both)
        assert both[0].transaction.content == SIGNED_BY_OTHERS and both[0].transaction.is_8bit
        assert await context.convert([both[0].of(both[0].recipients)]) == []
        assert store.meter.drain()["conversion|no"] == 1


async def test_what_another_has_signed_is_converted_where_that_is_wanted(
    store: Store, tmp_path: Path
) -> None:
    async with context_of(store, tmp_path, convert_signed=True) as context:
        assert len(await context.convert(loads(SIGNED_BY_OTHERS))) == 2


async def test_what_needs_smtputf8_is_not_converted_for_a_host_that_cannot_take_it(
    store: Store, tmp_path: Path
) -> None:
    async with context_of(store, tmp_path) as context:
        assert await context.convert(loads(needs_smtputf8=True)) == []
