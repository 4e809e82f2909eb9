"""Training of one model: batches of feature rows, the task's loss, AdamW under a one-cycle rate.
The number of steps is fixed, not the time, so that equal data and seed give equal weights on equal machines.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.blocks import Block
from engines.model import HeadraceModel
from engines.pointwise import Pointwise
from finetune.curves import Curves
from finetune.spread import ALONE, Spread
from schemas.errors import TrainingError
from streams.catalog import Catalogue

Batch = NDArray[np.intp]
Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""

WARM_UP = 0.2
LARGEST_GRADIENT = 1.0
LOOKS = 10  # at held-out examples, during one training


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. `rate` is the peak of the one-cycle schedule (Smith and Topin 2018).

    frozen: parts of the model that stay as they are. dropout: in training only. sizes: of the model's config, where
    they differ from the family's; a model of other sizes than the ground's begins without it. loss_weights: by name, as
    the task's loss knows them.
    """

    steps: int
    batch: int = 128
    rate: float = 3e-3
    weight_decay: float = 0.02
    dropout: float = 0.0
    frozen: tuple[str, ...] = ()
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    loss_weights: Mapping[str, float] = field(default_factory=dict)


class TorchTable:
    """The vector table of a model under training: rows are encoded as they are looked up, with gradients.

    Where the item tower is frozen, all rows are encoded once.
    """

    def __init__(self, model: HeadraceModel, catalog: Catalogue) -> None:
        self._text = torch.from_numpy(catalog.text.copy())
        self._scalars = torch.from_numpy(catalog.scalars.copy())
        self._kinds = torch.from_numpy(catalog.kind.copy())
        self._model = model
        self._fixed: Tensor | None = None

    def freeze(self) -> None:
        """From here on the item tower does not change."""
        with torch.no_grad():
            self._fixed = self._encode(torch.arange(len(self._text)))

    def look_up(self, rows: NDArray[np.int32]) -> Tensor:
        """(...) catalogue rows to vectors (..., D). Each distinct row is encoded once; row 0 is zero."""
        if self._fixed is not None:
            return F.embedding(torch.from_numpy(rows.astype(np.int64)), self._fixed)
        distinct, inverse = np.unique(rows, return_inverse=True)
        vectors = self._encode(torch.from_numpy(distinct.astype(np.int64)))
        return F.embedding(torch.from_numpy(inverse.reshape(rows.shape)), vectors)

    def look_up_mean(self, rows: NDArray[np.int32]) -> Tensor:
        """(B, n) catalogue rows to the mean vector of the known ones (B, D); zero where none is known."""
        known = torch.from_numpy(np.maximum((rows > 0).sum(axis=1, keepdims=True), 1).astype(np.float32))
        return self.look_up(rows).sum(dim=1) / known

    def _encode(self, rows: Tensor) -> Tensor:
        vectors = self._model.item_tower(self._text[rows], self._scalars[rows], self._kinds[rows])
        return cast(Tensor, vectors * (rows > 0)[:, None])


Sum = tuple[Tensor, Tensor]
"""A loss summed over examples and their weights, and the sum of these."""
Loss = Callable[[HeadraceModel, TorchTable, Batch, np.random.Generator], Sum]
"""Of a batch, which is numbers of examples. What it draws of the generator may not depend on which examples they are:
of several processes each is given its share, and all draw the same."""
Held = Callable[[HeadraceModel, TorchTable], Mapping[str, float]]
"""Figures of held-out examples, of a model in evaluation mode."""


def fit(
    model: HeadraceModel, size: int, loss: Loss, table: TorchTable, plan: Plan, progress: Progress | None = None,
    *, curves: Curves | None = None, held: Held | None = None, spread: Spread = ALONE,
) -> float:  # fmt: skip
    """Trains in place on examples 0 to `size`, and returns the mean loss of the last tenth of the steps.

    held: looked at LOOKS times, for the curves or for what it tells itself; it changes nothing of what is learned.
    Raises TrainingError for no examples, and for a loss that is not finite.
    """
    if not size:
        raise TrainingError(f"no examples to train {model.config.task} on", expected="at least one")
    curves = curves or Curves()
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    learning = _prepared(model, table, plan)
    optimiser = torch.optim.AdamW(learning, lr=plan.rate, weight_decay=plan.weight_decay, foreach=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, plan.rate, total_steps=max(plan.steps, 2), pct_start=WARM_UP
    )
    losses: list[float] = []
    every = max(1, plan.steps // LOOKS)
    curves.begin()
    with closing(curves):
        for step, batch in enumerate(batches(size, plan, rng), 1):
            optimiser.zero_grad(set_to_none=True)
            losses.append(spread.descend(*loss(model, table, spread.share(batch), rng), learning))
            nn.utils.clip_grad_norm_(learning, LARGEST_GRADIENT)
            rate = float(schedule.get_last_lr()[0])
            optimiser.step()
            schedule.step()
            if not np.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss of {model.config.task} is {losses[-1]} at step {step}",
                    expected="a finite number",
                    todo="look for values in the features that are not finite, or lower the learning rate",
                )
            curves.step(step, loss=losses[-1], rate=rate, examples=len(batch))
            if held is not None and (step % every == 0 or step == plan.steps):
                curves.held(step, _looked(held, model, table))
            if progress is not None:
                progress(step, plan.steps, losses[-1])
    model.requires_grad_(True).eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types
    set_dropout(model, 0.0)
    return float(np.mean(losses[-max(1, plan.steps // 10) :]))


def _looked(held: Held, model: HeadraceModel, table: TorchTable) -> Mapping[str, float]:
    model.eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types
    figures = held(model, table)
    model.train()
    return figures


def _prepared(model: HeadraceModel, table: TorchTable, plan: Plan) -> list[nn.Parameter]:
    """The parameters that learn, the rest frozen, and the model in training mode."""
    for name in plan.frozen:
        model.get_submodule(name).requires_grad_(False)
    if "item_tower" in plan.frozen:
        table.freeze()
    set_dropout(model, plan.dropout)
    model.train()
    return [each for each in model.parameters() if each.requires_grad]


def set_dropout(model: HeadraceModel, share: float) -> None:
    """In every block; a release's own dropout is 0."""
    for module in model.modules():
        if isinstance(module, Block | Pointwise):
            module.dropout = share


def batches(size: int, plan: Plan, rng: np.random.Generator) -> Iterator[Batch]:
    """Passes over a fresh permutation each; the last batch of a pass is filled from the next one."""
    order: Batch = np.zeros(0, np.intp)
    for _ in range(plan.steps):
        while len(order) < plan.batch:
            order = np.concatenate([order, rng.permutation(size)])
        yield order[: plan.batch]
        order = order[plan.batch :]
