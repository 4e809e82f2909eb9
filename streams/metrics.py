"""What a worker measures of itself, for Prometheus and for the terminal view.
Everything is recorded once per micro-batch: per-event figures come in as arrays."""

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

# `absorb` includes making feature rows. Fetching goes on beside the loop and is of no micro-batch.
STAGES = ("decode", "absorb", "infer", "encode", "produce", "ack", "explain")
# Seconds. A stage of one event takes tens of microseconds, a stalled broker seconds.
STAGE_BUCKETS = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0, 5.0)
LATENCY_BUCKETS = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 4e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
FLUSH_BUCKETS = (5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
QUANTILES = (0.5, 0.99)
RECENT, RECENT_S = 4096, 60.0

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per metric that nobody reads

TopicPartition = tuple[str, int]


class Latency:
    """The samples of the last `seconds`, at most the newest `size`: quantiles of now, not of the process's life.

    Without an age, a task of few events would show for hours what it waited while the worker caught up.
    """

    def __init__(self, size: int = RECENT, seconds: float = RECENT_S) -> None:
        self._ring, self._at = np.zeros(size, dtype=np.float32), np.zeros(size)
        self._seen, self._seconds = 0, seconds

    def add(self, samples: NDArray[np.floating], now: float) -> None:
        """One micro-batch's samples, in the order they happened. now: seconds of any steady clock."""
        size = len(self._ring)
        newest = samples[-size:]
        places = (self._seen + len(samples) - len(newest) + np.arange(len(newest))) % size
        self._ring[places], self._at[places] = newest, now
        self._seen += len(samples)

    def within(self, now: float) -> NDArray[np.float32]:
        """(N,) the samples that count, in no order."""
        count = min(self._seen, len(self._ring))
        return self._ring[:count][self._at[:count] > now - self._seconds]


class ScoreLatency(Collector):
    """Broker's timestamp of the event to acknowledgement of its score, by task: a histogram and quantiles."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[str, tuple[NDArray[np.int64], NDArray[np.float64], Latency]] = {}
        self._bounds = np.array(LATENCY_BUCKETS)

    def observe(self, task: str, seconds: NDArray[np.floating]) -> None:
        """(N,) latencies of one micro-batch."""
        counts, total, window = self._of(task)
        places = np.searchsorted(self._bounds, seconds, side="left")  # a bucket holds its upper bound
        counts += np.bincount(places, minlength=len(counts))
        total += seconds.sum()
        window.add(seconds, self._clock())

    def _of(self, task: str) -> tuple[NDArray[np.int64], NDArray[np.float64], Latency]:
        if task not in self._tasks:
            counts = np.zeros(len(self._bounds) + 1, dtype=np.int64)
            self._tasks[task] = counts, np.zeros(1), Latency()
        return self._tasks[task]

    def collect(self) -> Iterable[Metric]:
        histogram = HistogramMetricFamily(
            "headrace_score_latency_seconds", "Event in the broker to score acknowledged.", labels=["task"]
        )
        quantiles = GaugeMetricFamily(
            "headrace_score_latency_recent_seconds",
            f"Quantile of the last {RECENT_S:.0f} seconds' scores, at most the newest {RECENT}; absent without any.",
            labels=["task", "quantile"],
        )
        bounds = [*(str(bound) for bound in LATENCY_BUCKETS), "+Inf"]
        for task, (counts, total, window) in list(self._tasks.items()):
            running = [float(count) for count in counts.cumsum()]
            histogram.add_metric([task], list(zip(bounds, running, strict=True)), sum_value=float(total[0]))
            if len(recent := window.within(self._clock())):
                for at, value in zip(QUANTILES, np.quantile(recent, QUANTILES).tolist(), strict=True):
                    quantiles.add_metric([task, str(at)], value)
        return histogram, quantiles


class Metrics:
    """One worker's metrics in a registry of their own, so that two in one process do not collide."""

    def __init__(self, registry: CollectorRegistry | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.latency = ScoreLatency(clock)
        self.registry.register(self.latency)
        self._measures()
        self._counters()
        self._gauges()
        self._policies()
        self._swaps()
        self._asking()

    def _measures(self) -> None:
        stages = Histogram(
            "headrace_stage_seconds",
            "Time of one micro-batch in a stage.",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.decode, self.absorb, self.infer, self.encode, self.produce, self.ack, self.explain = (
            stages.labels(stage) for stage in STAGES
        )
        self.batch_events = self._histogram("batch_events", "Events in a micro-batch.", SIZE_BUCKETS)
        self.flush_seconds = self._histogram(
            "flush_seconds", "One flush, of a quarter of the partitions.", FLUSH_BUCKETS
        )
        self.transaction_seconds = self._histogram(
            "transaction_seconds", "One transaction of scores, begin to commit.", FLUSH_BUCKETS
        )

    def _counters(self) -> None:
        self.events = self._counter("events", "Events read.", "topic")
        self.scores = self._counter("scores", "Scores acknowledged.", "task")
        self.alerts = self._counter("alerts", "Alerts raised.", "decision")
        self.dead_letters = self._counter("dead_letters", "Bad input set aside.", "code")
        self.misplaced = self._counter("misplaced", "Records on another partition than their key's.", "topic")
        self.late = self._counter("late", "Scored by the model after the deadline.", "task")
        self.fallbacks = self._counter("fallbacks", "Answered without the model.", "task", "reason")
        self.duplicates = self._counter("duplicates", "Events that were absorbed before.")
        self.out_of_order = self._counter("out_of_order", "Events older than their user's newest.")
        self.dedupe_evictions = self._counter("dedupe_evictions", "Event ids forgotten before their 24 h.")
        self.transactions = self._counter("transactions", "Transactions of scores: committed, aborted.", "result")
        self.flushed_rows = self._counter("flushed_rows", "User rows written to the changelog.")

    def _gauges(self) -> None:
        partition = ("topic", "partition")
        self._lag = self._gauge("lag", "Records between the newest and the next one to read.", *partition)
        self._parked = self._gauge("parked", "1: waits, for example for the registry.", *partition)
        self._behind = self._gauge(
            "cross_topic_lag_seconds", "Event time by which a topic trails the foremost.", "topic"
        )
        self._release = self._gauge("release_info", "1 for what scores now.", "task", "release", "engine")
        self.ready = self._gauge("ready", "1: assigned, recovered, engines warm.")
        self.users = self._gauge("users_in_memory", "Users whose state is in the arrays.")

    def _policies(self) -> None:
        self.policy_shadow = self._counter(
            "policy_shadow", "Orders by what was decided, and what the shadow policy would.", "decided", "would"
        )
        self.policy_failures = self._counter("policy_rule_failures", "Orders that a rule could not judge.", "rule")
        self._policy = self._gauge("policy_info", "1 for the policies that stand now.", "standing", "version")
        self._refused = self._gauge("policy_refused", "1 for one that cannot be used: another decides.", "policy")

    def set_policies(self, standing: Mapping[str, str], refused: Iterable[str] = ()) -> None:
        """`standing`: live and shadow -> version. `refused`: keys of those that cannot be used. Replaces all."""
        self._policy.clear()
        for name, version in standing.items():
            self._policy.labels(name, version).set(1)
        self._refused.clear()
        for name in refused:
            self._refused.labels(name).set(1)

    def _swaps(self) -> None:
        self.swaps = self._counter("swaps", "Releases taken over, or not.", "task", "result")
        self.swap_seconds = self._gauge("swap_seconds", "Parts of the newest swap.", "task", "part")
        self.shadow_compared = self._counter("shadow_compared", "Events that a shadow was asked about.", "task")
        self.shadow_dropped = self._counter("shadow_dropped", "Events that did not fit into its queue.", "task")
        self.shadow_disagreement = self._gauge("shadow_disagreement", "Live against shadow, newest 256.", "task")
        self.engine_failures = self._counter("engine_failures", "Live releases that gave no scores.", "task")

    def _asking(self) -> None:
        self.asked = self._counter("asked", "Requests for scores, by what became of them.", "task", "result")
        self.asked_lost = self._counter("asked_lost", "Answered events that the broker did not take.", "task")
        self.ask_forwarded = self._counter("ask_forwarded", "Requests sent on to the user's worker.", "task")
        self.ask_fallbacks = self._counter("ask_fallbacks", "Requests answered by the fallback.", "task")
        self.ask_seconds = Histogram(
            "headrace_ask_seconds", "Request to answer.", ["task"], buckets=LATENCY_BUCKETS, registry=self.registry
        )

    def _histogram(self, name: str, text: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(f"headrace_{name}", text, buckets=tuple(buckets), registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"headrace_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"headrace_{name}", text, labels, registry=self.registry)

    def set_lag(self, lag: Mapping[TopicPartition, int]) -> None:
        """Replaces all: what was revoked is gone, not frozen. About 4 us each: once a second."""
        self._lag.clear()
        for (topic, partition), records in lag.items():
            self._lag.labels(topic, partition).set(records)

    def set_parked(self, waiting: Iterable[TopicPartition]) -> None:
        """Replaces all: `waiting` are the partitions that are paused now."""
        self._parked.clear()
        for topic, partition in waiting:
            self._parked.labels(topic, partition).set(1)

    def set_newest(self, newest_ms: Mapping[str, int]) -> None:
        """`newest_ms`: the newest event time (ms) read of each input topic that had events."""
        foremost = max(newest_ms.values(), default=0)
        for topic, newest in newest_ms.items():
            self._behind.labels(topic).set((foremost - newest) / 1000)

    def set_releases(self, live: Mapping[str, tuple[str, str]]) -> None:
        """`live`: task -> (release, engine). Replaces all."""
        self._release.clear()
        for task, (release, engine) in live.items():
            self._release.labels(task, release, engine).set(1)

    def total(self, name: str) -> dict[tuple[str, ...], float]:
        """A counter's values by its label values; `name` as in the page, less `headrace_` and `_total`."""
        return {
            tuple(sample.labels.values()): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"headrace_{name}_total"
        }

    def page(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(self.registry)
