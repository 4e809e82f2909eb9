"""Click-through on later time: the release, tuned LightGBM on the same rows, the mean, and the simulator's own chances.
What is judged is each ad that came into view; nothing of it was learned from.
"""

from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from bench.judging import Case, Figures, Floats, against_truth, classified, prefixed, served
from finetune import metrics
from finetune.history import Examples
from finetune.labels import click_labels, shown_ads
from streams.batch import KINDS
from streams.tasks.ctr import IS_CLICK, slate_inputs

RECENT = 12
TRIALS = (
    {"learning_rate": 0.05, "num_leaves": 15, "min_child_samples": 200, "lambda_l2": 10.0, "feature_fraction": 0.8},
    {"learning_rate": 0.05, "num_leaves": 31, "min_child_samples": 100, "lambda_l2": 1.0, "feature_fraction": 0.6},
    {"learning_rate": 0.03, "num_leaves": 63, "min_child_samples": 400, "lambda_l2": 10.0, "feature_fraction": 0.5},
    {"learning_rate": 0.05, "num_leaves": 7, "min_child_samples": 50, "lambda_l2": 1.0, "feature_fraction": 0.8},
)
"""What LightGBM is tuned over, by log loss on the newest 15 % of what was known; trees by early stopping."""
CATEGORICAL = [0, 1, 2, 3]


def judge_ctr(case: Case) -> Figures:
    late, slots = case.late, case.late.rows["ad"].shape[1]
    label, shown = click_labels(late.events, case.recording.labels, slots), shown_ads(late.events, slots) > 0
    chance, truth = said(case, late), true_chances(case, late)
    y, p, t = label[shown], chance[shown], truth[shown]
    mean = float(case.release.manifest.settings["mean"])
    figures = classified(y, p, t) | against_truth(p, t)
    users = np.unique([event["user_id"] for event in late.events], return_inverse=True)[1]
    figures["gauc"] = metrics.gauc(y, p, np.repeat(users[:, None], slots, axis=1)[shown])
    figures["expected_calibration_error"] = metrics.expected_calibration_error(y, p)
    for name in np.unique([event["placement"] for event in late.events]):
        here = np.repeat(np.array([event["placement"] == name for event in late.events])[:, None], slots, axis=1)[shown]
        figures[f"prediction_over_truth_{name}"] = float(p[here].sum() / t[here].sum())
    figures["mean_normalised_entropy"] = metrics.normalised_entropy(y, np.full(len(y), mean))
    boosted = boosting(case)(late)[shown]
    figures |= prefixed("boosting", classified(y, boosted), ("normalised_entropy", "roc_auc"))
    best = figures["truth_normalised_entropy"]
    figures["boosting_excess_over_truth"] = figures["boosting_normalised_entropy"] / best - 1
    return figures


def said(case: Case, examples: Examples) -> Floats:
    """(B, slots) the chances of the results that the worker would make."""
    chance = np.zeros(examples.rows["ad"].shape)
    for number, result in enumerate(served(case, examples)):
        chance[number, : len(result.prediction)] = result.prediction
    return chance


def true_chances(case: Case, examples: Examples) -> Floats:
    """(B, slots) what the simulator drew the clicks from; 0 where the ad did not come into view."""
    truth = np.zeros(examples.rows["ad"].shape)
    for number, event in enumerate(examples.events):
        told = case.world.truth(event["event_id"])
        if told is not None:
            by_ad = dict(zip(told.candidates, told.probabilities, strict=True))
            truth[number, : len(event["slate"])] = [by_ad.get(ad["ad_id"], 0.0) for ad in event["slate"]]
    return truth


def columns(examples: Examples, text: NDArray[np.float32]) -> Floats:
    """(B, slots, F): what a data scientist would make of the same rows; the first four are categories."""
    rows = examples.rows
    ids, shape = slate_inputs(rows), rows["ad"].shape
    history, slate = ids["history_ids"], ids["slate_ids"]
    past = rows["kind"] > 0
    touched = IS_CLICK[rows["kind"]] | (rows["kind"] == KINDS["purchase"])
    item = (slate[:, :, 1, None] == rows["item"][:, None]) & (slate[:, :, 1, None] > 0)
    category = (slate[:, :, 2, None] == rows["category"][:, None]) & touched[:, None]
    ads, page, recent = text[rows["ad"]], text[rows["context_item"]], text[rows["item"][:, -RECENT:]]
    alike = np.einsum("bcd,bld->bcl", ads, recent)
    total = np.maximum(touched.sum(axis=1), 1)[:, None]
    views = (rows["kind"] == KINDS["impression"]) & (rows["age"] <= 1800)
    found = [
        rows["ad"], rows["ad_category"], np.broadcast_to(rows["placement"][:, None], shape),
        np.broadcast_to(rows["context_category"][:, None], shape), rows["position"], rows["bid"],
        item.sum(-1), category.sum(-1) / total, category[:, :, -RECENT:].sum(-1),
        alike.mean(-1), alike.max(-1), np.einsum("bcd,bd->bc", ads, page), slate[:, :, 2] == history[:, -1:, 1],
        np.broadcast_to(views.sum(1)[:, None], shape), np.broadcast_to(past.sum(1)[:, None], shape),
    ]  # fmt: skip
    return np.stack([np.asarray(column, np.float64) for column in found], axis=-1)


def boosting(case: Case) -> Callable[[Examples], Floats]:
    """The best of TRIALS, as a function to (B, slots)."""
    known, text = case.known.examples["ctr"], case.catalog.text
    slots = known.rows["ad"].shape[1]
    shown, label = shown_ads(known.events, slots) > 0, click_labels(known.events, case.known.labels, slots)
    chosen = tuned(in_parts(known, text)[shown], label[shown])

    def predict(examples: Examples) -> Floats:
        made = in_parts(examples, text)
        return np.asarray(chosen.predict(made.reshape(-1, made.shape[-1]))).reshape(made.shape[:2])

    return predict


def tuned(x: Floats, y: NDArray[np.floating]) -> lgb.Booster:
    """The best of TRIALS; examples (n, F) and labels (n,) in order of time."""
    cut = round(0.85 * len(y))
    options: dict[str, Any] = {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": 0}
    best: tuple[float, lgb.Booster] | None = None
    for trial in TRIALS:
        early = lgb.Dataset(x[:cut], y[:cut], categorical_feature=CATEGORICAL)
        held = lgb.Dataset(x[cut:], y[cut:], reference=early)
        stop = lgb.early_stopping(30, verbose=False)
        model = lgb.train({**options, **trial}, early, 500, valid_sets=[held], callbacks=[stop])
        loss = model.best_score["valid_0"]["binary_logloss"]
        if best is None or loss < best[0]:
            best = loss, model
    assert best is not None
    return best[1]


def in_parts(examples: Examples, text: NDArray[np.float32], size: int = 4096) -> Floats:
    """`columns`, a few rows at a time: texts of all events of all rows would be gigabytes."""
    everything = np.arange(len(examples))
    return np.concatenate([columns(examples.part((everything // size) == at), text)
                           for at in range(-(-len(examples) // size))])  # fmt: skip
