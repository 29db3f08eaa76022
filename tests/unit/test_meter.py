"""What a process counts arrives as it was counted, once, and in bounds."""

import pytest

from relay.telemetry import meter as meters
from relay.telemetry.meter import FAMILIES, Meter, read_fields


def test_counts_are_drained_once() -> None:
    meter = Meter()
    for _ in range(3):
        meter.count("reply", 250, "2.0.0", "google")
    meter.count("reply", 451, "none", "other")
    counts, _ = read_fields(meter.drain())
    assert counts == {"reply": {("250", "2.0.0", "google"): 3, ("451", "none", "other"): 1}}
    assert meter.drain() == {}


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.002, 0), (0.0021, 1), (60.0, 13), (1e6, 15)]
)
def test_observation_falls_into_the_bucket_whose_bound_it_does_not_exceed(
    seconds: float, bucket: int
) -> None:
    meter = Meter()
    meter.observe("attempt", seconds, "connect")
    _, histograms = read_fields(meter.drain())
    histogram = histograms["attempt"][("connect",)]
    assert len(histogram.buckets) == len(FAMILIES["attempt"].bounds) + 1
    assert [index for index, number in enumerate(histogram.buckets) if number] == [bucket]
    assert histogram.sum_s == pytest.approx(seconds)


def test_increments_of_several_drains_add_up() -> None:
    meter = Meter()
    total: dict[str, int] = {}
    for seconds in (0.001, 0.2, 0.2):
        meter.observe("look_up", seconds, "MX", "found")
        for field, by in meter.drain().items():
            total[field] = total.get(field, 0) + by
    _, histograms = read_fields(total)
    histogram = histograms["look_up"]["MX", "found"]
    assert sum(histogram.buckets) == 3
    assert histogram.sum_s == pytest.approx(0.401)


def test_separator_in_a_label_does_not_break_the_field() -> None:
    meter = Meter()
    meter.count("lint", "a|b")
    assert read_fields(meter.drain())[0] == {"lint": {("a_b",): 1}}


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "SERIES_MAX", 10)
    meter = Meter()
    for number in range(50):
        meter.count("lint", number)
        meter.observe("script", 0.1, number)
    counts, histograms = read_fields(meter.drain())
    assert len(counts["lint"]) == len(histograms["script"]) == 10


def test_fields_of_another_version_are_left_out() -> None:
    strange = {"nonsense|x": 1, "lint": 1, "lint|a|b": 1, "attempt|connect|99": 1, "lint|ok": 2}
    counts, histograms = read_fields(strange)
    assert counts == {"lint": {("ok",): 2}}
    assert sum(histograms["attempt"][("connect",)].buckets) == 0


def test_gauges_go_up_and_down_and_vanish_at_zero() -> None:
    meter = Meter()
    meter.change("connections", "google", 1)
    meter.change("connections", "google", 1)
    meter.change("connections", "google", -1)
    assert meter.gauges == {("connections", "google"): 1}
    meter.change("connections", "google", -1)
    assert meter.gauges == {}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_family_has_a_prefix_a_unit_where_it_times_and_rising_bounds(
    family: meters.Family,
) -> None:
    assert family.metric.startswith("relay_")
    assert family.metric.endswith("_seconds") == bool(family.bounds)
    assert list(family.bounds) == sorted(set(family.bounds))
    assert family.text.endswith(".")
