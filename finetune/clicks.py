"""What a first training needs of click-through: labels of the ads that came into view, a start, and calibration.
A start is not learned by steps: rates of positions and ads are counted and a linear part is fitted, in a few seconds.
"""

from collections.abc import Callable
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from engines.conversion_head import IDS, ConversionHead
from engines.ctr_head import PLACES, CtrHead
from engines.interests import Inputs
from engines.model import HeadraceModel
from finetune.calibrate import shrunk_platt
from finetune.conversion_fit import LEAST, Clicked, enough, fit_conversions, measured
from finetune.labels import click_labels, click_weights, conversion_labels, shown_ads
from finetune.losses import slate_loss, tensors
from finetune.metrics import log_loss, normalised_entropy
from finetune.recorded import VALIDATION, Finish, Outputs, Recorded
from finetune.trainer import Loss, TorchTable
from schemas.errors import TrainingError
from streams.batch import KINDS
from streams.features import Rows
from streams.tasks.base import calibrated
from streams.tasks.ctr import slate_inputs

START_ROWS = 20_000  # of the newest impressions, for the linear fit
CHUNK = 512
STRENGTH = 0.1  # variance of the linear weights before anything is known: a hundred clicks must not fill forty of them
PRIOR_CLICKS = 10.0  # of an ad or a position: so many say as much as what is known of the others
PASSIVE = tuple(KINDS[name] for name in ("uncart", "search", "order", "impression", "unknown"))
"""Kinds of events that say little of what a user likes, before anything is learned."""
FADING = 0.08  # an event says so much less than the one after it, in logs, before anything is learned


