"""The first training of fraud: chargebacks and verdicts, of orders old enough that they have come.
Networks and trees learn from the same columns; the newest orders, which neither has seen, say how much each counts.
"""

from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engines.fraud_head import FraudHead
from engines.model import HeadraceModel
from engines.trees import Trees
from finetune import boosting, columns
from finetune.boosting import Growth
from finetune.calibrate import REVIEW_BUDGET, blend, ordinary, platt, thresholds
from finetune.history import Examples
from finetune.labels import fraud_labels
from finetune.losses import tensors
from finetune.metrics import log_loss, normalised_entropy, pr_auc
from finetune.recorded import Finish, Outputs, Recorded
from finetune.trainer import Batch, Loss, Sum, TorchTable
from schemas.errors import TrainingError
from streams.tasks.base import calibrated
from streams.tasks.fraud import COLUMN

DAY_MS = 86_400_000
MATURITY_MS = 28 * DAY_MS  # by then nearly all chargebacks have come (their median is a week)
CHUNK = 512
SHARED_ROWS = 16_384  # of the held-out orders, the newest: these say how much networks and trees count


class Fraud(Recorded):
    """Chargebacks and verdicts, of orders old enough that they have come."""

    name: ClassVar[str] = "fraud"
    held_rows: ClassVar[int] = SHARED_ROWS
    review_budget = REVIEW_BUDGET
    growth = Growth()

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
        self.fitted = columns.fit(self.examples.rows[: self.learning], self.label[: self.learning])

    def sizes(self) -> dict[str, int]:
        return self.fitted.sizes

    def begin(self, model: HeadraceModel) -> None:
        """Fits attributes, categories and scalings, and starts at the average rate."""
        head, label = cast(FraudHead, model.head), self.label[: self.learning]
        columns.put(head.columns, self.fitted.buffers)
        made = self.columns(model, np.arange(self.learning))
        self.learned = columns.as_trained(head, made, self.fitted)
        columns.fit_scaling(head.scaling, self.learned[:, : head.plain])
        with torch.no_grad():
            head.members.bias.fill_(float(np.log(label.mean() / (1 - label.mean()))))

    def loss(self) -> Loss:
        """Binary cross-entropy of each member's logit. A fraud weighs `loss_weights["positive"]`, 1 where it is not
        named: calibration brings the level back.
        """
        positive = self.loss_weights.get("positive", 1.0)

        def loss(model: HeadraceModel, table: TorchTable, batch: Batch, rng: np.random.Generator) -> Sum:
            inputs = self.inputs(batch, table)
            inputs["columns"] = torch.from_numpy(self.learned[batch])
            each_BE = model(**inputs)["members"]
            label_BE = torch.from_numpy(self.label[batch])[:, None].expand_as(each_BE)
            weight_BE = 1 + label_BE * (positive - 1)
            total = F.binary_cross_entropy_with_logits(each_BE, label_BE, weight_BE, reduction="sum")
            return total, weight_BE.sum()

        return loss

    def end(self, model: HeadraceModel) -> None:
        """Grows the trees, and sets how much they count, by all that is held out."""
        head = cast(FraudHead, model.head)
        grown = boosting.grow(self.learned, self.label[: self.learning], self.growth)
        model.config.leaves, model.config.depth = self.growth.leaves, self.growth.depth
        arrays = boosting.arrays(grown, self.growth.leaves, self.learned.shape[1])
        model.config.trees = len(arrays["root"])
        head.trees = Trees(model.config.trees, model.config.leaves, model.config.depth)
        columns.put(head.trees, arrays)
        self.weigh(model, np.arange(self.learning, len(self.examples))[-SHARED_ROWS:])

    def weigh(self, model: HeadraceModel, which: NDArray[np.intp]) -> None:
        """Sets how much the trees count, by the examples of numbers `which`."""
        head = cast(FraudHead, model.head)
        assert head.trees is not None
        with torch.no_grad():
            trees = head.trees(torch.from_numpy(self.columns(model, which))).numpy()
        head.share.fill_(0.0)
        head.share.fill_(blend(self.logits(model, which), trees, self.label[which]))

    def inputs(self, which: NDArray[np.intp], table: TorchTable) -> dict[str, Tensor]:
        """Engine inputs as tensors, cut to the longest history among them and one place: distances mean the same."""
        rows = self.examples.rows[which]
        longest = min(rows["kind"].shape[1], 2 + int((rows["kind"][:, 1:] > 0).sum(axis=1).max(initial=0)))
        made = tensors(self.task.inputs(rows, table))
        return {name: each[:, -longest:] if name.startswith("history_") else each for name, each in made.items()}

    def columns(self, model: HeadraceModel, which: NDArray[np.intp]) -> NDArray[np.int32]:
        """(n, M) codes, as the model makes them of the examples of numbers `which`."""
        made = cast(FraudHead, model.head).columns
        return self._over(model, which, lambda inputs: torch.cat(made(inputs), dim=-1))

    def logits(self, model: HeadraceModel, which: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n,) of the model as it is."""
        model.eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types
        return self._over(model, which, lambda inputs: model(**inputs)["logit"])

    def _over(self, model: HeadraceModel, which: NDArray[np.intp], made: Any) -> NDArray[Any]:
        table = TorchTable(model, self.catalog)
        table.freeze()
        with torch.no_grad():
            parts = [made(self.inputs(which[at : at + CHUNK], table)).numpy() for at in range(0, len(which), CHUNK)]
        return np.concatenate(parts)

    def finish(self, outputs: Outputs, which: NDArray[np.intp]) -> Finish:
        label, calibration = self.label[which], platt(outputs["logit"], self.label[which])
        chance = calibrated(outputs["logit"], calibration)
        metrics = {"log_loss": log_loss(label, chance)}
        if label.any():
            metrics |= {"pr_auc": pr_auc(label, chance), "normalised_entropy": normalised_entropy(label, chance)}
        settings: dict[str, Any] = {"mean": float(self.label.mean())}
        settings |= thresholds(label, chance, self.review_budget)
        fields = self.examples.rows["fields"][: self.learning]
        settings["baseline"] = ordinary(fields, self.label[: self.learning], COLUMN["orders"])
        return Finish(calibration, settings, metrics)
