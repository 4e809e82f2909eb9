"""What training needs of each task beyond the common course: labels, loss, and what a release says of itself.
A task's problem is one class and one line in PROBLEMS.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from engines.heads import FraudHead, RecommendationHead
from engines.model import HeadraceModel
from finetune.calibrate import REVIEW_BUDGET, ordinary, platt, thresholds
from finetune.history import Examples, Recording
from finetune.labels import click_labels, fraud_labels, next_items, shown_ads
from finetune.losses import MASKED, fraud_loss, next_item_loss, slate_loss
from finetune.metrics import hit_at, log_loss, ndcg_at, normalised_entropy, pr_auc, rank_of
from finetune.trainer import Loss
from schemas.errors import TrainingError
from streams.catalog import Catalogue
from streams.tasks.base import Task, calibrated

VALIDATION = 0.15  # the newest share of the examples does not train: it calibrates and sets thresholds
DAY_MS = 86_400_000
NEXT_ITEM_WINDOW_MS = 3 * DAY_MS
MATURITY_MS = 28 * DAY_MS  # by then nearly all chargebacks have come (their median is a week)
POPULAR = 100
FIRST_SCALE = 0.3  # of the first scores: larger ones rank better at the start, but are too sure to learn well

Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Finish:
    """What held-out examples say of a trained model: for the manifest."""

    calibration: dict[str, float]
    settings: dict[str, Any]
    metrics: dict[str, Any]


class Asked:
    """Examples of one task that an engine is asked about."""

    task: Task
    catalog: Catalogue
    examples: Examples

    def shared_inputs(self, vectors: NDArray[np.float32]) -> Outputs:
        """Engine inputs beyond the rows' own, given the vector table."""
        return {}


class Problem(Asked, ABC):
    """What a release is made of: examples of one task, and what they say of a trained model.

    The first `learning` of the examples train, the rest, the newest, are held out.
    """

    name: ClassVar[str]
    learning: int

    @property
    def bias(self) -> NDArray[np.float32] | None:
        """(rows,) what is added to the catalogue's scores; None where nothing is ranked."""
        return None

    @abstractmethod
    def finish(self, outputs: Outputs, which: NDArray[np.intp]) -> Finish:
        """From the compiled engine's outputs for the examples of numbers `which`."""


class Recorded(Problem):
    """Of a first training: examples of a recording, with their labels. Raises TrainingError where they cannot teach.

    `examples` are those that have a label by now; those that are held out calibrate. `label` (N, ...): theirs.
    """

    label: NDArray[Any]

    def __init__(self, task: Task, recording: Recording, catalog: Catalogue) -> None:
        self.task, self.recording, self.catalog = task, recording, catalog
        self.examples = self.labelled(recording.examples[self.name])
        if not len(self.examples):
            raise TrainingError(f"no examples of {self.name}", expected="events of its topic that have labels by now")
        self.learning = max(1, round(len(self.examples) * (1 - VALIDATION)))
        self.prepare()

    def labelled(self, examples: Examples) -> Examples:
        """Those whose label is known by now; all, unless a task says otherwise."""
        return examples

    @abstractmethod
    def prepare(self) -> None:
        """Makes the labels."""

    @abstractmethod
    def begin(self, model: HeadraceModel) -> None:
        """Sets what a model takes from its training rows without learning."""

    @abstractmethod
    def loss(self) -> Loss:
        """Over the first `learning` examples."""


class Recommendations(Recorded):
    """The user's next other item within three days; popularity in the training span is a prior."""

    name: ClassVar[str] = "recommendations"

    def prepare(self) -> None:
        clicks = self.recording.clicks
        self.label = next_items(clicks.user, clicks.time, clicks.item, NEXT_ITEM_WINDOW_MS)[self.examples.place]
        seen = clicks.item[clicks.time <= self.examples.time[: self.learning].max()]
        self._bias = self.catalog.candidate_bias() + popularity(seen, len(self.catalog))

    def begin(self, model: HeadraceModel) -> None:
        """Starts as a search for what reads like the item just looked at: from random weights it takes far longer."""
        width, head = model.config.width, cast(RecommendationHead, model.head)
        with torch.no_grad():
            weight, bias = directions(self.catalog.text[1:], width)
            model.item_tower.text.weight.copy_(torch.from_numpy(weight))
            model.item_tower.text.bias.copy_(torch.from_numpy(bias))
            model.history.vector.weight.copy_(torch.eye(width))
            head.user.weight.copy_(FIRST_SCALE * torch.eye(width))

    @property
    def bias(self) -> NDArray[np.float32]:
        return self._bias

    def shared_inputs(self, vectors: NDArray[np.float32]) -> Outputs:
        return {"catalog": vectors, "catalog_bias": self._bias}

    def loss(self) -> Loss:
        return next_item_loss(self.task, self.examples.rows[: self.learning], self.label[: self.learning], self._bias)

    def finish(self, outputs: Outputs, which: NDArray[np.intp]) -> Finish:
        label = self.label[which]
        rank = rank_of(label, outputs["rows"])[label > 0]
        best = np.argsort(-self._bias, kind="stable")[:POPULAR]
        popular = [self.catalog.ids[row] for row in best if self._bias[row] > MASKED]
        metrics = {"hit@10": hit_at(rank, 10), "ndcg@10": ndcg_at(rank, 10)} if len(rank) else {}
        return Finish({}, {"popular": popular}, metrics)


