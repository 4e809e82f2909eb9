"""The first releases: three models of one family, trained on recorded events before anything was served.
Recommendations come first, since every event is an example for them; fraud and click-through start from what that
model learned of users and items, then learn their own head.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engines.model import HeadraceConfig, HeadraceModel
from engines.releases import Release, ReleaseStore
from finetune.calibrate import REVIEW_BUDGET
from finetune.curves import Curves
from finetune.ground import fill_reservoir
from finetune.history import Recording, Timed, replay
from finetune.problems import PROBLEMS, Fraud
from finetune.recorded import Recorded
from finetune.release import make_release
from finetune.spread import ALONE, Spread
from finetune.trainer import Held, Plan, Progress, TorchTable, fit
from streams.catalog import Catalogue
from streams.tasks import make_task
from streams.tasks.fraud import FIELDS

GROUND = ("item_tower", "history")  # what the recommendations model learned of items and users stays as it is

GROUND_SIZES = ("width", "layers", "heads", "head_width", "hidden", "pointwise", "item_buckets")
"""What they must agree in."""

PLANS: dict[str, Plan] = {
    "recommendations": Plan(steps=200, batch=64, rate=6e-3),
    "fraud": Plan(steps=250, batch=128, rate=1.5e-3, weight_decay=0.1, dropout=0.2, frozen=GROUND),
    "ctr": Plan(steps=300, batch=128, rate=1e-3, frozen=GROUND),
}
"""In the order of training: the first lays the ground for the others."""
KEEP = {"recommendations": 0.06, "ctr": 0.4}
"""The share of a task's events that become examples: a few steps need no more, and a row is a kilobyte."""


def first_releases(
    stream: Iterable[Timed],
    catalog: Catalogue,
    store: ReleaseStore,
    *,
    plans: Mapping[str, Plan] = PLANS,
    keep: Mapping[str, float] = KEEP,
    progress: Callable[[str], Progress] | None = None,
    trained: dict[str, Any] | None = None,
    reservoir: Path | None = None,
    review_budget: float = REVIEW_BUDGET,
    curves: Path | None = None,
    spread: Spread = ALONE,
) -> dict[str, Release]:
    """Replays a time-ordered stream of events and labels, which is read once, then trains: see `train`."""
    recording = replay(stream, [make_task(name) for name in plans], catalog, keep)
    return train(
        recording, catalog, store, plans=plans, progress=progress, trained=trained, reservoir=reservoir,
        review_budget=review_budget, curves=curves, spread=spread,
    )  # fmt: skip


def train(
    recording: Recording,
    catalog: Catalogue,
    store: ReleaseStore,
    *,
    plans: Mapping[str, Plan] = PLANS,
    progress: Callable[[str], Progress] | None = None,
    trained: dict[str, Any] | None = None,
    reservoir: Path | None = None,
    review_budget: float = REVIEW_BUDGET,
    curves: Path | None = None,
    spread: Spread = ALONE,
) -> dict[str, Release]:
    """Trains, checks and publishes one release a task.

    progress: gives each task's step callback. trained: what the manifests say of the data. reservoir: a folder for what
    fine-tunes replay, a folder a task in it. review_budget: the share of orders that analysts look at. curves: a folder
    for TensorBoard's files, a folder a task in it. spread: of several processes the first one alone publishes, and has
    releases to return. Raises TrainingError where there are no examples of a task or only one class, EngineError where
    the compiled engine differs from torch.
    """
    problems = [PROBLEMS[name](make_task(name), recording, catalog) for name in plans]
    for problem in problems:
        if isinstance(problem, Fraud):
            problem.review_budget = review_budget
    releases: dict[str, Release] = {}
    base: HeadraceModel | None = None
    for problem in problems:
        plan, name = plans[problem.name], problem.name
        spread.agree(f"examples of {name}", problem.examples.rows[: problem.learning], problem.label)
        drawn = Curves(curves / name if curves is not None and spread.first else None)
        told = progress(name) if progress is not None and spread.first else None
        model, loss = trained_model(problem, plan, base, told, curves=drawn, spread=spread)
        base = base or model
        if not spread.first:
            continue
        problem.end(model)
        said = {**(trained or {}), "examples": problem.learning, "steps": plan.steps, "loss": loss}
        said |= {"encoder": catalog.encoder, **problem.remarks()}
        releases[name] = make_release(problem, model, store, said)
        if reservoir is not None:
            fill_reservoir(problem, reservoir / name)
    return releases


def trained_model(
    problem: Recorded, plan: Plan, base: HeadraceModel | None, progress: Progress | None = None, *,
    curves: Curves | None = None, held: Held | None = None, spread: Spread = ALONE,
) -> tuple[HeadraceModel, float]:  # fmt: skip
    """A model that has learned, before the problem's `end`, and the loss of its last steps.

    base: the ground. A model of other sizes than its begins without it, and learns all parts. held: what is looked at
    on the way; by default what the curves show, where there are curves.
    """
    if base is not None and any(getattr(base.config, name) != size for name, size in plan.sizes.items()):
        base, plan = None, replace(plan, frozen=())
    if base is not None:
        plan = replace(plan, sizes={name: getattr(base.config, name) for name in GROUND_SIZES})
    model = new_model(problem.name, base, **problem.sizes(), **plan.sizes)
    problem.loss_weights = plan.loss_weights
    problem.begin(model)
    held = held or (problem.held() if curves is not None and curves.drawn else None)
    table = TorchTable(model, problem.catalog)
    return model, fit(
        model, problem.learning, problem.loss(), table, plan, progress, curves=curves, held=held, spread=spread
    )


def new_model(task: str, base: HeadraceModel | None, seed: int = 0, **sizes: Any) -> HeadraceModel:
    """A fresh model, with everything but its head taken from `base`. sizes: of the config, beyond the task's own."""
    torch.manual_seed(seed)
    model = HeadraceModel(HeadraceConfig(task=task, fields=len(FIELDS), **sizes))
    if base is not None:
        shared = {key: value for key, value in base.state_dict().items() if not key.startswith("head.")}
        model.load_state_dict(shared, strict=False)
    return model
