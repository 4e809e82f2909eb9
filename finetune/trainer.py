"""Training of one model: batches of feature rows, the task's loss, AdamW under a one-cycle rate.
The number of steps is fixed, not the time, so that equal data and seed give equal weights on equal machines.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.blocks import Block
from engines.model import HeadraceModel
from engines.pointwise import Pointwise
from schemas.errors import TrainingError
from streams.catalog import Catalogue

Batch = NDArray[np.intp]
Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""

WARM_UP = 0.2
LARGEST_GRADIENT = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. `rate` is the peak of the one-cycle schedule (Smith and Topin 2018).

    frozen: parts of the model that stay as they are. dropout: in training only.
    """

    steps: int
    batch: int = 128
    rate: float = 3e-3
    weight_decay: float = 0.02
    dropout: float = 0.0
    frozen: tuple[str, ...] = ()
    seed: int = 0


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


Loss = Callable[[HeadraceModel, TorchTable, Batch, np.random.Generator], Tensor]
"""The mean loss of a batch, which is numbers of examples."""


def fit(
    model: HeadraceModel, size: int, loss: Loss, table: TorchTable, plan: Plan, progress: Progress | None = None
) -> float:
    """Trains in place on examples 0 to `size`, and returns the mean loss of the last tenth of the steps.

    Raises TrainingError for no examples, and for a loss that is not finite.
    """
    if not size:
        raise TrainingError(f"no examples to train {model.config.task} on", expected="at least one")
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    learning = _prepared(model, table, plan)
    optimiser = torch.optim.AdamW(learning, lr=plan.rate, weight_decay=plan.weight_decay, foreach=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, plan.rate, total_steps=max(plan.steps, 2), pct_start=WARM_UP
    )
    losses: list[float] = []
    for step, batch in enumerate(batches(size, plan, rng)):
        optimiser.zero_grad(set_to_none=True)
        value = loss(model, table, batch, rng)
        value.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        nn.utils.clip_grad_norm_(learning, LARGEST_GRADIENT)
        optimiser.step()
        schedule.step()
        losses.append(value.item())
        if not np.isfinite(losses[-1]):
            raise TrainingError(
                f"the loss of {model.config.task} is {losses[-1]} at step {step + 1}",
                expected="a finite number",
                todo="look for values in the features that are not finite, or lower the learning rate",
            )
        if progress is not None:
            progress(step + 1, plan.steps, losses[-1])
    model.requires_grad_(True).eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types
    set_dropout(model, 0.0)
    return float(np.mean(losses[-max(1, plan.steps // 10) :]))


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
