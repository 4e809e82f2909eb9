"""Fine-tuning from the champion: one pass over new examples and replay, in steps that a kill does not disturb.
Whatever a step draws depends on the seed and the step's number alone, so a training that goes on from a checkpoint
ends with the very weights of one that was never stopped.
"""

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.model import HeadraceModel
from finetune import checkpoints, lora
from finetune.checkpoints import Progress
from finetune.curves import Curves
from finetune.served import Served
from finetune.trainer import LARGEST_GRADIENT, TorchTable, set_dropout
from schemas.errors import SettingsError, TrainingError

Told = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss of the step)."""

RATES = {"full": 5e-4, "lora": 3e-3, "head": 2e-3}
"""Peak rates by mode: what learns less may learn faster."""
ADAPTED = ("history", "read", "head")
KEPT = ("head.conversion",)
"""Stays as it is in each mode: clicks that are not seven days old say nothing of orders after them."""
STOP_ROWS = 1024  # of the examples to stop by, spread over all of them: each evaluation reads these
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of a parameter
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to fine-tune. mode: `full`, `lora` (low-rank adapters, merged afterwards) or `head` (the task's head only).

    steps: at most so many; 0 for one pass over all, which is also the most. rate: 0 for the mode's own, at the task's
    pace.
    evaluate_every: steps, 0 for a tenth of them. patience: evaluations without a better loss on the examples to stop
    by, after which it ends.
    """

    mode: str = "lora"
    steps: int = 0
    batch: int = 128
    rate: float = 0.0
    weight_decay: float = 0.01
    dropout: float = 0.0
    rank: int = 8
    warm_up: float = 0.1
    evaluate_every: int = 0
    checkpoint_every: int = 20
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, fine, expected in (
            ("mode", self.mode in RATES, f"one of {', '.join(RATES)}"),
            ("steps", self.steps >= 0, "0 or more"),
            ("batch", self.batch > 0, "1 or more"),
            ("rate", 0 <= self.rate < 1, "0, or a learning rate below 1"),
            ("weight_decay", 0 <= self.weight_decay < 1, "from 0 to 1"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to 1"),
            ("rank", self.rank > 0, "1 or more"),
            ("warm_up", 0 <= self.warm_up <= 1, "from 0 to 1"),
            ("evaluate_every", self.evaluate_every >= 0, "0 or more"),
            ("checkpoint_every", self.checkpoint_every > 0, "1 or more"),
            ("patience", self.patience > 0, "1 or more"),
            ("seed", 0 <= self.seed < 2**32, "from 0 to 2^32 - 1"),
        ):
            if not fine:
                raise SettingsError(f"{name} = {getattr(self, name)!r}", where="recipe", expected=expected)


@dataclass(frozen=True, slots=True)
class Fitted:
    """steps: done. best_step: whose weights were kept; 0: those before any step. before, after: loss on the examples to
    stop by.

    resumed_from: the step of the checkpoint that it went on from. parameters: how many numbers could learn.
    """

    steps: int
    best_step: int
    before: float
    after: float
    resumed_from: int
    parameters: int


def fit(
    model: HeadraceModel, problem: Served, recipe: Recipe, folder: Path, identity: str, told: Told | None = None,
    curves: Curves | None = None,
) -> Fitted:  # fmt: skip
    """Trains in place, to the weights with the least loss on the examples to stop by.

    folder: for checkpoints. identity: names champion, data and replay; with the recipe it tells whether a checkpoint
    is of this training. Deterministic where torch's number of threads is the same. Raises TrainingError for a loss
    that is no number.
    """
    torch.manual_seed(recipe.seed)
    training, curves = _Training(model, problem, recipe), curves or Curves()
    identity = hashlib.sha256(json.dumps([identity, asdict(recipe)], sort_keys=True).encode()).hexdigest()
    progress, resumed = Progress(), 0
    if (found := checkpoints.read(folder, identity)) is not None:
        progress, tensors = found
        training.restore(tensors)
        resumed = progress.step
    else:
        training.begin(progress)
    curves.begin(progress.step)
    with closing(curves):
        while progress.step < training.steps and progress.stale < recipe.patience:
            loss = training.step(progress.step)
            progress.step += 1
            curves.step(progress.step, loss=loss, rate=training.rate, examples=recipe.batch)
            if told is not None:
                told(progress.step, training.steps, loss)
            if progress.step % training.evaluate_every == 0 or progress.step == training.steps:
                training.evaluate(progress)
                curves.held(progress.step, {"loss": progress.losses[-1]})
            if progress.step % recipe.checkpoint_every == 0:
                curves.flush()
                checkpoints.write(folder, identity, progress, training.tensors())
    training.finish()
    return Fitted(progress.step, progress.best_step, progress.losses[0], progress.best, resumed, training.parameters)


class _Training:
    """The model with its optimiser. All randomness of a step comes from its number."""

    def __init__(self, model: HeadraceModel, problem: Served, recipe: Recipe) -> None:
        self._model, self._problem, self._recipe = model, problem, recipe
        self._adapted = self._choose()
        self._table = TorchTable(model, problem.catalog)
        if recipe.mode != "full":
            self._table.freeze()
        self._learning = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.parameters = sum(each.numel() for each in self._learning.values())
        self._peak = self.rate = recipe.rate or RATES[recipe.mode] * problem.pace
        self._optimiser = torch.optim.AdamW(
            self._learning.values(), lr=self._peak, weight_decay=recipe.weight_decay, foreach=True
        )
        self._best = self._copied()
        self._order = np.random.default_rng(recipe.seed).permutation(problem.learning)
        one_pass = math.ceil(problem.learning / recipe.batch)
        self.steps = min(recipe.steps or one_pass, one_pass)
        self.evaluate_every = recipe.evaluate_every or max(self.steps // 10, 1)

    def _choose(self) -> list[nn.Module]:
        self._model.requires_grad_(False)
        kept = [part for name, part in self._model.named_modules() if name in KEPT]
        if self._recipe.mode == "lora":
            return lora.adapt(self._model, ADAPTED, self._recipe.rank, kept)
        (self._model if self._recipe.mode == "full" else self._model.head).requires_grad_(True)
        for part in kept:
            part.requires_grad_(False)
        return []

    def step(self, number: int) -> float:
        """One batch. The last one of the pass is smaller."""
        recipe = self._recipe
        torch.manual_seed(_mixed(recipe.seed, number))
        batch = self._order[number * recipe.batch : (number + 1) * recipe.batch]
        self.rate = self._peak * _schedule(number, self.steps, recipe.warm_up)
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate
        set_dropout(self._model, recipe.dropout)
        self._model.train()
        self._optimiser.zero_grad(set_to_none=True)
        total, weight = self._problem.summed(
            self._model, self._table, batch, _mixed(recipe.seed, number), training=True
        )
        loss = total / weight.clamp(min=1e-6)
        value = float(loss.item())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss of {self._problem.name} is {value} at step {number + 1}",
                expected="a finite number",
                todo="look for values in the features that are not finite, or lower the learning rate",
            )
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        nn.utils.clip_grad_norm_(list(self._learning.values()), LARGEST_GRADIENT)
        self._optimiser.step()
        return value

    def begin(self, progress: Progress) -> None:
        """The champion's loss, and what is learned without steps, where that is better."""
        self.evaluate(progress)
        if self._problem.begin(self._model, self._table):
            self.evaluate(progress)
            if progress.stale:
                self._return()
                progress.stale = 0

    def _return(self) -> None:
        """To the best weights."""
        with torch.no_grad():
            for name, each in self._learning.items():
                each.copy_(self._best[name])

    def evaluate(self, progress: Progress) -> None:
        """On the examples to stop by; the best weights so far are kept."""
        loss = held_loss(self._model, self._problem, self._table)
        progress.losses.append(loss)
        if loss < progress.best:
            progress.best, progress.best_step, progress.stale = loss, progress.step, 0
            self._best = self._copied()
        else:
            progress.stale += 1

    def _copied(self) -> dict[str, Tensor]:
        return {name: each.detach().clone() for name, each in self._learning.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All that the next steps depend on, but for their numbers."""
        out = {f"weight.{name}": each.detach() for name, each in self._learning.items()}
        out |= {f"best.{name}": each for name, each in self._best.items()}
        for name, each in self._learning.items():
            state = self._optimiser.state.get(each, {})
            out |= {f"{moment}.{name}": state[moment] for moment in MOMENTS if moment in state}
        return out

    def restore(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, each in self._learning.items():
                each.copy_(tensors[f"weight.{name}"])
                self._best[name] = tensors[f"best.{name}"].clone()
                if f"step.{name}" in tensors:
                    self._optimiser.state[each] = {moment: tensors[f"{moment}.{name}"].clone() for moment in MOMENTS}

    def finish(self) -> None:
        """The best weights, as a plain model in evaluation mode."""
        self._return()
        lora.merge(self._adapted)
        self._model.requires_grad_(True).eval()  # type: ignore[no-untyped-call]  # as in evaluation
        set_dropout(self._model, 0.0)


def held_loss(model: HeadraceModel, problem: Served, table: TorchTable, which: NDArray[np.intp] | None = None) -> float:
    """Mean weighted loss over the examples of numbers `which`, or those to stop by, in evaluation mode."""
    if which is None:
        count = problem.judging - problem.learning
        which = problem.learning + np.arange(min(count, STOP_ROWS)) * count // min(count, STOP_ROWS)
    model.eval()  # type: ignore[no-untyped-call]  # transformers wraps torch's without types
    total = weight = 0.0
    with torch.no_grad():
        for start in range(0, len(which), CHUNK):
            sums = problem.summed(model, table, which[start : start + CHUNK], start, training=False)
            total, weight = total + float(sums[0]), weight + float(sums[1])
    return total / max(weight, 1e-6)


def _schedule(step: int, steps: int, warm_up: float) -> float:
    """Share of the peak rate: a linear rise, then half a cosine to a tenth."""
    rise = max(round(warm_up * steps), 1)
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(steps - rise, 1)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def _mixed(seed: int, step: int) -> int:
    """A seed of the step's own."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
