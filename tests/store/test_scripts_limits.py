"""Slots, rates, windows and breakers: what lets a session begin, and what returns when it dies."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.policy import breaker
from relay.policy.window import Window, failed, revived, succeeded
from relay.store.audit import audit
from relay.store.limits import Ceilings, Rate, Report, Taken
from relay.store.queue import Store
from relay.store.work import Work
from tests.store import mail
from tests.support.redis_server import RedisServer

NEAR, FAR, THIRD = (mail.lane_of(site) for site in ("near", "far", "third"))
ONE = Ceilings(slots=(("key", 1),))


@pytest.fixture
async def work(store: Store) -> AsyncIterator[Work]:
    """A worker, three lanes with mail, time standing still."""
    await mail.stop_clock(store)
    work = await mail.worker(store)
    for site in ("near", "far", "third"):
        await work.routed(f"{site}.test", mail.lane_of(site), b"site", fresh_s=10**6)
        for _ in range(5):
            await store.accept(mail.submission(f"a@{site}.test"))
    await work.wanting("default", 50)
    yield work
    assert await audit(store) == []


async def take(work: Work, lane: str, ceilings: Ceilings) -> tuple[str, Taken]:
    token = work.new_token()
    return token, await work.take(lane, token, ceilings)


async def wanting(work: Work) -> list[str]:
    """Lanes that want a session now."""
    p = work.store.p
    now_ms = int(await work.store.now() * 1000)
    names = await work.store.wire.call("ZRANGEBYSCORE", p + "wanting:default", "-inf", now_ms)
    return [raw.decode() for raw in names]


# -- slots ---------------------------------------------------------------------------------------


async def test_session_gets_all_its_slots_or_none(work: Work) -> None:
    both = Ceilings(slots=(("wide", 9), ("key", 1)))
    assert (await take(work, NEAR, both))[1].word == "ok"
    _, refused = await take(work, FAR, both)
    assert (refused.word, refused.key, refused.reason) == ("no", "key", "connection_limit")
    assert await work.store.wire.call("SCARD", work.store.p + "sl:wide") == 1


async def test_lane_without_mail_needs_no_session(work: Work) -> None:
    assert (await take(work, mail.lane_of("nowhere"), ONE))[1].word == "idle"


async def test_waiting_lanes_are_woken_in_the_order_of_their_asking(work: Work) -> None:
    token, _ = await take(work, NEAR, ONE)
    assert (await take(work, FAR, ONE))[1].word == "no"
    await mail.shift(work.store, 1)
    assert (await take(work, THIRD, ONE))[1].word == "no"
    assert (await take(work, FAR, ONE))[1].word == "no"  # asking again keeps its place
    assert await wanting(work) == []
    for lane in (FAR, THIRD):
        await work.release(NEAR if lane == FAR else FAR, token, ONE)
        assert lane in await wanting(work)
        token, taken = await take(work, lane, ONE)
        assert taken.word == "ok"


async def test_waiting_lane_tries_again_by_itself(work: Work) -> None:
    """The one that holds the slot may never release it in time."""
    await take(work, NEAR, ONE)
    await take(work, FAR, ONE)
    await mail.shift(work.store, 5)
    await mail.tick(work)
    assert FAR in await wanting(work)


async def test_refused_lane_that_has_a_session_is_not_put_to_rest(work: Work) -> None:
    """New mail must still find the session that waits for it."""
    await take(work, NEAR, ONE)
    await work.claim(NEAR, limit=50, octets=1 << 20)
    await work.store.accept(mail.submission("a@near.test"))
    assert (await take(work, NEAR, ONE))[1].word == "no"
    assert await wanting(work) == []
    await work.store.accept(mail.submission("a@near.test"))
    assert await wanting(work) == [NEAR]


async def test_mail_asks_for_no_other_session_while_the_first_one_only_opens(work: Work) -> None:
    """A peer that never speaks would get one after another."""
    await take(work, NEAR, ONE)
    await work.store.accept(mail.submission("a@near.test"))
    assert await wanting(work) == []
    await work.claim(NEAR, limit=1, octets=1 << 20)
    assert await wanting(work) == [NEAR], "it opened, and there is more than it claimed"


async def test_session_that_opens_for_long_is_not_waited_for(work: Work) -> None:
    await take(work, NEAR, ONE)
    await mail.shift(work.store, 6)
    await work.store.accept(mail.submission("a@near.test"))
    assert NEAR in await wanting(work)


async def test_released_lane_with_mail_wants_a_session_again(work: Work) -> None:
    token, _ = await take(work, NEAR, ONE)
    await work.release(NEAR, token, ONE)
    assert await wanting(work) == [NEAR]


async def test_slots_lanes_and_probes_of_a_dead_worker_return(work: Work) -> None:
    store = work.store
    await work.report(Report((), (("site", False, "r", "t"),)))
    await mail.shift(store, 16)
    ceilings = Ceilings(slots=(("key", 1),), breakers=("site",))
    assert (await take(work, NEAR, ceilings))[1].probing
    await work.end()
    other = await mail.worker(store)
    await mail.tick(other)
    assert NEAR in await wanting(work)
    assert (await take(other, NEAR, ceilings))[1].probing


async def test_worker_that_is_gone_gets_no_slot_that_would_never_return(work: Work) -> None:
    await work.end()
    assert (await take(work, NEAR, ONE))[1].reason == "lease_lost"
    assert await work.store.wire.call("EXISTS", work.store.p + "sl:key") == 0


async def test_lane_that_was_handed_out_to_nobody_is_handed_out_again(work: Work) -> None:
    assert await work.wanting("default", 50) == []
    await mail.shift(work.store, 6)
    assert sorted(await work.wanting("default", 50)) == sorted((NEAR, FAR, THIRD))


# -- rates ---------------------------------------------------------------------------------------


async def test_connection_rate_is_kept_below_a_second(work: Work) -> None:
    five = Ceilings(slots=(("key", 99),), rates=(Rate("c", 5.0),))
    assert (await take(work, NEAR, five))[1].word == "ok"
    _, refused = await take(work, FAR, five)
    assert refused.reason == "connection_rate"
    assert refused.until == pytest.approx(await work.store.now() + 0.2)
    await mail.shift(work.store, 0.199)
    assert (await take(work, FAR, five))[1].word == "no"
    await mail.shift(work.store, 0.001)
    assert (await take(work, FAR, five))[1].word == "ok"


async def test_burst_is_what_may_come_at_once(work: Work) -> None:
    rate = Ceilings(slots=(("key", 99),), rates=(Rate("c", 1.0, 3),))
    words = [(await take(work, NEAR, rate))[1].word for _ in range(5)]
    assert words == ["ok", "ok", "ok", "no", "no"]
    await mail.shift(work.store, 2)
    assert [(await take(work, NEAR, rate))[1].word for _ in range(3)] == ["ok", "ok", "no"]


async def test_refused_session_uses_up_no_rate(work: Work) -> None:
    both = Ceilings(slots=(("key", 99),), rates=(Rate("wide", 1.0, 2), Rate("c", 1.0)))
    await take(work, NEAR, both)
    for _ in range(5):
        assert (await take(work, NEAR, both))[1].key == "c"
    only_wide = Ceilings(slots=(("key", 99),), rates=(Rate("wide", 1.0, 2),))
    assert (await take(work, NEAR, only_wide))[1].word == "ok"


# -- breakers ------------------------------------------------------------------------------------

SITE = Ceilings(slots=(("key", 99),), breakers=("site",))
BAD = Report((), (("site", False, "no_answer", "it does not answer"),))
GOOD = Report((), (("site", True, "", ""),))


async def test_open_breaker_lets_nobody_through_then_one_probe(work: Work) -> None:
    ((key, word, until),) = await work.report(BAD)
    assert (key, word) == ("site", "open")
    assert until == pytest.approx(await work.store.now() + breaker.BASE_S)
    _, refused = await take(work, NEAR, SITE)
    assert (refused.word, refused.until, refused.reason) == ("no", until, "no_answer")
    await mail.shift(work.store, breaker.BASE_S)
    token, probe = await take(work, NEAR, SITE)
    assert probe == Taken("ok", probing=True)
    assert (await take(work, FAR, SITE))[1].reason == "breaker_probing"
    assert await work.report(GOOD) == [("site", "closed", 0.0)]
    assert (await take(work, FAR, SITE))[1] == Taken("ok")
    await work.release(NEAR, token, SITE)


async def test_probe_that_says_nothing_leaves_its_place_to_another(work: Work) -> None:
    await work.report(BAD)
    await mail.shift(work.store, breaker.BASE_S)
    token, _ = await take(work, NEAR, SITE)
    await work.release(NEAR, token, SITE)
    assert (await take(work, FAR, SITE))[1].probing


async def test_breaker_of_a_lane_opens_only_with_its_last_session(work: Work) -> None:
    """A receiver that refuses the sixth connection works with the other five."""
    of_lane = Report((), BAD.breakers, NEAR)
    first, _ = await take(work, NEAR, SITE)
    await take(work, NEAR, SITE)
    assert await work.report(of_lane) == []
    assert len(await work.report(BAD)) == 1  # it says so itself: a verdict about the site
    await work.report(GOOD)
    await work.release(NEAR, first, SITE)
    assert [word for _, word, _ in await work.report(of_lane)] == ["open"]


def silence(session: str) -> Report:
    return Report((), BAD.breakers, NEAR, session, silent=True)


async def test_silence_opens_once_more_met_it_than_are_on_their_way(work: Work) -> None:
    """Two workers that dial a dead site in turn find it dead, though one is always dialling."""
    first, _ = await take(work, NEAR, SITE)
    second, _ = await take(work, NEAR, SITE)
    changes = [await work.report(silence(token)) for token in (first, second, first, second)]
    assert [[word for _, word, _ in each] for each in changes] == [[], [], ["open"], []]
    await mail.shift(work.store, breaker.BASE_S)
    assert [len(await work.report(silence(first))) for _ in range(3)] == [0, 0, 1]


async def test_success_ends_a_row_of_silences(work: Work) -> None:
    first, _ = await take(work, NEAR, SITE)
    await take(work, NEAR, SITE)
    for _ in range(3):
        assert await work.report(silence(first)) == await work.report(silence(first)) == []
        await work.report(Report((("provider", 1, 20, 5),), (), NEAR, "an ended session"))


async def test_silence_proves_nothing_beside_a_session_that_works(work: Work) -> None:
    first, _ = await take(work, NEAR, SITE)
    second, _ = await take(work, NEAR, SITE)
    await work.report(Report((("key", 1, 20, 5),), (), NEAR, first))
    assert [await work.report(silence(second)) for _ in range(9)] == [[]] * 9
    await work.release(NEAR, first, SITE)
    third, _ = await take(work, NEAR, SITE)
    await work.report(silence(third))
    assert [len(await work.report(silence(second))) for _ in range(2)] == [0, 1]


async def test_session_that_meets_silence_works_no_longer(work: Work) -> None:
    first, _ = await take(work, NEAR, SITE)
    second, _ = await take(work, NEAR, SITE)
    await work.report(Report((("key", 1, 20, 5),), (), NEAR, first))
    for token in (first, second):
        await work.report(silence(token))
    assert len(await work.report(silence(second))) == 1


async def test_breaker_opens_for_longer_each_time_in_a_row(work: Work) -> None:
    lengths = []
    for _ in range(10):
        ((_, _, until),) = await work.report(BAD)
        lengths.append(until - await work.store.now())
        await mail.shift(work.store, lengths[-1])
    assert lengths == pytest.approx([breaker.open_for_s(n) for n in range(1, 11)])


async def test_failures_while_it_is_open_do_not_open_it_for_longer(work: Work) -> None:
    """Twenty sessions that break at once are one trouble."""
    ((_, _, until),) = await work.report(BAD)
    for _ in range(19):
        assert await work.report(BAD) == []
    assert until - await work.store.now() == pytest.approx(breaker.BASE_S)


async def test_breaker_with_a_threshold_counts_failures_in_a_row(work: Work) -> None:
    bad = Report((), BAD.breakers, threshold=3)
    assert [len(await work.report(bad)) for _ in range(2)] == [0, 0]
    await work.report(GOOD)
    assert [len(await work.report(bad)) for _ in range(3)] == [0, 0, 1]


async def test_session_probes_each_breaker_that_is_half_open(work: Work) -> None:
    both = Ceilings(slots=(("key", 99),), breakers=("site", "route"))
    await work.report(Report((), (*BAD.breakers, ("route", False, "auth", "refused"))))
    await mail.shift(work.store, breaker.BASE_S)
    assert (await take(work, NEAR, both))[1].probing
    for key in both.breakers:
        only = Ceilings(slots=(("key", 99),), breakers=(key,))
        assert (await take(work, FAR, only))[1].reason == "breaker_probing"


async def test_breaker_tells_of_its_changes(work: Work) -> None:
    await work.report(BAD)
    await work.report(GOOD)
    await work.report(Report((), (("route:x", False, "auth", "refused"),)))
    types = await mail.event_types(work.store)
    assert types[-3:] == ["site.suspended", "site.resumed", "route.paused"]


# -- windows -------------------------------------------------------------------------------------


async def feed(work: Work, *, successes: int, limit: int, initial: int) -> list[str]:
    """So many attempts in which the site talked, or one in which it did not; what came of it."""
    changes = await work.report(Report((("w", successes, limit, initial),)))
    return [word for _, word, _ in changes]


async def window_of(work: Work) -> Window | None:
    raw = await work.store.wire.call(
        "HMGET", work.store.p + "fb:w", "window", "success", "failure", "cohorts"
    )
    if raw[0] is None:
        return None
    size, success, failure, cohorts = map(float, raw)
    return Window(int(size), success, failure, cohorts)


@given(
    talks=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    together=st.integers(1, 12),
    limit=st.integers(1, 20),
    initial=st.integers(1, 5),
    busy=st.integers(0, 20),
)
@settings(max_examples=40, derandomize=True)
def test_window_is_that_of_the_policy(
    redis_server: RedisServer, talks: list[int], together: int, limit: int, initial: int, busy: int
) -> None:
    async def compare() -> None:
        with redis_server.client() as client:
            client.flushall()
        store = await Store.connect(redis_server.url, "sink")
        work = Work(store, lease_s=100, info={})
        first = min(initial, limit)
        if busy:
            await store.wire.call("SADD", store.p + "sl:w", *range(busy))
        model = revived(initial=first)
        for talk in talks:
            before, good = model.size, talk < (5 if busy % 2 else 1)
            if good:
                for _ in range(together):
                    model = succeeded(model, busy=busy, limit=limit, initial=first)
            else:
                model = failed(model)
            words = await feed(work, successes=good * together, limit=limit, initial=first)
            assert ("open" in words) is model.is_dead
            assert ("wider" in words) is (model.size > before)
            if model.is_dead:
                model = revived(initial=first)
                assert await window_of(work) is None
                await mail.shift(store, 1000)  # it is over before the next
                continue
            stored = await window_of(work)
            assert stored is not None
            assert stored.size == model.size
            assert (stored.success, stored.failure, stored.failed_cohorts) == pytest.approx(
                (model.success, model.failure, model.failed_cohorts)
            )
        await store.close()

    asyncio.run(compare())


async def test_window_bounds_sessions_below_the_ceiling(work: Work) -> None:
    ceilings = Ceilings(slots=(("key", 20),), windows={"key": 2})
    words = [(await take(work, NEAR, ceilings))[1].word for _ in range(3)]
    assert words == ["ok", "ok", "no"]


async def test_dead_window_stops_its_sessions_until_a_probe_gets_through(work: Work) -> None:
    """The breaker of a provider's window is nobody's own: whoever takes by the window heeds it."""
    ceilings = Ceilings(slots=(("key", 20),), windows={"key": 1})
    changes: list[tuple[str, str, float]] = []
    while not changes:
        changes = await work.report(Report((("key", 0, 20, 1),)))
    _, refused = await take(work, NEAR, ceilings)
    assert (refused.word, refused.reason) == ("no", "connections_failed")
    await mail.shift(work.store, breaker.BASE_S)
    token, probe = await take(work, NEAR, ceilings)
    assert probe.probing
    assert ("key", "closed", 0.0) in await work.report(Report((("key", 1, 20, 1),)))
    await work.release(NEAR, token, ceilings)