class ClickThrough(Recorded):
    """Clicks that name the impression and the ad, over the ads that came into view; and orders after the clicks, over
    the ads that were clicked long enough ago.
    """

    name: ClassVar[str] = "ctr"
    held_rows: ClassVar[int] = 50_000

    def prepare(self) -> None:
        slots = self.examples.rows["ad"].shape[1]
        self.label = click_labels(self.examples.events, self.recording.labels, slots)
        self.shown = shown_ads(self.examples.events, slots)
        self.shown *= click_weights(self.examples.rows, self.examples.events, self.recording.labels, slots)
        if not 0 < self.label[: self.learning].sum() < self.shown[: self.learning].sum():
            raise TrainingError(
                f"{int(self.label.sum())} clicks on {int(self.shown.sum())} ads",
                where="ctr",
                expected="ads that were clicked, by clicks that name their impression and ad, and ads that were not",
            )

        bought, known = conversion_labels(self.examples.events, self.recording.labels, slots, self.recording.until)
        self.bought, self.known = bought > 0, known * self.shown * (self.examples.rows["ad_item"] > 0)
        clicked = np.flatnonzero((self.known > 0).any(axis=1))
        last = round(len(clicked) * (1 - VALIDATION))
        self.fitting, self.measuring = clicked[:last], clicked[last:]
        self.converts = enough(self.bought[self.fitting][self.known[self.fitting] > 0])
        self.conversions: tuple[dict[str, float], dict[str, float]] = {}, {}

    def sizes(self) -> dict[str, int]:
        """A head for conversions only where there is something to learn for it."""
        return {"affinities": 1, "conversions": int(self.converts)}

    def remarks(self) -> dict[str, str]:
        bought = self.bought[self.fitting][self.known[self.fitting] > 0]
        said = f"{int(bought.sum()):,} orders after {len(bought):,} clicks on ads that are seven days old"
        return {"conversions": said if self.converts else f"not estimated: {said}; {LEAST} of both kinds are needed"}

    def begin(self, model: HeadraceModel) -> None:
        """Starts from the rates of positions and ads and a linear fit of the facts; the rest adds nothing yet."""
        first = slice(self.learning)
        rows, label, shown = self.examples.rows[first], self.label[first], self.shown[first] == 1.0
        head = cast(CtrHead, model.head)
        with torch.no_grad():
            head.begin(FADING, PASSIVE)
            self._count(head, rows, label, shown)
            newest = slice(-START_ROWS, None)
            self._fit_line(model, head, rows[newest], label[newest], shown[newest])

    def _count(self, head: CtrHead, rows: Rows, label: NDArray[np.float32], shown: NDArray[np.bool_]) -> None:
        """Sets the biases of positions and ads."""
        ids, clicked = slate_inputs(rows)["slate_ids"][shown], label[shown]
        place, ad = np.minimum(ids[:, 3], PLACES - 1), ids[:, 0]
        rate = np.full(len(clicked), clicked.mean(), np.float64)
        by_place, _ = effects(place, clicked, rate, PLACES)
        by_ad, seen = effects(ad, clicked, rate * np.exp(by_place)[place], IDS)
        head.position.weight.copy_(torch.from_numpy(by_place)[:, None])
        head.bias.weight.copy_(torch.from_numpy(np.where(seen, by_ad, 0.0))[:, None])

    def _fit_line(
        self, model: HeadraceModel, head: CtrHead, rows: Rows, label: NDArray[np.float32], shown: NDArray[np.bool_]
    ) -> None:
        """Logistic regression on what the head calls facts, and on the biases, which are scaled as it finds."""

        def known(inputs: Inputs) -> Tensor:
            return torch.cat([head.biases(inputs["slate_ids"])[..., None], head.facts(inputs)], dim=-1)

        facts, clicked = self._facts(model, rows, shown, known), label[shown]
        if not 0 < clicked.sum() < len(clicked):  # all clicks are older than what is looked at: steps will have to do
            return
        line = LogisticRegression(C=STRENGTH, max_iter=200).fit(facts, clicked)
        scale, *weights = line.coef_[0].tolist()
        head.line.weight.copy_(torch.tensor(weights)[None])
        head.line.bias.copy_(torch.from_numpy(line.intercept_))
        head.position.weight.mul_(scale)
        head.bias.weight.mul_(scale)

    def _facts(
        self, model: HeadraceModel, rows: Rows, chosen: NDArray[np.bool_], facts: Callable[[Inputs], Tensor]
    ) -> NDArray[np.float32]:
        """(n, X) what is known of the ads of `rows` that are chosen, by a head's `facts`."""
        table = TorchTable(model, self.catalog)
        table.freeze()
        parts = []
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            parts.append(facts(tensors(self.task.inputs(rows[part], table))).numpy()[chosen[part]])
        return np.concatenate(parts)

    def end(self, model: HeadraceModel) -> None:
        """Fits the head of conversions, on what the steps have made of the interests."""
        head = cast(CtrHead, model.head)
        if head.conversion is None:
            return
        head.conversion.interests.load_state_dict(head.interests.state_dict())
        fit_conversions(head.conversion, self._clicked(model, head.conversion, self.fitting))
        self.conversions = measured(head.conversion, self._clicked(model, head.conversion, self.measuring))

    @torch.no_grad()
    def _clicked(self, model: HeadraceModel, head: ConversionHead, which: NDArray[np.intp]) -> Clicked:
        rows, known = self.examples.rows[which], self.known[which]
        there = known > 0
        ad = slate_inputs(rows)["slate_ids"][there][:, 0]
        return Clicked(self._facts(model, rows, there, head.facts), ad, self.bought[which][there], known[there])

    def loss(self) -> Loss:
        first = slice(self.learning)
        return slate_loss(self.task, self.examples.rows[first], self.label[first], self.shown[first])

    def finish(self, outputs: Outputs, which: NDArray[np.intp]) -> Finish:
        shown = self.shown[which] > 0
        label, logit = self.label[which][shown], outputs["logit"][shown]
        calibration = shrunk_platt(logit, label)
        chance = calibrated(logit, calibration)
        metrics = {"log_loss": log_loss(label, chance)}
        if label.any():
            metrics |= {"normalised_entropy": normalised_entropy(label, chance)}
        mean = float((self.label * self.shown).sum() / self.shown.sum())
        more, figures = self.conversions
        return Finish(calibration | more, {"mean": mean}, metrics | figures)


def effects(
    group: NDArray[np.integer], clicked: NDArray[np.float32], expected: NDArray[np.float64], groups: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(groups,) log of how much more often each group is clicked than expected, and which were there at all.

    Shrunk towards 0 by PRIOR_CLICKS: the mean of a gamma prior's posterior (Gelman et al. 2013, section 2.6).
    """
    clicks = np.bincount(group, clicked, groups)
    due = np.bincount(group, expected, groups)
    return np.log((clicks + PRIOR_CLICKS) / (due + PRIOR_CLICKS)), due > 0
