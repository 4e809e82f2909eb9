"""The parts of the benchmarks that compute: what they report is right before anybody believes it."""

import json
import os
import random
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from bench import delivery, features, latency, measure, open_loop, throughput, timed_worker
from bench.peers import job
from bench.recovery import a_row, keys
from bench.report import report, show
from engines.null import NullEngine, null_release
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder, Encoder
from streams.partitioning import partition_for
from streams.sources.load import uniform_load
from streams.sources.publisher import Message
from streams.state import UserState
from streams.tasks.recommendation import Recommendation


def test_a_figure_above_its_target_or_not_there_is_missed():
    made = report("x", {"a_us": 1.234, "b_us": 3.0}, {"a_us": 2, "b_us": 2, "c_us": 2})
    assert made["missed"] == ["b_us", "c_us"]
    assert made["a_us"] == 1.23


def test_a_benchmark_prints_one_line_of_json(capsys):
    show("x", {"a_us": 1.0}, {"a_us": 2})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["bench"] == "x"


def test_a_stretch_counts_from_the_first_output_to_the_last():
    counts, cpu = iter([0, 10, 60, 110]), iter([1.0, 3.0])
    found = measure.stretch(lambda: next(counts), lambda: next(cpu), lambda: True, 110, 0.0)
    assert found.events == 100
    assert found.us == pytest.approx(20_000)


def test_a_process_that_ends_early_is_not_measured():
    with pytest.raises(RuntimeError, match="ended at 0 of 1"):
        measure.stretch(lambda: 0, lambda: 0.0, lambda: False, 10, 0.0)


def test_cpu_of_this_process_is_what_the_system_says():
    begun = time.process_time()
    while time.process_time() - begun < 0.05:
        pass
    assert measure.cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.05)
    assert measure.rss_mb(os.getpid()) > 10


def test_ratios_are_headrace_over_each_peer_that_ran():
    assert throughput.ratios({"headrace_us": 30.0, "floor_us": 20.0}) == {"headrace_per_floor": 1.5}


def test_latency_runs_from_due_to_first_seen_and_an_unseen_event_is_infinitely_late():
    times = latency.latencies(
        ["a", "b", "b"], np.array([10.5, 11.25, 99.0]), {"early": 9.0, "a": 10.0, "b": 11.0, "lost": 12.0}, 10.0
    )
    assert times.tolist() == [500.0, 250.0, np.inf]


def test_quantiles_are_values_that_were_seen():
    assert latency.quantiles(np.arange(1.0, 101.0)) == {
        "p50_ms": 51.0,
        "p90_ms": 91.0,
        "p99_ms": 100.0,
        "max_ms": 100.0,
    }


def test_the_crowd_has_late_events_repeats_and_busy_users_on_three_topics():
    sent = list(features.crowd(random.Random(3), 2_000, users=50))
    ids = [event.record["event_id"] for event in sent]
    times = [event.time for event in sent]
    assert len(set(ids)) == 2_000 < len(ids)
    assert {event.topic for event in sent} == {"clicks", "orders", "impressions"}
    assert 100 < sum(one > other for one, other in pairwise(times)) < 500
    busiest = Counter(event.record["user_id"] for event in sent).most_common()
    assert busiest[0][1] > 4 * busiest[len(busiest) // 2][1]
    again = [event for event in sent if ids.count(event.record["event_id"]) > 1]
    assert all(event.record == sent[ids.index(event.record["event_id"])].record for event in again)


def test_messages_for_the_open_loop_come_back_as_they_were(tmp_path):
    messages = [Message("events.clicks", b"user-1", b"\0\0one"), Message("events.orders", b"user-22", b"")]
    open_loop.save(tmp_path / "m.npz", messages, 1000)
    assert open_loop.load(tmp_path / "m.npz") == (messages, 1000.0)


def test_the_job_writes_records_of_the_contracts():
    registry = MemoryRegistry()
    (click,) = [event.record for event in uniform_load(1, 1, 1, (1.0, 0.0, 0.0))]
    score = job.score_record(click, 7, 2_000, 1_000)
    served = job.served_record(score, job.features(b"abc"))
    for name, record in (("recommendation_score", score), ("served", served)):
        assert Decoder(registry, name)(Encoder(registry, name, name)(record))["event_id"] == click["event_id"]
    assert len(served["features"]) == Recommendation.features.itemsize


def test_a_packed_row_of_the_job_is_as_long_as_one_of_the_state():
    row = job.packed_row([job.entry({"event_time": 1, "item_id": "item-1"}, n) for n in range(4)])
    assert len(row) == len(a_row(0))


def test_rows_for_recovery_lie_where_their_users_do_and_can_be_loaded():
    for partition, key in keys(50, 4, block=20):
        assert partition == partition_for(key, 4)
    state = UserState(slots=4)
    state.load(b"user-1", a_row(3))
    assert len(state) == 1


def test_time_in_the_engine_is_written_as_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(NullEngine, "_run", NullEngine._run)
    timed_worker.time_engines(tmp_path / "seconds", [NullEngine])
    engine = NullEngine(null_release("ctr"), precision="none", buckets=(8,), threads=1)
    engine.warm()
    assert timed_worker.read(tmp_path / "seconds") > 0


def test_each_mode_of_delivery_is_told_over_the_default():
    figures = {
        f"{mode}_{what}": 2.0 for mode in delivery.MODES for what in ("us", "per_s", "p50_ms", "p99_ms", "cpu_cores")
    }
    made = delivery.ratios(figures | {"exactly_once_us": 3.0})
    assert made["exactly_once_us_ratio"] == 1.5
    assert made["exactly_once_200ms_p99_ms_ratio"] == 1.0
    assert not any(name.startswith("at_least_once") for name in made)
