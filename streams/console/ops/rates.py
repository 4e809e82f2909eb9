"""From the Prometheus pages of workers and learners to figures of the whole shop, and half an hour of them in memory.
Pure: pages and moments in. A process that does not answer adds nothing, which is said beside the figure; it is no zero.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[str, ...]
Values = Mapping[str, Mapping[Labels, float]]
Figure = tuple[str, str]
"""What, and of what: ("scores", "fraud")."""

KEPT_S = 1_800.0
# Series that are kept, by the name that the page gives them -> the labels that are kept, in order.
WORKER: Mapping[str, Labels] = {
    "headrace_events_total": ("topic",),
    "headrace_scores_total": ("task",),
    "headrace_alerts_total": ("decision",),
    "headrace_dead_letters_total": ("code",),
    "headrace_late_total": ("task",),
    "headrace_fallbacks_total": ("task", "reason"),
    "headrace_lag": ("topic", "partition"),
    "headrace_parked": ("topic", "partition"),
    "headrace_score_latency_recent_seconds": ("task", "quantile"),
    "headrace_release_info": ("task", "release", "engine"),
    "headrace_ready": (),
    "headrace_shadow_disagreement": ("task",),
    "headrace_swaps_total": ("task", "result"),
    "process_resident_memory_bytes": (),
    "process_cpu_seconds_total": (),
    "process_start_time_seconds": (),
}
LEARNER: Mapping[str, Labels] = {
    "headrace_watermark_lag_seconds": (),
    "headrace_examples_total": (),
    "headrace_new_examples": ("task",),
    "headrace_waiting_positives": ("task",),
    "headrace_watched_events": ("task",),
    "headrace_label_to_live_seconds": ("task",),
    "headrace_finetune_seconds": ("task", "part"),
    "headrace_live_roc_auc": ("task", "release"),
    "headrace_live_calibration": ("task", "release"),
    "headrace_live_estimated_roc_auc": ("task", "release"),
    "headrace_live_labels": ("task", "release"),
    "headrace_live_positives": ("task", "release"),
    "process_resident_memory_bytes": (),
    "process_cpu_seconds_total": (),
    "process_start_time_seconds": (),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one process at one moment. problem: why there are no values, for a person; empty where there are."""

    at_ms: int
    values: Values = field(default_factory=dict)
    problem: str = ""


