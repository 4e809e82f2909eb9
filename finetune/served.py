"""What a fine-tune needs of each task, over examples of what was served: loss, calibration, figures.
A first training has `problems`, over recorded events; here labels, weights and features come with the example.

The examples are in three parts: [0, learning) train, [learning, judging) stop the training and calibrate, and the
newest, from `judging` on, are for figures only.
"""

from abc import abstractmethod
from collections.abc import Mapping
from copy import copy
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engines.heads import RecommendationHead
from engines.manifest import Manifest
from engines.model import HeadraceModel
from finetune import history
from finetune.calibrate import REVIEW_BUDGET, platt, shrunk_platt, thresholds
from finetune.delayed import delayed_loss, delayed_platt
from finetune.delays import Delays, arrived
from finetune.evidence import Scores
from finetune.examples import Examples
from finetune.losses import CANDIDATES, MASKED, raised_in, tensors
from finetune.metrics import hit_at, log_loss, ndcg_at, normalised_entropy, pr_auc, rank_of
from finetune.problems import Finish, Outputs, Problem
from finetune.refit import refit
from finetune.trainer import Batch, TorchTable
from schemas.errors import TrainingError
from streams.catalog import Catalogue
from streams.tasks.base import Task, calibrated

Floats = NDArray[np.float32]
Sum = tuple[Tensor, Tensor]
"""A loss summed over examples and their weights, and the sum of these."""


class Served(Problem):
    """Examples, newest last, with the champion's manifest. `negatives`: the share of the negatives that was kept.

    With `offset`, negatives do not weigh 1 / negatives in training; the logit is moved by -ln(negatives) instead, so
    that what is learned is the logit of the whole (King and Zeng 2001, prior correction): less varied gradients.
    """

    pace: ClassVar[float] = 1.0
    """Times the rate at which a mode learns."""

    def __init__(
        self,
        task: Task,
        catalog: Catalogue,
        champion: Manifest,
        examples: Examples,
        *,
        learning: int,
        judging: int,
        negatives: float = 1.0,
        offset: bool = False,
        prior: Floats | None = None,
        delays: Delays | None = None,
        new: int | None = None,
    ) -> None:
        """prior (rows,): what the champion adds to the catalogue's scores. delays: of positives that may still come;
        with them negatives always weigh 1 / negatives. new: so many of those that train are new, the first; None for
        all. Raises TrainingError for an empty part.
        """
        for part, name in (
            (learning, "to train on"),
            (judging - learning, "to stop by"),
            (len(examples) - judging, "to judge by"),
        ):
            if part <= 0:
                raise TrainingError(
                    f"no examples {name}", where=task.name, expected="more new examples", todo="wait for more labels"
                )
        self.task, self.catalog, self.champion = task, catalog, champion
        self.learning, self.judging = learning, judging
        self.new = learning if new is None else new
        self.negatives, self.offset = negatives, offset and 0 < negatives < 1 and delays is None
        self.prior, self.delays = prior, delays
        self._take(examples)

    def _take(self, examples: Examples) -> None:
        self.examples = history.Examples(examples["features"], [], examples["time"], np.arange(len(examples)))
        self.label, self.weight = examples["label"].copy(), examples["weight"].copy()
        self.arrived = None if self.delays is None else arrived(examples, self.delays)
        self.known = (
            None if self.delays is None else self.delays.at(examples["matured"].max(initial=0) - examples["time"])
        )

    def over(self, examples: Examples) -> Self:
        """The same of other examples, none of which trains or calibrates: for scoring only."""
        other = copy(self)
        other.learning = other.judging = 0
        other._take(examples)
        return other

    def begin(self, model: HeadraceModel, table: TorchTable) -> bool:
        """Changes what a model learns of the new examples without steps; whether it did. Always the same."""
        return False

    @abstractmethod
    def told(self) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats]:
        """All that has a label, each (n,): number of the example, place in it, label (a row, who ranks), weight."""

    @abstractmethod
    def scores(self, outputs: Outputs, calibration: Mapping[str, float]) -> Scores:
        """An engine's outputs for all examples, as served, for what `told` gives."""

    @abstractmethod
    def summed(self, model: HeadraceModel, table: TorchTable, batch: Batch, seed: int, *, training: bool) -> Sum:
        """Over the examples of numbers `batch`. training: with the offset, and what else only training has."""

    @abstractmethod
    def judge(self, outputs: Outputs, which: NDArray[np.intp], calibration: dict[str, float]) -> dict[str, float]:
        """Figures of an engine's outputs for the examples of numbers `which`."""


