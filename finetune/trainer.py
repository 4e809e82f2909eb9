"""Training of one model: batches of feature rows, the task's loss, AdamW under a one-cycle rate.
The number of steps is fixed, not the time, so that equal data and seed give equal weights on equal machines.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engines.model import HeadraceModel
from finetune.history import Examples
from streams.catalog import Catalogue
from streams.features import Inputs, Rows
from streams.tasks.base import Task

Batch = NDArray[np.intp]
Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""

CANDIDATES = 8192  # catalogues up to this size are ranked whole in the loss, larger ones by a sample
POSITIONS = 8  # positions of a sequence that enter the softmax of one step


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. `rate` is the peak of the one-cycle schedule (Smith and Topin 2018)."""

    steps: int
    batch: int = 128
    rate: float = 3e-3
    weight_decay: float = 0.02
    seed: int = 0


class TorchTable:
    """The vector table of a model under training: rows are encoded as they are looked up, with gradients."""

    def __init__(self, model: HeadraceModel, catalog: Catalogue) -> None:
        self.text = torch.from_numpy(catalog.text.copy())
        self.scalars = torch.from_numpy(catalog.scalars.copy())
        self.kinds = torch.from_numpy(catalog.kind.copy())
        self._model = model

    def look_up(self, rows: NDArray[np.int32]) -> Tensor:
        """(..., D). Each distinct row is encoded once; row 0 is zero."""
        distinct, inverse = np.unique(rows, return_inverse=True)
        index = torch.from_numpy(distinct.astype(np.int64))
        vectors = self._model.item_tower(self.text[index], self.scalars[index], self.kinds[index])
        vectors = vectors * (index > 0)[:, None]
        found: Tensor = vectors[torch.from_numpy(inverse.reshape(rows.shape))]
        return found

    def look_up_mean(self, rows: NDArray[np.int32]) -> Tensor:
        known = torch.from_numpy(np.maximum((rows > 0).sum(axis=1, keepdims=True), 1).astype(np.float32))
        return self.look_up(rows).sum(dim=1) / known


def fit(
    model: HeadraceModel,
    task: Task,
    examples: Examples,
    loss: Callable[[HeadraceModel, TorchTable, Batch, np.random.Generator], Tensor],
    table: TorchTable,
    plan: Plan,
    progress: Progress | None = None,
) -> float:
    """Trains in place and returns the mean loss of the last tenth of the steps.

    Raises ValueError for no examples; a loss that is not finite ends the training with FloatingPointError.
    """
    if not len(examples):
        raise ValueError(f"no examples to train {task.name} on")
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, total_steps=plan.steps, pct_start=0.2)
    model.train()
    losses: list[float] = []
    for step, batch in enumerate(_batches(len(examples), plan, rng)):
        optimiser.zero_grad(set_to_none=True)
        value = loss(model, table, batch, rng)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(value.item())
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss of {task.name} is {losses[-1]} at step {step}")
        if progress is not None:
            progress(step + 1, plan.steps, losses[-1])
    model.eval()  # type: ignore[no-untyped-call]
    return float(np.mean(losses[-max(1, plan.steps // 10) :]))


def tensors(inputs: Inputs) -> dict[str, Tensor]:
    """Task inputs as tensors; what came from a TorchTable is one already."""
    return {name: value if isinstance(value, Tensor) else torch.from_numpy(value) for name, value in inputs.items()}


def fraud_loss(task: Task, rows: Rows, label: NDArray[np.float32]) -> Callable[..., Tensor]:
    """Binary cross-entropy of the order's logit."""

    def loss(model: HeadraceModel, table: TorchTable, batch: Batch, rng: np.random.Generator) -> Tensor:
        logit = model(**tensors(task.inputs(rows[batch], table)))["logit"]
        return F.binary_cross_entropy_with_logits(logit, torch.from_numpy(label[batch]))

    return loss


def slate_loss(task: Task, rows: Rows, label: NDArray[np.float32], shown: NDArray[np.float32]) -> Callable[..., Tensor]:
    """Binary cross-entropy over the ads that were shown, (B, slate)."""

    def loss(model: HeadraceModel, table: TorchTable, batch: Batch, rng: np.random.Generator) -> Tensor:
        logit = model(**tensors(task.inputs(rows[batch], table)))["logit"]
        weight = torch.from_numpy(shown[batch])
        return F.binary_cross_entropy_with_logits(logit, torch.from_numpy(label[batch]), weight, reduction="sum") / (
            weight.sum().clamp(min=1)
        )

    return loss


def next_item_loss(
    task: Task, rows: Rows, target: NDArray[np.int32], bias: NDArray[np.float32]
) -> Callable[..., Tensor]:
    """Softmax over the catalogue at several positions of each sequence (Kang and McAuley 2018, with full softmax).

    `target` (B,) is the item after the click itself; within the history, each token's target is the next other item.
    """
    candidates = np.flatnonzero(bias > -1e8)

    def loss(model: HeadraceModel, table: TorchTable, batch: Batch, rng: np.random.Generator) -> Tensor:
        chosen = rows[batch]
        wanted = following_items(chosen, target[batch])
        users_BLD = model.users(**tensors(task.inputs(chosen, table)))
        at_B, at_L = _positions(wanted > 0, rng)
        goals = wanted[at_B, at_L]
        rest = candidates if len(candidates) <= CANDIDATES else rng.choice(candidates, CANDIDATES, replace=False)
        pool = np.union1d(rest, goals)
        scores = users_BLD[at_B, at_L] @ table.look_up(pool.astype(np.int32)).T + torch.from_numpy(bias[pool])
        return F.cross_entropy(scores, torch.from_numpy(np.searchsorted(pool, goals)))

    return loss


def following_items(rows: Rows, target: NDArray[np.int32]) -> NDArray[np.int32]:
    """(B, L) for every token of the sequence, the next item that is another one; 0 where there is none."""
    item = np.concatenate([rows["item"][:, 1:], rows["now_item"][:, None]], axis=1)
    kind = np.concatenate([rows["kind"][:, 1:], rows["now_kind"][:, None]], axis=1)
    wanted = np.zeros_like(item)
    upcoming, after = target.copy(), np.zeros_like(target)  # the next item, and the next that differs from it
    for position in range(item.shape[1] - 1, -1, -1):
        here = item[:, position]
        wanted[:, position] = np.where(upcoming != here, upcoming, after)
        moved = (here > 0) & (here != upcoming)
        after = np.where(moved, upcoming, after)
        upcoming = np.where(moved, here, upcoming)
    return np.where(kind > 0, wanted, 0)


def _positions(usable: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Up to POSITIONS random usable positions of each row, the last one always among them if it is usable."""
    draw = rng.random(usable.shape)
    draw[:, -1] = 2.0
    draw[~usable] = -1.0
    best = np.argpartition(-draw, min(POSITIONS, draw.shape[1] - 1), axis=1)[:, :POSITIONS]
    row = np.repeat(np.arange(len(draw)), best.shape[1])
    column = best.reshape(-1)
    keep = usable[row, column]
    return row[keep], column[keep]


def _batches(size: int, plan: Plan, rng: np.random.Generator) -> Iterator[Batch]:
    """Passes over a fresh permutation each; the last batch of a pass is filled from the next one."""
    order: NDArray[np.intp] = np.zeros(0, np.intp)
    for _ in range(plan.steps):
        while len(order) < plan.batch:
            order = np.concatenate([order, rng.permutation(size)])
        yield order[: plan.batch]
        order = order[plan.batch :]