def parsed(text: str, wanted: Mapping[str, Labels]) -> Values:
    """The wanted series of a page. Raises ValueError for what is no Prometheus page."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if (labels := wanted.get(sample.name)) is not None:
                key = tuple(sample.labels.get(name, "") for name in labels)
                found.setdefault(sample.name, {})[key] = float(sample.value)
    return found


def rate(before: Answer, now: Answer, name: str) -> dict[Labels, float]:
    """A second, by labels. A counter that fell began anew with its process: what it shows has come since."""
    seconds = (now.at_ms - before.at_ms) / 1000
    if seconds <= 0 or before.problem or now.problem:
        return {}
    earlier, found = before.values.get(name, {}), dict[Labels, float]()
    for labels, value in now.values.get(name, {}).items():
        last = earlier.get(labels, 0.0)
        found[labels] = (value - last if value >= last else value) / seconds
    return found


@dataclass(frozen=True, slots=True)
class Tick:
    """The shop at one moment: what those who answered say together."""

    at_ms: int
    figures: Mapping[Figure, float]
    asked: int
    answered: int


RATES = {
    "events": "headrace_events_total",
    "scores": "headrace_scores_total",
    "alerts": "headrace_alerts_total",
    "dead": "headrace_dead_letters_total",
    "late": "headrace_late_total",
    "fallback": "headrace_fallbacks_total",
    "examples": "headrace_examples_total",
}
SUMS = {
    "lag": "headrace_lag",
    "new": "headrace_new_examples",
    "waiting": "headrace_waiting_positives",
}
LARGEST = {
    "disagreement": "headrace_shadow_disagreement",
    "behind": "headrace_watermark_lag_seconds",
    "auc": "headrace_live_roc_auc",
    "calibration": "headrace_live_calibration",
    "estimated": "headrace_live_estimated_roc_auc",
    "labels": "headrace_live_labels",
    "positives": "headrace_live_positives",
    "label_to_live": "headrace_label_to_live_seconds",
}
BY_FIRST_LABEL = frozenset({"lag"})  # of a topic's partitions the sum
QUANTILES = {"0.5": "p50", "0.99": "p99"}


def tick(at_ms: int, before: Mapping[str, Answer], now: Mapping[str, Answer]) -> Tick:
    """before, now: by address. Rates and counts are sums; a quantile is that of the slowest: quantiles do not add."""
    figures: dict[Figure, float] = {}
    answering = {address: answer for address, answer in now.items() if not answer.problem}
    for address, answer in answering.items():
        for what, name in RATES.items():
            if address in before:
                _add(figures, what, rate(before[address], answer, name), _sum)
        for what, name in SUMS.items():
            _add(figures, what, answer.values.get(name, {}), _sum)
        for what, name in LARGEST.items():
            _add(figures, what, answer.values.get(name, {}), max)
        for (task, quantile), seconds in answer.values.get("headrace_score_latency_recent_seconds", {}).items():
            if quantile in QUANTILES:
                _add(figures, QUANTILES[quantile], {(task,): 1000 * seconds}, max)
    return Tick(at_ms, figures, len(now), len(answering))


def _sum(one: float, other: float) -> float:
    return one + other


def _add(
    figures: dict[Figure, float], what: str, values: Mapping[Labels, float], together: Callable[[float, float], float]
) -> None:
    for labels, value in values.items():
        if math.isfinite(value):
            key = what, labels[0] if what in BY_FIRST_LABEL else " ".join(labels)
            figures[key] = together(figures[key], value) if key in figures else value


class History:
    """The newest half hour; used from the event loop alone."""

    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_ms = kept_s * 1000
        self._ticks: deque[Tick] = deque()
        self._answers: dict[str, Answer] = {}
        self._seen: dict[Figure, int] = {}
        self.heard: dict[str, int] = {}
        """When each address last answered, UTC ms."""

    def add(self, at_ms: int, answers: Mapping[str, Answer]) -> None:
        """Of a clock that was set back, what was later then is forgotten."""
        while self._ticks and self._ticks[-1].at_ms > at_ms:
            self._ticks.pop()
        newest = tick(at_ms, self._answers, answers)
        self._ticks.append(newest)
        self._seen.update(dict.fromkeys(newest.figures, at_ms))
        self._answers = dict(answers)
        self.heard |= {address: answer.at_ms for address, answer in answers.items() if not answer.problem}
        while self._ticks and self._ticks[0].at_ms < at_ms - self._kept_ms:
            self._ticks.popleft()
        if len(self._seen) > 2 * len(newest.figures) + 100:  # releases come and go
            self._seen = {key: at for key, at in self._seen.items() if at >= self._ticks[0].at_ms}

    @property
    def answers(self) -> Mapping[str, Answer]:
        """The newest, by address."""
        return self._answers

    @property
    def newest(self) -> Tick | None:
        return self._ticks[-1] if self._ticks else None

    def now(self, what: str, within_ms: int = 10_000) -> dict[str, float]:
        """Means over the last moments, by what they are of: a rate over one round of two seconds jumps."""
        if (newest := self.newest) is None or not newest.answered:
            return {}
        recent = list(takewhile(lambda each: each.at_ms > newest.at_ms - within_ms, reversed(self._ticks)))
        found: dict[str, list[float]] = {}
        for each in recent:
            for (name, of), value in each.figures.items():
                if name == what:
                    found.setdefault(of, []).append(value)
        return {of: sum(values) / len(values) for of, values in sorted(found.items())}

    def count(self, what: str, within_ms: int) -> float:
        """What has come over the last time, from its rates; of all that it is of together."""
        found, newest = 0.0, self._ticks[-1].at_ms if self._ticks else 0
        for later, earlier in pairwise(reversed(self._ticks)):
            if later.at_ms <= newest - within_ms:
                break
            found += sum(value for (name, _), value in later.figures.items() if name == what) * (
                later.at_ms - earlier.at_ms
            )
        return found / 1000

    def names(self, what: str) -> list[str]:
        """Of what there are figures of that kind."""
        oldest = self._ticks[0].at_ms if self._ticks else 0
        return sorted(of for (name, of), at in self._seen.items() if name == what and at >= oldest)

    def series(
        self, whats: Sequence[Figure], start_ms: int, end_ms: int, points: int
    ) -> tuple[list[float], list[list[float | None]]]:
        """Means over `points` stretches of the time from start to end; x is the end of each stretch."""
        width = (end_ms - start_ms) / points
        sums = [[0.0] * points for _ in whats]
        counts = [[0] * points for _ in whats]
        for each in self._ticks:
            if not start_ms < each.at_ms <= end_ms:
                continue
            place = min(points - 1, int((each.at_ms - start_ms - 1) // width))
            for number, what in enumerate(whats):
                if (value := each.figures.get(what)) is not None:
                    sums[number][place] += value
                    counts[number][place] += 1
        x = [start_ms + width * (place + 1) for place in range(points)]
        means = [
            [total / count if count else None for total, count in zip(row, seen, strict=True)]
            for row, seen in zip(sums, counts, strict=True)
        ]
        return x, means


def total(values: Iterable[float]) -> float | None:
    """None where there are none: nothing is known then."""
    found = list(values)
    return sum(found) if found else None
