"""Figures of all processes: each report counts once, and the dead leave their sums behind."""

import pytest

from relay.model.errors import StoreUnavailable
from relay.model.state import State
from relay.store.ages import AgeSweep
from relay.store.codec import pack_nested
from relay.store.meters import MeterReporter, read_figures
from relay.store.queue import Store
from relay.telemetry.meter import Meter
from tests.store import mail


def reporter(store: Store, meter: Meter, role: str = "worker") -> MeterReporter:
    return MeterReporter(meter, role, lambda: store)


async def test_what_processes_count_is_added_up(store: Store) -> None:
    meters = [Meter(), Meter()]
    reporters = [reporter(store, meter) for meter in meters]
    for _ in range(2):
        for meter, each in zip(meters, reporters, strict=True):
            meter.count("session", "google")
            meter.observe("look_up", 0.02, "MX", "found")
            await each.report()
    figures = await read_figures(store)
    assert figures.counts["session"] == {("google",): 4}
    histogram = figures.histograms["look_up"]["MX", "found"]
    assert (sum(histogram.buckets), histogram.sum_s) == (4, pytest.approx(0.08))
    assert len(figures.processes) == 2
    assert {process["role"] for process in figures.processes} == {"worker"}
    assert all(process["rss"] > 0 and process["cpu_s"] > 0 for process in figures.processes)


async def test_report_whose_answer_was_lost_counts_once(store: Store) -> None:
    meter = Meter()

    class Lossy:
        """The store, whose answer to the first report does not come."""

        lost = False

        def __call__(self) -> Store:
            if not self.lost:
                self.lost = True
                raise StoreUnavailable("gone")
            return store

    meter.count("session", "google")
    each = MeterReporter(meter, "worker", Lossy())
    await each.report()
    meter.count("session", "google")
    await each.report()
    await each.report()
    assert (await read_figures(store)).counts["session"] == {("google",): 2}
    request = {"process": "P", "number": 1, "live_ms": 9000, "info": pack_nested({})}
    counts = {"session|google": 5}
    for expected in (1, 0):
        assert await store.scripts.call("meter", {**request, "counts": counts}) == expected
    assert (await read_figures(store)).counts["session"] == {("google",): 7}


async def test_many_series_are_reported_in_several_calls(store: Store) -> None:
    meter = Meter()
    for number in range(1200):
        meter.count("lint", number)
    await reporter(store, meter).report()
    assert len((await read_figures(store)).counts["lint"]) == 1200


async def test_process_that_is_gone_leaves_its_sums(store: Store) -> None:
    meter = Meter()
    meter.count("session", "google")
    await reporter(store, meter).report()
    await mail.shift(store, 31)
    await reporter(store, Meter(), "http").report()
    figures = await read_figures(store)
    assert figures.counts["session"] == {("google",): 1}
    assert [process["role"] for process in figures.processes] == ["http"]


async def test_calls_to_the_store_are_timed(store: Store) -> None:
    await store.accept(mail.submission("ann@one.test"))
    await reporter(store, store.meter).report()
    figures = await read_figures(store)
    assert sum(figures.histograms["script"][("accept",)].buckets) == 1


async def test_sweep_finds_the_oldest_by_state_and_provider(store: Store) -> None:
    work = await mail.worker(store, lease_s=100_000)
    lanes = {"one.test": mail.lane_of("one"), "two.test": mail.lane_of("two")}
    await work.routed("one.test", lanes["one.test"], b"google", fresh_s=100_000)
    await work.routed("two.test", lanes["two.test"], b"", fresh_s=100_000)
    old, late = "00000000A00000000000", "00000000B00000000000"
    ids = {old: 0.01, late: 0.011}  # seconds of the epoch, by the ids' first nine characters
    for name in (old, late):
        await store.accept(mail.submission("a@one.test", "b@two.test", queue_id=name))
    claim = await work.claim(lanes["two.test"], limit=1, octets=1 << 20)
    await mail.settle(work, mail.outcomes_of(claim, State.DEFERRED, delay_s=60))
    await store.hold(f"{late}.1")
    sweep = AgeSweep(lambda: store, lambda record: record.decode())
    await sweep.step(store)
    assert await store.ages() == {
        ("ready", "google"): ids[old],
        ("held", "google"): ids[late],
        ("deferred", "other"): ids[old],
        ("ready", "other"): ids[late],
    }
    await store.cancel(old)
    await sweep.step(store)
    assert await store.ages() == {
        ("held", "google"): ids[late],
        ("ready", "other"): ids[late],
    }


async def test_sweep_goes_through_all_queues_a_few_at_a_time(store: Store) -> None:
    oldest = "00000000100000000000"
    await store.accept(mail.submission("a@d299.test", queue_id=oldest))
    for number in range(300):
        await store.accept(mail.submission(f"a@d{number:03d}.test"))
    sweep = AgeSweep(lambda: store, lambda record: "")
    await sweep.step(store)
    assert await store.ages() == {}
    await sweep.step(store)
    assert await store.ages() == {("ready", "other"): pytest.approx(0.001)}


async def test_oldest_message_is_known_though_a_younger_one_is_due_sooner(store: Store) -> None:
    old, young = "00000000A00000000000", "00000000B00000000000"
    await store.accept(mail.submission("a@one.test", queue_id=old))
    await store.accept(mail.submission("b@one.test", queue_id=young, expires_after_s=60.0))
    assert (await store.counters())["oldest"] == 0.01
