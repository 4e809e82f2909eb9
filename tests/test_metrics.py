"""Metrics: recorded by the micro-batch, readable by Prometheus, and forgetting what was revoked."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import streams
from schemas.errors import Fenced
from streams import metrics as metrics_module
from streams.logs import fields
from streams.metrics import LATENCY_BUCKETS, STAGES, Latency, Metrics
from streams.worker import Worker

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def page(metrics: Metrics) -> Samples:
    """The page as Prometheus reads it: (name, labels) -> value."""
    families = text_string_to_metric_families(metrics.page().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"headrace_{name}", frozenset(labels.items())))


def test_every_stage_has_a_histogram_on_the_page() -> None:
    metrics = Metrics()
    for stage in STAGES:
        getattr(metrics, stage).observe(0.002)
    samples = page(metrics)
    assert [value(samples, "stage_seconds_count", stage=stage) for stage in STAGES] == [1.0] * len(STAGES)
    assert value(samples, "stage_seconds_bucket", stage="infer", le="0.0025") == 1.0
    assert value(samples, "stage_seconds_bucket", stage="infer", le="0.001") == 0.0


def test_every_series_is_fed_by_something() -> None:
    """A series that nobody writes says 0 for ever, and that is believed."""
    sources = "".join(path.read_text("utf-8") for path in Path(streams.__path__[0]).rglob("*.py"))
    own = Path(metrics_module.__file__).read_text("utf-8")
    series = {name for name in vars(Metrics()) if not name.startswith("_")} - {"registry"}
    fed = series | {name for name in dir(Metrics) if name.startswith("set_")}
    written = set(re.findall(r"metrics\.(\w+)", sources.replace(own, "")))
    assert fed - written == set()


def test_what_ends_a_worker_is_a_line_that_can_be_counted(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[BaseException] = []
    worker = object.__new__(Worker)
    worker.app = SimpleNamespace(_crash=ended.append)  # type: ignore[assignment]  # the one thing of it that is asked
    error = Fenced("another worker owns the partition", where="state.users[3]")
    worker._crash(error)
    assert ended == [error]
    [record] = caplog.records
    assert (record.levelname, fields(record)) == ("CRITICAL", {"kind": "Fenced"})
    assert "state.users[3]" in record.getMessage()


@given(st.lists(st.lists(st.floats(0, 60), max_size=20), max_size=6))
def test_the_score_latency_histogram_counts_every_score_in_its_bucket(batches: list[list[float]]) -> None:
    metrics = Metrics()
    for batch in batches:
        metrics.latency.observe("fraud", np.array(batch))
    everything = np.array([second for batch in batches for second in batch])
    samples = page(metrics)
    for bound in LATENCY_BUCKETS:
        counted = value(samples, "score_latency_seconds_bucket", task="fraud", le=str(bound))
        assert (counted or 0) == np.sum(everything <= bound)
    assert (value(samples, "score_latency_seconds_count", task="fraud") or 0) == len(everything)
    total = value(samples, "score_latency_seconds_sum", task="fraud") or 0
    assert total == pytest.approx(everything.sum())


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.floats(0, 9, width=32), max_size=30)), max_size=8),
)
def test_recent_samples_are_the_newest_of_the_last_seconds_whatever_the_batches(
    size: int, batches: list[tuple[int, list[float]]]
) -> None:
    window, now, newest = Latency(size, seconds=5), 0, list[tuple[int, float]]()
    for later, batch in batches:
        now += later
        window.add(np.array(batch), now)
        newest = [*newest, *((now, sample) for sample in batch)][-size:]
    assert sorted(window.within(now)) == sorted(sample for at, sample in newest if at > now - 5)


def test_a_task_of_few_events_does_not_show_for_hours_what_it_waited_at_the_start() -> None:
    at = [0.0]
    metrics = Metrics(clock=lambda: at[0])
    metrics.latency.observe("fraud", np.full(500, 30.0))
    at[0] = 59.0
    metrics.latency.observe("fraud", np.full(10, 0.01))
    at[0] = 61.0
    assert value(page(metrics), "score_latency_recent_seconds", task="fraud", quantile="0.99") == pytest.approx(0.01)
    at[0] = 200.0
    assert value(page(metrics), "score_latency_recent_seconds", task="fraud", quantile="0.99") is None


def test_the_page_shows_recent_quantiles_of_each_task() -> None:
    metrics = Metrics()
    metrics.latency.observe("ctr", np.linspace(0.001, 0.1, 100))
    samples = page(metrics)
    assert value(samples, "score_latency_recent_seconds", task="ctr", quantile="0.5") == pytest.approx(0.05, 0.02)
    assert value(samples, "score_latency_recent_seconds", task="ctr", quantile="0.99") == pytest.approx(0.1, 0.02)


def test_lag_of_a_revoked_partition_disappears() -> None:
    metrics = Metrics()
    metrics.set_lag({("events.clicks", 0): 7, ("events.clicks", 1): 9})
    metrics.set_lag({("events.clicks", 1): 3})
    samples = page(metrics)
    assert value(samples, "lag", topic="events.clicks", partition="1") == 3
    assert value(samples, "lag", topic="events.clicks", partition="0") is None


def test_a_partition_that_goes_on_is_no_longer_parked() -> None:
    metrics = Metrics()
    metrics.set_parked([("events.clicks", 2)])
    assert value(page(metrics), "parked", topic="events.clicks", partition="2") == 1
    metrics.set_parked([])
    assert value(page(metrics), "parked", topic="events.clicks", partition="2") is None


def test_a_new_release_replaces_the_one_before() -> None:
    metrics = Metrics()
    metrics.set_releases({"fraud": ("fraud/1", "openvino bf16")})
    metrics.set_releases({"fraud": ("fraud/2", "openvino bf16")})
    samples = page(metrics)
    assert value(samples, "release_info", task="fraud", release="fraud/2", engine="openvino bf16") == 1
    assert value(samples, "release_info", task="fraud", release="fraud/1", engine="openvino bf16") is None


def test_cross_topic_lag_is_event_time_behind_the_foremost_topic() -> None:
    metrics = Metrics()
    metrics.set_newest({"events.clicks": 10_000, "events.orders": 7_500})
    samples = page(metrics)
    assert value(samples, "cross_topic_lag_seconds", topic="events.clicks") == 0
    assert value(samples, "cross_topic_lag_seconds", topic="events.orders") == 2.5


def test_totals_can_be_read_in_the_process_too() -> None:
    metrics = Metrics()
    metrics.dead_letters.labels("truncated").inc(2)
    metrics.dead_letters.labels("oversized").inc()
    metrics.fallbacks.labels("fraud", "deadline").inc(4)
    metrics.duplicates.inc(2)
    assert metrics.total("dead_letters") == {("truncated",): 2.0, ("oversized",): 1.0}
    assert metrics.total("fallbacks") == {("fraud", "deadline"): 4.0}
    assert metrics.total("duplicates") == {(): 2.0}


def test_two_workers_in_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.duplicates.inc()
    assert other.total("duplicates") == {(): 0.0}
