"""Pretraining on unlabelled streams: each event's task is to foresee the user's next item among all there are.
It is bounded by CPU seconds, not by steps, and goes on from its checkpoint; what it makes is a recommendations model.

Shape suffixes: B batch, L history length, D width, N catalogue rows, K drawn rows.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.model import HeadraceModel
from finetune import checkpoints
from finetune.checkpoints import Progress
from finetune.sequences import Sequences, Window
from finetune.trainer import LARGEST_GRADIENT, set_dropout
from schemas.errors import SettingsError, TrainingError
from streams.catalog import Catalogue

Told = Callable[["Standing"], None]
LENGTHS = (50, 100)  # short histories go in batches of their own, as wide as these; the rest as wide as the model's
NO_MATCH = -1e4  # the logit of a drawn row that is the goal itself


@dataclass(frozen=True, slots=True)
class Course:
    """How to pretrain. cpu_s: CPU seconds of training, compiling not counted; the rate falls to zero over them.

    batch: histories of full length a step, more of shorter ones. negatives: catalogue rows drawn for each step's
    softmax, 0 for all of them. whole: share of windows that end with the user's newest event; the others end anywhere.
    average: how slowly the averaged weights follow, which are what is kept. compiled: by torch.compile, where there
    is a C++ compiler. autocast: matrix products in bfloat16.
    """

    cpu_s: float
    batch: int = 32
    rate: float = 1e-3
    dropout: float = 0.2
    item_dropout: float = 0.2
    negatives: int = 1024
    whole: float = 0.3
    average: float = 0.998
    warm_up: int = 200
    checkpoint_s: float = 120.0
    compiled: bool = True
    autocast: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, fine, expected in (
            ("cpu_s", self.cpu_s > 0, "more than 0 seconds"),
            ("batch", self.batch > 0, "1 or more"),
            ("rate", 0 < self.rate < 1, "a learning rate below 1"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to 1"),
            ("item_dropout", 0 <= self.item_dropout < 1, "from 0 to 1"),
            ("negatives", self.negatives >= 0, "0 for all, or how many"),
            ("average", 0 <= self.average < 1, "from 0 to 1"),
        ):
            if not fine:
                raise SettingsError(f"{name} = {getattr(self, name)!r}", where="pretraining", expected=expected)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a pretraining is: CPU seconds and events so far, and the mean loss since the last report."""

    steps: int
    cpu_s: float
    events: int
    loss: float


