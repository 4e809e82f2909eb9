"""What training needs of each task beyond the common course: labels, loss, and what a release says of itself.
A task's problem is one class and one line in PROBLEMS; fraud's and click-through's have files of their own.
"""

from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from engines.heads import RecommendationHead
from engines.model import HeadraceModel
from finetune.clicks import ClickThrough
from finetune.fraud import Fraud
from finetune.labels import next_items
from finetune.losses import MASKED, next_item_loss
from finetune.metrics import hit_at, ndcg_at, rank_of
from finetune.recorded import Asked, Finish, Outputs, Problem, Recorded
from finetune.trainer import Loss
from streams.catalog import Catalogue

DAY_MS = 86_400_000
NEXT_ITEM_WINDOW_MS = 3 * DAY_MS
POPULAR = 100
POPULAR_HALF_LIFE_DAYS = 30.0  # the prior, and the fallback: what was looked at lately counts more
FIRST_SCALE = 0.3  # of the first scores: larger ones rank better at the start, but are too sure to learn well


class Recommendations(Recorded):
    """The user's next other item within three days; popularity in the training span is a prior."""

    name: ClassVar[str] = "recommendations"

    def prepare(self) -> None:
        clicks = self.recording.clicks
        self.label = next_items(clicks.user, clicks.time, clicks.item, NEXT_ITEM_WINDOW_MS)[self.examples.place]
        newest = self.examples.time[: self.learning].max()
        seen = clicks.time <= newest
        fading = 0.5 ** ((newest - clicks.time[seen]) / (POPULAR_HALF_LIFE_DAYS * DAY_MS))
        self._bias = self.catalog.candidate_bias() + popularity(clicks.item[seen], len(self.catalog), fading)

    def begin(self, model: HeadraceModel) -> None:
        """Starts as a search for what reads like the item just looked at: from random weights it takes far longer."""
        begin_with_texts(model, self.catalog)
        with torch.no_grad():
            cast(RecommendationHead, model.head).user.weight.copy_(FIRST_SCALE * torch.eye(model.config.width))

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


@torch.no_grad()
def begin_with_texts(model: HeadraceModel, catalog: Catalogue) -> None:
    """Items are alike as their texts are, and the history knows them by that."""
    weight, bias = directions(catalog.text[1:], model.config.width)
    model.item_tower.text.weight.copy_(torch.from_numpy(weight))
    model.item_tower.text.bias.copy_(torch.from_numpy(bias))
    model.history.vector.weight.copy_(torch.eye(model.config.width))


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


def popularity(items: NDArray[np.int32], rows: int, weight: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
    """(rows,) log of how often each item was looked at, 0 for the median item.

    items: catalogue rows of clicks. weight: what each click counts, 1 if not given.
    """
    count = np.bincount(items, weight, minlength=rows)[:rows]
    prior = np.log(count + 1.0)
    return (prior - np.median(prior[1:])).astype(np.float32) if rows > 1 else np.zeros(rows, np.float32)


PROBLEMS: dict[str, type[Recorded]] = {each.name: each for each in (Recommendations, Fraud, ClickThrough)}

__all__ = ["PROBLEMS", "Asked", "Finish", "Fraud", "Outputs", "Problem", "Recorded"]
