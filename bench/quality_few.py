"""Few labels, with and without pretraining: `python -m bench.quality_few`, on the simulator's world. Users and items
are learned from all events before the border, without a label; then fraud and click-through learn from 1 %, 10 % and
all labels, on that ground or from nothing, and are judged on the weeks after it.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.quality_world import FRAUD_RATE, Clock, encoded, stream
from bench.report import show
from engines.model import HeadraceModel
from finetune import metrics
from finetune.first import GROUND, PLANS, new_model, trained_model
from finetune.history import Recording, replay
from finetune.pretrain import Course, Pretraining
from finetune.problems import PROBLEMS, Recommendations
from finetune.recorded import Recorded
from finetune.sequences import sequences_of
from finetune.trainer import TorchTable
from schemas.errors import HeadraceError
from streams.catalog import Catalogue
from streams.demo.models import SEED
from streams.sources.world import World, WorldConfig, milliseconds
from streams.tasks import make_task
from streams.tasks.base import calibrated

START, BORDER, END = "2011-06-01", "2011-11-01", "2011-12-09"
SHARES = (0.01, 0.1, 1.0)
TASKS = ("fraud", "ctr")
KEEP = {"recommendations": 0.06, "ctr": 0.4}
PRETRAIN_CPU_S = 90.0
LEAST = 4  # of each class that stay, however small the share
DRAWS, DIGITS = 200, 4
TARGETS = {
    "ctr_1_percent_log_loss_difference_high": 0.0,
    "fraud_1_percent_log_loss_difference_high": 0.0,
}
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quality_few", description=__doc__)
    parser.add_argument("--pretrain", type=float, default=PRETRAIN_CPU_S, help="CPU seconds of it")
    parser.add_argument("--start", default=START, help="of the world: a later day makes it quicker")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(1)
    try:
        show("quality_few", figures(arguments.start, arguments.pretrain), TARGETS, DIGITS)
    except HeadraceError as error:
        sys.exit(str(error))


def figures(start: str = START, pretrain_s: float = PRETRAIN_CPU_S) -> dict[str, Any]:
    """Raises DataUnavailable, TrainingError."""
    world = World(WorldConfig(start=start, end=END, shop="real", fraud_rate=FRAUD_RATE), SEED)
    catalog, clock, border = encoded(world), Clock(), milliseconds(BORDER)
    recording = replay(stream(world), [make_task(name) for name in ("recommendations", *TASKS)], catalog, KEEP)
    known = recording.before(border)
    ground, steps = pretrained(world, known, catalog, border, pretrain_s)
    said: dict[str, Any] = {"pretraining_cpu_s": pretrain_s, "pretraining_steps": steps}
    for task in TASKS:
        asked = Later.of(PROBLEMS[task](make_task(task), recording, catalog), border)
        for share in SHARES:
            name = f"{task}_{share * 100:g}_percent"
            print(name, file=sys.stderr, flush=True)
            part, kept = few(known, task, catalog, share)
            said |= {f"{name}_labels": kept[0], f"{name}_positives": kept[1]}
            chances = [asked.chances(part, base) for base in (ground, None)]
            said |= compared(name, asked.label, *chances)
    return said | clock.so_far("whole")


def pretrained(
    world: World, known: Recording, catalog: Catalogue, border: int, cpu_s: float
) -> tuple[HeadraceModel, int]:
    """A model that foresees the next item, from all events before the border."""
    problem = Recommendations(make_task(Recommendations.name), known, catalog)
    model = new_model(Recommendations.name, None)
    problem.begin(model)
    early = (pair for pair in stream(world) if pair[1].get("event_time", border) < border)
    course = Course(cpu_s=cpu_s, compiled=False, checkpoint_s=cpu_s)
    training = Pretraining(model, catalog, problem.bias, sequences_of(early, catalog), course)
    return training.run(), training.standing.steps


def few(known: Recording, task: str, catalog: Catalogue, share: float) -> tuple[Recorded, tuple[int, int]]:
    """The task with a share of its labelled examples, drawn by a seed, and how many there are and are positive.

    At least LEAST positives among those that train: less cannot be learned from.
    """
    problem = PROBLEMS[task](make_task(task), known, catalog)
    positive = positives(problem)
    draw = np.random.default_rng(SEED).random(len(positive))
    keep = draw < share
    early = np.flatnonzero(positive[: problem.learning])
    keep[early[np.argsort(draw[early])[: 2 * LEAST]]] = True
    part = problem.examples.part(keep)
    thin = replace(known, examples={**known.examples, task: part})
    made = PROBLEMS[task](make_task(task), thin, catalog)
    return made, (len(made.label), int(positives(made).sum()))


def positives(problem: Recorded) -> NDArray[np.bool_]:
    """(N,) which examples have a positive label."""
    return np.asarray(problem.label.reshape(len(problem.label), -1).max(axis=1) > 0.5)


@dataclass(frozen=True, slots=True)
class Later:
    """The examples after the border: what is judged. label (n,): of orders, or of the ads that came into view."""

    problem: Recorded
    which: NDArray[np.intp]
    shown: NDArray[np.bool_] | None
    label: NDArray[np.float32]

    @classmethod
    def of(cls, problem: Recorded, border: int) -> "Later":
        which = np.flatnonzero(problem.examples.time >= border)
        shown = getattr(problem, "shown", None)
        there = None if shown is None else shown[which] > 0
        label = problem.label[which]
        return cls(problem, which, there, label if there is None else label[there])

    def chances(self, learned: Recorded, base: HeadraceModel | None) -> Floats:
        """(n,) calibrated on those of the few that did not train. A ground stays as it is; without one all learns."""
        plan = replace(PLANS[learned.name], frozen=GROUND if base is not None else ())
        model, _ = trained_model(learned, plan, base)
        learned.end(model)
        table = TorchTable(model, learned.catalog)
        table.freeze()
        held = learned.held_out
        calibration = learned.finish(learned.outputs(model, table, held), held).calibration
        logit = self.problem.outputs(model, table, self.which)["logit"]
        return np.asarray(calibrated(logit if self.shown is None else logit[self.shown], calibration), np.float64)


MEASURES: dict[str, Callable[[Any, Any], float]] = {
    "roc_auc": metrics.roc_auc, "pr_auc": metrics.pr_auc, "log_loss": metrics.log_loss,
}  # fmt: skip


def compared(name: str, label: NDArray[np.float32], ground: Floats, nothing: Floats) -> dict[str, float]:
    """Figures of both, and the 95 % interval of the difference, events drawn alike (paired bootstrap)."""
    said: dict[str, float] = {}
    draw = np.random.default_rng(0)
    picks = [draw.integers(0, len(label), len(label)) for _ in range(DRAWS)]
    for measure, figure in MEASURES.items():
        gains = [figure(label[pick], ground[pick]) - figure(label[pick], nothing[pick]) for pick in picks]
        low, high = np.percentile(gains, [2.5, 97.5])
        said |= {
            f"{name}_{measure}_pretrained": figure(label, ground),
            f"{name}_{measure}_not": figure(label, nothing),
            f"{name}_{measure}_difference_low": float(low),
            f"{name}_{measure}_difference_high": float(high),
        }
    return said


if __name__ == "__main__":
    main()