class Pretraining:
    """One training of a model on sequences. Weights, moments and averages go into checkpoints in `folder`."""

    def __init__(
        self, model: HeadraceModel, catalog: Catalogue, bias: NDArray[np.float32], sequences: Sequences,
        course: Course, folder: Path | None = None,
    ) -> None:  # fmt: skip
        """bias (N,): what is added to scores; a row below -1e8 is no candidate. Only items that occur get vectors of
        their own, the most frequent first. Raises TrainingError where no user has two events.
        """
        self._model, self._sequences, self._course, self._folder = model, sequences, course, folder
        self._usable = np.flatnonzero(sequences.events >= 2)
        if not len(self._usable):
            raise TrainingError("no user has two events", where="pretraining", expected="sequences to foresee")
        self._table = Whole(model, catalog)
        self._bias = torch.from_numpy(bias)
        self._candidates = np.flatnonzero(bias > -1e8)
        if model.config.item_buckets:
            claim(model, catalog, sequences.item)
        self._identity = json.dumps(
            [asdict(course) | {"checkpoint_s": 0}, model.config.to_dict()], sort_keys=True, default=str
        )
        self._groups = self._by_length()
        self._optimiser = optimiser(model, course.rate)
        self._average = {name: each.detach().clone() for name, each in model.named_parameters()}
        self._loss = self._compiled()
        self.standing = Standing(0, 0.0, 0, math.nan)
        self._restore()

    def run(self, told: Told | None = None) -> HeadraceModel:
        """Trains until the CPU seconds are spent; the model then has the averaged weights and is in evaluation mode."""
        torch.manual_seed(self._course.seed)
        set_dropout(self._model, self._course.dropout)
        self._model.train()
        self._warm()
        saved = self.standing.cpu_s
        losses: list[float] = []
        while self.standing.cpu_s < self._course.cpu_s:
            started = time.process_time()
            loss, events = self.step(self.standing.steps)
            losses.append(loss)
            spent = self.standing.cpu_s + time.process_time() - started
            self.standing = Standing(
                self.standing.steps + 1, spent, self.standing.events + events, float(np.mean(losses))
            )
            if spent - saved >= self._course.checkpoint_s:
                saved = spent
                self.save()
                if told is not None:
                    told(self.standing)
                losses = []
        self.save()
        return self.averaged()

    def step(self, number: int) -> tuple[float, int]:
        """Loss, and how many next items it was over. What it draws depends on the seed and its number alone."""
        draw = np.random.default_rng([self._course.seed, number])
        torch.manual_seed(int(draw.integers(2**31)))
        given = self._drawn(draw)
        for group in self._optimiser.param_groups:
            group["lr"] = self._course.rate * self._share(number)
        self._optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._course.autocast):
            loss = self._loss(*given)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        nn.utils.clip_grad_norm_(self._model.parameters(), LARGEST_GRADIENT)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {number + 1}", expected="a finite number", todo="lower the rate"
            )
        self._optimiser.step()
        follow = 1 - min(self._course.average, (number + 1) / (number + 50))
        with torch.no_grad():
            torch._foreach_lerp_(list(self._average.values()), list(self._model.parameters()), follow)
        return value, int((given[3] > 0).sum())

    def averaged(self) -> HeadraceModel:
        """The model, with the averaged weights, as it serves."""
        with torch.no_grad():
            for name, each in self._model.named_parameters():
                each.copy_(self._average[name])
        set_dropout(self._model, 0.0)
        self._model.eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types
        return self._model

    def loss(self, items: Tensor, kinds: Tensor, scalars: Tensor, goals: Tensor, pool: Tensor) -> Tensor:
        """Cross-entropy of every token's next item (0: none) against the rows of `pool`, drawn evenly.

        A drawn row stands for N / K others (Jean et al. 2015, section 3.1), so that scores mean what they do in a
        softmax over all.
        """
        table_ND = self._table()
        vectors = F.dropout(F.embedding(items, table_ND), self._course.item_dropout, self._model.training)
        users_BLD = self._model.users(history_vectors=vectors, history_kinds=kinds, history_scalars=scalars)
        users, goal = users_BLD.flatten(0, 1), goals.flatten()
        others = (users @ table_ND[pool].T).float() + self._bias[pool] + math.log(len(self._candidates) / len(pool))
        others = torch.where(pool[None] == goal[:, None], NO_MATCH, others)
        right = (users * table_ND[goal]).sum(-1).float() + self._bias[goal]
        loss = torch.logaddexp(torch.logsumexp(others, -1), right) - right
        real = (goal > 0).float()
        mean: Tensor = (loss * real).sum() / real.sum().clamp(min=1)
        return mean

    def _drawn(self, draw: np.random.Generator) -> tuple[Tensor, ...]:
        length, users, rows = self._groups[draw.choice(len(self._groups), p=self._chances())]
        chosen = draw.choice(users, rows, replace=len(users) < rows)
        most = self._sequences.events[chosen] - 1
        anywhere = draw.integers(np.minimum(length, most), most + 1)
        ends = np.where(draw.random(rows) < self._course.whole, most, anywhere)
        window = self._sequences.before(chosen, ends, length)
        count = min(self._course.negatives or len(self._candidates), len(self._candidates))
        pool = draw.permutation(self._candidates)[:count]
        return (*tensors(window), torch.from_numpy(window.next_items.astype(np.int64)), torch.from_numpy(pool))

    def _by_length(self) -> list[tuple[int, NDArray[np.intp], int]]:
        """(length, users, histories a step) of histories that fit it, and not the one before."""
        most, groups, least = self._model.config.history, [], 0
        for length in (*(each for each in LENGTHS if each < most), most):
            fits = self._sequences.events[self._usable] - 1 <= length if length < most else True
            users = self._usable[fits & (self._sequences.events[self._usable] - 1 > least)]
            if len(users):
                groups.append((length, users, self._course.batch * most // length))
            least = length
        return groups

    def _chances(self) -> NDArray[np.float64]:
        """Of each group: by its number of batches, so that every user comes as often."""
        steps = np.array([len(users) / rows for _, users, rows in self._groups])
        chances: NDArray[np.float64] = steps / steps.sum()
        return chances

    def _share(self, number: int) -> float:
        done = min(self.standing.cpu_s / self._course.cpu_s, 1.0)
        return min(1.0, (number + 1) / self._course.warm_up) * (0.01 + 0.495 * (1 + math.cos(math.pi * done)))

    def _compiled(self) -> Callable[..., Tensor]:
        if self._course.compiled and (shutil.which("g++") or shutil.which("clang++")):
            compiled: Callable[..., Tensor] = torch.compile(self.loss, dynamic=False)
            return compiled
        return self.loss

    def _warm(self) -> None:
        """Compiles each shape before the clock starts; nothing is learned."""
        draw = np.random.default_rng(0)
        groups = self._groups
        for group in groups:
            self._groups = [group]
            with torch.autocast("cpu", torch.bfloat16, enabled=self._course.autocast):
                self._loss(*self._drawn(draw)).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        self._groups = groups

    def save(self) -> None:
        """All that the next steps depend on, where there is a folder for it."""
        if self._folder is None:
            return
        tensors: dict[str, Tensor] = {f"weight.{name}": each.detach() for name, each in self._model.named_parameters()}
        tensors |= {f"average.{name}": each for name, each in self._average.items()}
        tensors |= {f"kept.{name}": each for name, each in self._model.named_buffers()}
        for name, each in self._model.named_parameters():
            state = self._optimiser.state.get(each, {})
            tensors |= {f"{moment}.{name}": state[moment] for moment in MOMENTS if moment in state}
        now = self.standing
        checkpoints.write(
            self._folder, self._identity, Progress(now.steps, losses=[now.cpu_s, float(now.events)]), tensors
        )

    def _restore(self) -> None:
        if self._folder is None or (found := checkpoints.read(self._folder, self._identity)) is None:
            return
        progress, tensors = found
        with torch.no_grad():
            for name, each in self._model.named_parameters():
                each.copy_(tensors[f"weight.{name}"])
                self._average[name] = tensors[f"average.{name}"].clone()
                if f"step.{name}" in tensors:
                    self._optimiser.state[each] = {moment: tensors[f"{moment}.{name}"].clone() for moment in MOMENTS}
            for name, buffer in self._model.named_buffers():
                buffer.copy_(tensors[f"kept.{name}"])
        self.standing = Standing(progress.step, progress.losses[0], int(progress.losses[1]), math.nan)


MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of a parameter


class Whole(nn.Module):
    """The vectors of all catalogue rows at once, with gradients: for catalogues that fit a step."""

    def __init__(self, model: HeadraceModel, catalog: Catalogue) -> None:
        super().__init__()
        self._tower = [model.item_tower]  # in a list: its parameters are the model's
        self.text = torch.from_numpy(catalog.text.copy())
        self.scalars = torch.from_numpy(catalog.scalars.copy())
        self.kinds = torch.from_numpy(catalog.kind.copy())
        self.known = torch.ones(len(catalog), 1)
        self.known[0] = 0

    def forward(self) -> Tensor:
        """(N, D); row 0 is zero."""
        vectors: Tensor = self._tower[0](self.text, self.scalars, self.kinds)
        return vectors * self.known


def tensors(window: Window) -> tuple[Tensor, Tensor, Tensor]:
    items, kinds = (torch.from_numpy(column.astype(np.int64)) for column in (window.items, window.kinds))
    return items, kinds.to(torch.int32), torch.from_numpy(window.scalars)


def optimiser(model: HeadraceModel, rate: float) -> torch.optim.AdamW:
    """No weight decay: dropout does it, and vectors of rare items should not fade."""
    return torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)


def claim(model: HeadraceModel, catalog: Catalogue, items: NDArray[np.integer], spread: float = 1.0) -> int:
    """Vectors of their own for the items that occur, the most frequent first; returns how many have one."""
    count = np.bincount(items, minlength=len(catalog))
    count[0] = 0
    rows = np.argsort(-count, kind="stable")[: np.count_nonzero(count)]
    return model.item_tower.claim(torch.from_numpy(catalog.hashes[rows]), spread)
