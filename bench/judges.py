"""The models and their baselines on the same later events, a function a task: figures with 95 % intervals.
The excess over the truth says what was left to learn: the simulator knows the probability of each of its outcomes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from engines.releases import Release
from engines.slot import Loaded, load
from finetune import metrics
from finetune.history import Examples, Recording
from finetune.labels import click_labels, fraud_labels, next_items, shown_ads
from finetune.problems import NEXT_ITEM_WINDOW_MS, Fraud, popularity
from streams.catalog import NOT_A_CANDIDATE, Catalogue
from streams.live import prior_of
from streams.sources.world import World
from streams.tasks import make_task
from streams.tasks.base import Result, Serving, Task
from streams.tasks.fraud import COLUMN, FIELDS

BUCKET = 256
TOP = 20
Figures = dict[str, float]
Floats = NDArray[np.float64]

ORDER_FIELDS = (
    *("amount", "lines", "quantity", "top_line_share", "foreign_card", "ships_elsewhere", "guest"),
    *("hour_sin", "hour_cos", "weekday_sin", "weekday_cos"),
    *(name for name in FIELDS if name.startswith(("paid_by_", "attribute_"))),
)
"""Columns of fraud's fields that the order record alone gives, without any history."""


@dataclass(slots=True)
class Case:
    """A release, all that was recorded, what was known of it at `border` (UTC ms), and who knows the truth."""

    release: Release
    recording: Recording
    known: Recording
    catalog: Catalogue
    world: World
    border: int

    @property
    def task(self) -> Task:
        return make_task(self.release.task)

    @property
    def late(self) -> Examples:
        """The examples from the border on."""
        return self.recording.since(self.border)[self.release.task]


def served(case: Case, examples: Examples) -> list[Result]:
    """The results of these examples as the worker makes them."""
    task, catalog, loaded = case.task, case.catalog, opened(case)
    serving = Serving(catalog, loaded.calibration, loaded.settings)
    results: list[Result] = []
    for start in range(0, len(examples), BUCKET):
        part = slice(start, start + BUCKET)
        rows, events = examples.rows[part], examples.events[part]
        outputs = loaded.infer(task.inputs(rows, loaded.table)).outputs
        results += task.results(outputs, events, rows, serving)
    loaded.engine.close()
    return results


def opened(case: Case) -> Loaded:
    """The release on its compiled engine, with the catalogue and the popularity prior as in serving."""
    loaded = load(case.release, backend="openvino", precision="bf16", buckets=(BUCKET,), threads=2)
    catalog = case.catalog
    bias = catalog.candidate_bias() + prior_of(loaded, catalog.items, len(catalog))
    loaded.refresh(catalog.text, catalog.scalars, catalog.kind, np.maximum(bias, NOT_A_CANDIDATE))
    return loaded


def judge_recommendations(case: Case) -> Figures:
    """The user's next other item within three days, ranked among the whole catalogue."""
    late, clicks = case.late, case.recording.clicks
    target = next_items(clicks.user, clicks.time, clicks.item, NEXT_ITEM_WINDOW_MS)[late.place]
    asked = target > 0
    target, late = target[asked], late.part(asked)
    ranked = np.zeros((len(late), TOP), np.int64)
    for number, result in enumerate(served(case, late)):
        ranked[number, : len(result.candidates)] = [case.catalog.items[ident] for ident in result.candidates]
    bias = case.catalog.candidate_bias() + popularity(case.known.clicks.item, len(case.catalog))
    popular = np.tile(np.argsort(-bias, kind="stable")[:TOP], (len(late), 1))
    ours, theirs = metrics.rank_of(target, ranked), metrics.rank_of(target, popular)
    figures: Figures = {"events": float(len(late))}
    for name, metric in (("ndcg_at_10", metrics.ndcg_at), ("hit_at_10", metrics.hit_at)):
        low, high = metrics.bootstrap_mean(partial(metric, k=10), ours)
        figures |= {name: metric(ours, 10), f"{name}_low": low, f"{name}_high": high}
        figures[f"popularity_{name}"] = metric(theirs, 10)
    return figures


def judge_ctr(case: Case) -> Figures:
    """Each ad that came into view; the mean's normalised entropy is that of the training span's click rate."""
    late, slots = case.late, case.late.rows["ad"].shape[1]
    label, shown = click_labels(late.events, case.recording.labels, slots), shown_ads(late.events, slots) > 0
    chance = np.zeros(label.shape)
    for number, result in enumerate(served(case, late)):
        chance[number, : len(result.prediction)] = result.prediction
    truth = np.zeros(label.shape)
    for number, event in enumerate(late.events):
        told = case.world.truth(event["event_id"])
        if told is not None:
            by_ad = dict(zip(told.candidates, told.probabilities, strict=True))
            truth[number, : len(event["slate"])] = [by_ad.get(ad["ad_id"], 0.0) for ad in event["slate"]]
    mean = float(case.release.manifest.settings["mean"])
    figures = classified(label[shown], chance[shown], truth[shown])
    figures["mean_normalised_entropy"] = metrics.normalised_entropy(label[shown], np.full(int(shown.sum()), mean))
    model = boosted_ctr(case)
    figures |= prefixed("boosting", classified(label[shown], model(late)[shown]), ("normalised_entropy", "roc_auc"))
    return figures