def directions(text: NDArray[np.float32], width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The texts' principal directions as weight (width, T) and bias (width,) of the item tower's linear layer.

    text: (N, T) of length 1. The results have about the length that the tower's norm expects.
    """
    scaled = text * np.float32(text.shape[1] ** 0.5)
    middle = scaled.mean(axis=0)
    weight = np.zeros((width, text.shape[1]), np.float32)
    found = np.linalg.svd(scaled - middle, full_matrices=False)[2][:width]
    weight[: len(found)] = found
    length = np.linalg.norm((scaled - middle) @ weight.T, axis=1).mean()
    weight *= np.float32(width**0.5 / max(float(length), 1e-6))
    return weight, -weight @ middle


def popularity(items: NDArray[np.int32], rows: int) -> NDArray[np.float32]:
    """(rows,) log of how often each item was looked at, 0 for the median item; `items`: catalogue rows of clicks."""
    count = np.bincount(items, minlength=rows)[:rows]
    prior = np.log(count + 1.0)
    return (prior - np.median(prior[1:])).astype(np.float32) if rows > 1 else np.zeros(rows, np.float32)


class Fraud(Recorded):
    """Chargebacks and verdicts, of orders old enough that they have come."""

    name: ClassVar[str] = "fraud"
    review_budget = REVIEW_BUDGET

    def labelled(self, examples: Examples) -> Examples:
        old = examples.time < self.recording.until - MATURITY_MS
        return examples.part(old) if old.sum() > len(old) / 2 else examples

    def prepare(self) -> None:
        self.label = fraud_labels(self.examples.events, self.recording.labels)
        for part, name in ((self.label[: self.learning], "trains"), (self.label, "is there")):
            if not 0 < part.sum() < len(part):
                raise TrainingError(
                    f"{int(part.sum())} frauds among the {len(part)} orders of what {name}",
                    where="fraud",
                    expected="orders of both kinds",
                    todo="record a longer span, or wait until its labels have come",
                )

    def begin(self, model: HeadraceModel) -> None:
        cast(FraudHead, model.head).fit_scaling(torch.from_numpy(self.examples.rows["fields"][: self.learning].copy()))

    def loss(self) -> Loss:
        return fraud_loss(self.task, self.examples.rows[: self.learning], self.label[: self.learning])

    def finish(self, outputs: Outputs, which: NDArray[np.intp]) -> Finish:
        label, calibration = self.label[which], platt(outputs["logit"], self.label[which])
        chance = calibrated(outputs["logit"], calibration)
        metrics = {"log_loss": log_loss(label, chance)}
        if label.any():
            metrics |= {"pr_auc": pr_auc(label, chance), "normalised_entropy": normalised_entropy(label, chance)}
        settings: dict[str, Any] = {"mean": float(self.label.mean())}
        settings |= thresholds(label, chance, self.review_budget)
        settings["baseline"] = ordinary(self.examples.rows["fields"][: self.learning], self.label[: self.learning])
        return Finish(calibration, settings, metrics)


class ClickThrough(Recorded):
    """Clicks that name the impression and the ad, over the ads that came into view."""

    name: ClassVar[str] = "ctr"

    def prepare(self) -> None:
        slots = self.examples.rows["ad"].shape[1]
        self.label = click_labels(self.examples.events, self.recording.labels, slots)
        self.shown = shown_ads(self.examples.events, slots)
        if not 0 < self.label[: self.learning].sum() < self.shown[: self.learning].sum():
            raise TrainingError(
                f"{int(self.label.sum())} clicks on {int(self.shown.sum())} ads",
                where="ctr",
                expected="ads that were clicked, by clicks that name their impression and ad, and ads that were not",
            )

    def begin(self, model: HeadraceModel) -> None:
        """Nothing: all of it is learned."""

    def loss(self) -> Loss:
        first = slice(self.learning)
        return slate_loss(self.task, self.examples.rows[first], self.label[first], self.shown[first])

    def finish(self, outputs: Outputs, which: NDArray[np.intp]) -> Finish:
        shown = self.shown[which] > 0
        label, logit = self.label[which][shown], outputs["logit"][shown]
        calibration = platt(logit, label)
        chance = calibrated(logit, calibration)
        metrics = {"log_loss": log_loss(label, chance)}
        if label.any():
            metrics |= {"normalised_entropy": normalised_entropy(label, chance)}
        mean = float((self.label * self.shown).sum() / self.shown.sum())
        return Finish(calibration, {"mean": mean}, metrics)


PROBLEMS: dict[str, type[Recorded]] = {each.name: each for each in (Recommendations, Fraud, ClickThrough)}
