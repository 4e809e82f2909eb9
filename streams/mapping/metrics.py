"""What a mapped topic's process measures of itself, for Prometheus. One process carries one mapping, and names it."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from schemas.errors import BadRecord
from streams.mapping.carrying import Carried

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200)
PUBLISHED, LEFT_OUT = "published", "left_out"


class MappingMetrics:
    """In a registry of their own. All series are there from the start, at 0."""

    def __init__(self, mapping: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._mapping = mapping
        self._records = Counter(
            "headrace_mapping_records", "Records carried: published, left_out, or a dead letter of this code.",
            ("mapping", "result"), registry=self.registry,
        )  # fmt: skip
        self._lag = self._gauge("lag", "Records of the shop's topic that are not carried.")
        self._waiting = self._gauge("waiting", "1 while it waits for the broker or the schema registry.")
        self._seconds = Histogram(
            "headrace_mapping_seconds", "From the broker's time of a record to the commit of what became of it.",
            ("mapping",), buckets=BUCKETS, registry=self.registry,
        ).labels(mapping)  # fmt: skip
        for result in (PUBLISHED, LEFT_OUT, *BadRecord.CODES):
            self._records.labels(mapping, result)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"headrace_mapping_{name}", text, ("mapping",), registry=self.registry).labels(self._mapping)

    def told(self, carried: Carried, oldest_ms: int | None, lag: int) -> None:
        """A step of the follower; of its records the oldest one's time is taken."""
        for result, count in {PUBLISHED: carried.published, LEFT_OUT: carried.left_out, **carried.bad}.items():
            self._records.labels(self._mapping, result).inc(count)
        self._lag.set(lag)
        if oldest_ms is not None:
            self._seconds.observe(max(0.0, time.time() - oldest_ms / 1000))

    def page(self, waits: bool) -> bytes:
        """Prometheus text format 0.0.4."""
        self._waiting.set(waits)
        return generate_latest(self.registry)