class _Chance(Served):
    """A chance of each place that has a label: weighted cross-entropy, Platt's calibration."""

    def summed(self, model: HeadraceModel, table: TorchTable, batch: Batch, seed: int, *, training: bool) -> Sum:
        logit = model(**tensors(self.task.inputs(self.examples.rows[batch], table)))["logit"].reshape(len(batch), -1)
        weight, label = self.weight[batch], self.label[batch]
        if training and self.offset:
            weight = np.where(label > 0.5, weight, weight * np.float32(self.negatives))
            logit = logit - np.float32(np.log(self.negatives))
        given = torch.from_numpy(weight)
        if self.arrived is not None:
            each = delayed_loss(logit, torch.from_numpy(label), torch.from_numpy(self.arrived[batch]))
            return (each * given).sum(), given.sum()
        total = F.binary_cross_entropy_with_logits(logit, torch.from_numpy(label), given, reduction="sum")
        return total, given.sum()

    def told(self) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats]:
        example, place = np.nonzero(self.weight > 0)
        return example, place, self.label[example, place], self.weight[example, place]

    def scores(self, outputs: Outputs, calibration: Mapping[str, float]) -> Scores:
        """Of what can be known by now: where positives still come, the chance that one has come already."""
        there = self.weight > 0
        chance = calibrated(outputs["logit"].reshape(self.weight.shape)[there], calibration)
        return Scores(chance if self.known is None else chance * self.known[np.nonzero(there)[0]])

    def flat(self, outputs: Outputs, which: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """Labels, logits and weights of what has a label, each (n,)."""
        there = self.weight[which] > 0
        logit = outputs["logit"].reshape(len(which), -1)
        return self.label[which][there], logit[there], self.weight[which][there]

    def finish(self, outputs: Outputs, which: NDArray[np.intp]) -> Finish:
        tuning, last = which < self.judging, which >= self.judging
        label, logit, weight = self.flat(part(outputs, tuning), which[tuning])
        calibration, settings = dict(self.champion.calibration), dict(self.champion.settings)
        if 0 < label.sum() < label.size:  # else the champion's stay: one class says nothing of the other
            calibration |= self.calibrated(which[tuning], label, logit, weight)  # that of conversions stays, too
            settings |= self.settings(label, calibrated(logit, calibration), weight)
        return Finish(calibration, settings, self.judge(part(outputs, last), which[last], calibration))

    def calibrated(self, which: NDArray[np.intp], label: Floats, logit: Floats, weight: Floats) -> dict[str, float]:
        """Of the examples to stop by."""
        there = self.weight[which] > 0
        if self.arrived is None:
            return platt(logit, label, weight)
        return delayed_platt(logit, label, self.arrived[which][there], weight)

    def settings(self, label: Floats, chance: NDArray[np.float64], weight: Floats) -> dict[str, Any]:
        return {"mean": float(np.average(label, weights=weight))}

    def judge(self, outputs: Outputs, which: NDArray[np.intp], calibration: dict[str, float]) -> dict[str, float]:
        label, logit, weight = self.flat(outputs, which)
        chance = calibrated(logit, calibration)
        figures = {"log_loss": log_loss(label, chance, weight)}
        if 0 < label.sum() < label.size:
            figures["normalised_entropy"] = normalised_entropy(label, chance, weight)
            figures["pr_auc"] = pr_auc(label, chance, weight)
        return figures


class ServedFraud(_Chance):
    name: ClassVar[str] = "fraud"

    def settings(self, label: Floats, chance: NDArray[np.float64], weight: Floats) -> dict[str, Any]:
        budget = float(self.champion.settings.get("review_budget", REVIEW_BUDGET))
        return super().settings(label, chance, weight) | thresholds(label, chance, budget)


class ServedClicks(_Chance):
    name: ClassVar[str] = "ctr"
    pace: ClassVar[float] = 0.1  # what is quickly learned is in the fit

    def begin(self, model: HeadraceModel, table: TorchTable) -> bool:
        new = slice(self.new)
        return refit(model, table, self.task, self.examples.rows[new], self.label[new], self.weight[new])

    def calibrated(self, which: NDArray[np.intp], label: Floats, logit: Floats, weight: Floats) -> dict[str, float]:
        """Shrunk: by a hundred clicks a level is known to a tenth, and training has seen more. Late clicks are few."""
        return shrunk_platt(logit, label, weight)


class ServedItems(Served):
    """The item that was wanted, among all that could have been: softmax over the catalogue, or a sample of it."""

    name: ClassVar[str] = "recommendations"

    def _take(self, examples: Examples) -> None:
        super()._take(examples)
        self.weight = self.weight.max(axis=1)
        self.item = self.label.max(axis=1).astype(np.int32)
        self._bias = self.catalog.candidate_bias()
        if self.prior is not None:
            self._bias = np.maximum(self._bias + self.prior, self._bias.min())
        self._candidates = np.flatnonzero(self._bias > MASKED)
        self.weight = self.weight * (self._bias[self.item] > MASKED)  # what is sold out cannot be ranked any more

    @property
    def bias(self) -> Floats:
        return self._bias

    def shared_inputs(self, vectors: Floats) -> Outputs:
        return {"catalog": vectors, "catalog_bias": self._bias}

    def told(self) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats]:
        there = np.flatnonzero(self.weight > 0)
        return there, np.zeros_like(there), self.item[there].astype(np.float32), self.weight[there]

    def scores(self, outputs: Outputs, calibration: Mapping[str, float]) -> Scores:
        there = self.weight > 0
        return Scores(outputs["scores"][there], outputs["rows"][there])

    def summed(self, model: HeadraceModel, table: TorchTable, batch: Batch, seed: int, *, training: bool) -> Sum:
        goals = self.item[batch]
        given, head = tensors(self.task.inputs(self.examples.rows[batch], table)), cast(RecommendationHead, model.head)
        states, mask = model.encode(given)
        last = model.read(states[:, -1:], states, mask, causal=False)[:, 0]
        pool = self._candidates
        if len(pool) > CANDIDATES:
            drawn = np.random.default_rng(seed).choice(pool, CANDIDATES, replace=False)
            pool = np.union1d(drawn, goals[self.weight[batch] > 0])
        rows = table.look_up(pool.astype(np.int32))
        scores = head.vectors(last) @ rows.T + torch.from_numpy(self._bias[pool])
        if head.own is not None:
            items = given["history_items"].to(torch.int64)
            scores = raised_in(scores, pool, head.own(states, last, given["history_scalars"], items))
        weight = torch.from_numpy(self.weight[batch])
        place = np.minimum(np.searchsorted(pool, goals), len(pool) - 1)  # of weight 0 where it is not in the pool
        each = F.cross_entropy(scores, torch.from_numpy(place), reduction="none")
        return (each * weight).sum(), weight.sum()

    def finish(self, outputs: Outputs, which: NDArray[np.intp]) -> Finish:
        last = which >= self.judging
        return Finish({}, dict(self.champion.settings), self.judge(part(outputs, last), which[last], {}))

    def judge(self, outputs: Outputs, which: NDArray[np.intp], calibration: dict[str, float]) -> dict[str, float]:
        there = self.weight[which] > 0
        rank = rank_of(self.item[which], outputs["rows"])[there]
        return {"hit@10": hit_at(rank, 10), "ndcg@10": ndcg_at(rank, 10)} if len(rank) else {}


def part(outputs: Outputs, keep: NDArray[np.bool_]) -> Outputs:
    return {name: each[keep] for name, each in outputs.items()}


SERVED: dict[str, type[Served]] = {each.name: each for each in (ServedFraud, ServedClicks, ServedItems)}
