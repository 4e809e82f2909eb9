"""Losses over feature rows, of clicks and of the next item; fraud's stands with its networks, in `finetune/fraud.py`.
Each is made once from the training rows and their labels, and called with a batch of their numbers.

Shape suffixes: P positions, D width, K rows of the pool, B batch, L history length.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engines.model import HeadraceModel
from engines.recommendation_head import Raised
from finetune.trainer import Batch, Loss, Sum, TorchTable
from streams.features import Inputs, Rows
from streams.tasks.base import Task

CANDIDATES = 8192  # catalogues up to this size are ranked whole in the loss, larger ones by a sample
POSITIONS = 32  # positions of a sequence that enter the softmax of one step
MASKED = -1e8  # a bias below this is no candidate


def tensors(inputs: Inputs) -> dict[str, Tensor]:
    """Task inputs as tensors; what came from a TorchTable is one already."""
    return {name: value if isinstance(value, Tensor) else torch.from_numpy(value) for name, value in inputs.items()}


def slate_loss(task: Task, rows: Rows, label: NDArray[np.float32], shown: NDArray[np.float32]) -> Loss:
    """Binary cross-entropy over the ads that were shown; `label` and `shown` (B, slate)."""

    def loss(model: HeadraceModel, table: TorchTable, batch: Batch, rng: np.random.Generator) -> Sum:
        logit = model(**tensors(task.inputs(rows[batch], table)))["logit"]
        weight, wanted = torch.from_numpy(shown[batch]), torch.from_numpy(label[batch])
        return F.binary_cross_entropy_with_logits(logit, wanted, weight, reduction="sum"), weight.sum()

    return loss


class Teacher(NamedTuple):
    """A model that has learned, with its vectors; share: how much of what is learned is what it says, not the label."""

    model: HeadraceModel
    table: TorchTable
    share: float


def next_item_loss(
    task: Task, rows: Rows, target: NDArray[np.int32], bias: NDArray[np.float32], teacher: Teacher | None = None
) -> Loss:
    """Softmax over the catalogue at several positions of each sequence (Kang and McAuley 2018, with full softmax).

    `target` (B,) is the item after the click itself; within the history, each token's target is the next other item.
    `bias` (rows,) is added to the scores, as in serving. teacher: its distribution over the catalogue is a target too.
    """
    candidates = np.flatnonzero(bias > MASKED)

    def loss(model: HeadraceModel, table: TorchTable, batch: Batch, rng: np.random.Generator) -> Sum:
        chosen = rows[batch]
        wanted = following_items(chosen, target[batch])
        at_B, at_L = positions((wanted > 0) & (bias[wanted] > MASKED), drawn(rng, batch, wanted.shape[1]))
        places = (torch.from_numpy(at_B), torch.from_numpy(at_L))
        goals = wanted[at_B, at_L]
        pool = candidates
        if len(candidates) > CANDIDATES:
            pool = np.union1d(rng.choice(candidates, CANDIDATES, replace=False), goals)

        def scored(model: HeadraceModel, table: TorchTable) -> Tensor:
            users_PD, raised = model.users_at(*places, **tensors(task.inputs(chosen, table)))
            scores_PK = users_PD @ table.look_up(pool.astype(np.int32)).T + torch.from_numpy(bias[pool])
            return scores_PK if raised is None else raised_in(scores_PK, pool, raised)

        scores = scored(model, table)
        total = F.cross_entropy(scores, torch.from_numpy(np.searchsorted(pool, goals)), reduction="sum")
        if teacher is not None:
            with torch.no_grad():
                said = torch.softmax(scored(teacher.model, teacher.table), dim=-1)
            soft = F.cross_entropy(scores, said, reduction="sum")
            total = (1 - teacher.share) * total + teacher.share * soft
        return total, torch.tensor(float(len(goals)))

    return loss


def raised_in(scores_PK: Tensor, pool: NDArray[np.intp], raised: Raised) -> Tensor:
    """Scores of the rows of `pool` (ascending), with each position's own items raised where they are among them."""
    items = raised.items.numpy()
    place = np.minimum(np.searchsorted(pool, items), len(pool) - 1)
    there = torch.from_numpy(pool[place] == items)
    return scores_PK.scatter_add(1, torch.from_numpy(place), raised.by * there)


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


def drawn(rng: np.random.Generator, batch: Batch, columns: int) -> NDArray[np.float64]:
    """(B, columns) even numbers below 1: an example has the same ones whichever others are in the batch."""
    salt = int(rng.integers(1 << 62))
    return np.stack([np.random.default_rng([salt, number]).random(columns) for number in batch.tolist()])


def positions(usable: NDArray[np.bool_], draw: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Up to POSITIONS usable positions of each row, those of the largest draws (B, L); the last one always among them
    if it is usable.
    """
    draw = draw.copy()
    draw[:, -1] = 2.0
    draw[~usable] = -1.0
    best = np.argpartition(-draw, min(POSITIONS, draw.shape[1] - 1), axis=1)[:, :POSITIONS]
    row = np.repeat(np.arange(len(draw)), best.shape[1])
    column = best.reshape(-1)
    keep = usable[row, column]
    return row[keep], column[keep]
