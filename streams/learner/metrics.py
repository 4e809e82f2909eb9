"""What the learner measures of itself, for Prometheus: each series here is written by `learning` or `service`."""

from dataclasses import fields

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from streams.labels.joined import Counts
from streams.learner.lists import ListFigures
from streams.learner.quality import Figures


class LearnerMetrics:
    """In a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.labels = self._counter("join", "Labels and served records, by what became of them.", "task", "result")
        self.examples = self._counter("examples", "Training examples made.")
        self.behind = self._gauge("watermark_lag_seconds", "By how much the join's event time trails the clock.")
        self.new = self._gauge("new_examples", "Examples that the live release has not learned.", "task")
        self.waiting = self._gauge("waiting_positives", "Positives that wait for silence of their time.", "task")
        self.triggers = self._counter("finetunes", "Fine-tunes begun, by what began them.", "task", "reason")
        self.gates = self._counter("gate", "Fine-tunes ended: passed, refused, failed or retired.", "task", "result")
        self.seconds = self._gauge("finetune_seconds", "Of the newest fine-tune, by part.", "task", "part")
        self.label_to_live = self._gauge(
            "label_to_live_seconds", "From the newest example learned to the first score of who learned it.", "task"
        )  # fmt: skip
        self.label_join = self._gauge("label_join_seconds", "From a label's arrival to what followed of it, newest.")
        self.rollbacks = self._counter("rollbacks", "Releases taken back by themselves.", "task")
        self.regrets = self._counter(
            "regrets", "Releases that labels say were worse after another had taken over.", "task", "heir_live"
        )  # fmt: skip
        self.compared = self._gauge("watched_events", "Events on which the live release was compared.", "task")
        self.roc_auc = self._gauge("live_roc_auc", "Of the newest matured examples.", "task", "release")
        self.pr_auc = self._gauge("live_pr_auc", "Of the same examples: average precision.", "task", "release")
        self.hit_rate = self._gauge(
            "live_hit_rate", "Of the newest lists: of how many one of the first ten was taken up.", "task", "release"
        )  # fmt: skip
        self.ndcg = self._gauge("live_ndcg", "Of the same lists: NDCG at ten.", "task", "release")
        self.lists_counted = self._gauge("live_lists", "How many lists these are.", "task", "release")
        self.calibration = self._gauge("live_calibration", "Predictions over positives.", "task", "release")
        self.labelled = self._gauge("live_labels", "Of the newest matured examples: how many.", "task", "release")
        self.positives = self._gauge("live_positives", "Of these, positives.", "task", "release")
        self.estimated = self._gauge(
            "live_estimated_roc_auc", "From the chances alone, where labels are not there yet.", "task", "release"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"headrace_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"headrace_{name}", text, labels, registry=self.registry)

    def joined(self, task: str, counts: Counts) -> None:
        """Adds what the join has counted since the last call."""
        for each in fields(Counts):
            if count := getattr(counts, each.name):
                self.labels.labels(task, each.name).inc(count)

    def quality(self, task: str, release: str, figures: Figures) -> None:
        self.roc_auc.labels(task, release).set(figures.roc_auc)
        self.pr_auc.labels(task, release).set(figures.pr_auc)
        self.calibration.labels(task, release).set(figures.calibration)
        self.estimated.labels(task, release).set(figures.estimated_roc_auc)
        self.labelled.labels(task, release).set(figures.labels)
        self.positives.labels(task, release).set(figures.positives)

    def lists(self, task: str, release: str, figures: ListFigures) -> None:
        self.hit_rate.labels(task, release).set(figures.hit_rate)
        self.ndcg.labels(task, release).set(figures.ndcg)
        self.lists_counted.labels(task, release).set(figures.lists)

    def page(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(self.registry)