def boosted_ctr(case: Case) -> Callable[[Examples], Floats]:
    """Gradient boosting on position, bid, placement and similarity to what the user looked at; to (B, slate)."""
    text = case.catalog.text

    def features(examples: Examples) -> Floats:
        rows = examples.rows
        ads = text[rows["ad"]]
        past = text[rows["item"][:, -12:]].mean(axis=1)
        page = text[rows["context_item"]]
        shape = rows["ad"].shape
        columns = [
            rows["position"], rows["bid"], np.einsum("bcd,bd->bc", ads, past), np.einsum("bcd,bd->bc", ads, page),
            (rows["ad"][:, :, None] == rows["item"][:, None, :]).any(-1),
            np.broadcast_to((rows["context_item"] > 0)[:, None], shape),
            np.broadcast_to((rows["kind"] > 0).sum(1)[:, None], shape), rows["ad"],
        ]  # fmt: skip
        return np.stack([np.asarray(column, np.float64) for column in columns], axis=-1)

    known = case.known.examples["ctr"]
    slots = known.rows["ad"].shape[1]
    shown = shown_ads(known.events, slots) > 0
    label = click_labels(known.events, case.known.labels, slots)
    model = HistGradientBoostingClassifier(learning_rate=0.05, max_iter=150, max_leaf_nodes=15, random_state=0)
    model.fit(features(known)[shown], label[shown])

    def predict(examples: Examples) -> Floats:
        columns = features(examples)
        chance: Floats = model.predict_proba(columns.reshape(-1, columns.shape[-1]))[:, 1]
        return chance.reshape(columns.shape[:2])

    return predict


def judge_fraud(case: Case) -> Figures:
    """All later orders, by the labels that have come in the end."""
    late = case.late
    label = fraud_labels(late.events, case.recording.labels)
    chance = np.array([result.prediction[0] for result in served(case, late)])
    truth = np.array([_fraud_truth(case.world, event["event_id"]) for event in late.events])
    figures = classified(label, chance, truth)
    problem = Fraud(case.task, case.known, case.catalog)
    known, labels = problem.examples, problem.label  # baselines learn from held-out orders too
    columns = [COLUMN[name] for name in ORDER_FIELDS]
    logistic = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    logistic.fit(known.rows["fields"][:, columns], labels)
    plain = logistic.predict_proba(late.rows["fields"][:, columns])[:, 1]
    boosting = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=120, max_leaf_nodes=15, l2_regularization=10.0, random_state=0
    ).fit(known.rows["fields"], labels)
    boosted = boosting.predict_proba(late.rows["fields"])[:, 1]
    shown = ("pr_auc", "log_loss_nats", "roc_auc")
    figures |= prefixed("logistic", classified(label, plain), shown)
    figures |= prefixed("boosting", classified(label, boosted), shown)
    return figures


def _fraud_truth(world: World, event_id: str) -> float:
    told = world.truth(event_id)
    return told.probabilities[0] if told is not None else 0.0


def classified(label: NDArray[Any], chance: Floats, truth: Floats | None = None) -> Figures:
    """Figures of probabilities, with intervals; beside the true ones where they are known."""
    figures: Figures = {"events": float(len(label)), "positives": float(label.sum())}
    for name, metric in (
        ("pr_auc", metrics.pr_auc),
        ("roc_auc", metrics.roc_auc),
        ("normalised_entropy", metrics.normalised_entropy),
        ("log_loss_nats", metrics.log_loss),
    ):
        figures[name] = metric(label, chance)
        if truth is not None:
            figures[f"{name}_low"], figures[f"{name}_high"] = metrics.bootstrap(metric, label, chance, draws=100)
    figures["calibration"] = metrics.calibration(label, chance)
    if truth is not None:
        best = metrics.normalised_entropy(label, truth)
        figures["truth_normalised_entropy"] = best
        figures["excess_over_truth"] = figures["normalised_entropy"] / best - 1
        figures["truth_pr_auc"] = metrics.pr_auc(label, truth)
        figures["truth_roc_auc"] = metrics.roc_auc(label, truth)
    return figures


def prefixed(by: str, figures: Figures, names: tuple[str, ...]) -> Figures:
    """Those named, as `by`'s."""
    return {f"{by}_{name}": figures[name] for name in names}


JUDGES: dict[str, Callable[[Case], Figures]] = {
    "recommendations": judge_recommendations,
    "ctr": judge_ctr,
    "fraud": judge_fraud,
}
