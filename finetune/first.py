"""The first releases: three models of one family, trained on recorded events before anything was served.
Recommendations come first, since every event is an example for them; fraud and click-through start from what that
model learned of users and items, then learn their own head.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.eager import EagerEngine
from engines.export import export
from engines.model import HeadraceConfig, HeadraceModel
from engines.openvino import OpenVinoEngine
from engines.parity import BOUNDS, outputs, parity
from engines.releases import Release, ReleaseStore
from engines.tables import ItemTower, VectorTable
from finetune.calibrate import platt, thresholds
from finetune.history import Examples, Timed, click_labels, fraud_labels, next_items, replay
from finetune.metrics import log_loss
from finetune.trainer import Plan, Progress, TorchTable, fit, fraud_loss, next_item_loss, slate_loss
from streams.catalog import Catalogue
from streams.tasks import make_task
from streams.tasks.base import Task, calibrated
from streams.tasks.fraud import FIELDS

PLANS = {
    "recommendations": Plan(steps=160, batch=96),
    "fraud": Plan(steps=160, batch=128, rate=2e-3),
    "ctr": Plan(steps=120, batch=128, rate=2e-3),
}
VALIDATION = 0.15  # the newest share of the span calibrates and sets thresholds
NEXT_ITEM_WINDOW_S = 3 * 86_400
PARITY_ROWS = 512
PRIOR = "prior.json"


@dataclass(slots=True)
class Problem:
    """A task with its examples, its labels and the loss that they make."""

    task: Task
    examples: Examples
    label: NDArray[Any]
    settings: dict[str, Any]
    bias: NDArray[np.float32] | None = None


def first_releases(
    stream: Sequence[Timed],
    catalog: Catalogue,
    store: ReleaseStore,
    *,
    plans: dict[str, Plan] = PLANS,
    progress: Callable[[str], Progress] | None = None,
    trained: dict[str, Any] | None = None,
) -> dict[str, Release]:
    """Trains, checks and publishes one release a task from a time-ordered stream with its labels.

    progress: gives each task's step callback. trained: what the manifests say of the data. Raises ValueError where the
    stream has no examples of a task or only one class, EngineError where the compiled engine differs from torch.
    """
    tasks = [make_task(name) for name in plans]
    users = len({record["user_id"] for name, record in stream if name != "labels"})
    examples = replay(stream, tasks, catalog, users=users + 1)
    releases: dict[str, Release] = {}
    base: HeadraceModel | None = None
    for task in tasks:
        problem = PROBLEMS[task.name](task, examples[task.name], stream, catalog)
        model = _model(task, base)
        table = TorchTable(model, catalog)
        seen = _seen(problem.examples)
        training = problem.examples.part(seen)
        loss = LOSSES[task.name](problem, training, problem.label[seen])
        final = fit(model, task, training, loss, table, plans[task.name], progress(task.name) if progress else None)
        base = base or model
        releases[task.name] = _release(problem, ~seen, model, catalog, store, {**(trained or {}), "loss": final})
    return releases


def _seen(examples: Examples) -> NDArray[np.bool_]:
    """True for what trains; the newest VALIDATION share by time does not."""
    border = np.quantile(examples.time, 1 - VALIDATION)
    return np.asarray(examples.time <= border)


def _model(task: Task, base: HeadraceModel | None) -> HeadraceModel:
    torch.manual_seed(0)
    model = HeadraceModel(HeadraceConfig(task=task.name, fields=len(FIELDS)))
    if base is not None:
        shared = {k: v for k, v in base.state_dict().items() if not k.startswith("head.")}
        model.load_state_dict(shared, strict=False)
    return model


def _recommendations(task: Task, examples: Examples, stream: Sequence[Timed], catalog: Catalogue) -> Problem:
    target = next_items(examples, NEXT_ITEM_WINDOW_S)
    prior = popularity(examples, _seen(examples), len(catalog))
    bias = catalog.candidate_bias() + prior
    popular = [catalog.ids[row] for row in np.argsort(-bias)[:100] if bias[row] > -1e8]
    return Problem(task, examples, target, {"popular": popular}, bias)


def popularity(examples: Examples, seen: NDArray[np.bool_], rows: int) -> NDArray[np.float32]:
    """(rows,) log of how often each item was looked at in training, about 0 for the median item."""
    count = np.bincount(examples.rows["now_item"][seen], minlength=rows)[:rows]
    prior = np.log(count + 1.0)
    return (prior - np.median(prior[1:])).astype(np.float32) if rows > 1 else np.zeros(rows, np.float32)


def _fraud(task: Task, examples: Examples, stream: Sequence[Timed], catalog: Catalogue) -> Problem:
    label = fraud_labels(examples, stream)
    if not 0 < label.sum() < len(label):
        raise ValueError(f"fraud needs orders of both classes, got {int(label.sum())} frauds of {len(label)}")
    return Problem(task, examples, label, {"mean": float(label.mean())})


def _ctr(task: Task, examples: Examples, stream: Sequence[Timed], catalog: Catalogue) -> Problem:
    label, shown = click_labels(examples, stream), shown_ads(examples)
    if not label.sum():
        raise ValueError("click-through needs at least one click that names its impression and ad")
    return Problem(task, examples, label, {"mean": float((label * shown).sum() / shown.sum())})


def shown_ads(examples: Examples) -> NDArray[np.float32]:
    """(B, slate) 1 for an ad that was shown: only those can be negatives."""
    shown = np.zeros(examples.rows["ad"].shape, np.float32)
    for number, event in enumerate(examples.events):
        shown[number, : len(event["slate"])] = [ad["shown"] for ad in event["slate"]]
    return shown


def _fraud_loss(problem: Problem, training: Examples, label: NDArray[Any]) -> Callable[..., Tensor]:
    return fraud_loss(problem.task, training.rows, label)


def _slate_loss(problem: Problem, training: Examples, label: NDArray[Any]) -> Callable[..., Tensor]:
    return slate_loss(problem.task, training.rows, label, shown_ads(training))


def _next_item_loss(problem: Problem, training: Examples, label: NDArray[Any]) -> Callable[..., Tensor]:
    assert problem.bias is not None
    return next_item_loss(problem.task, training.rows, label, problem.bias)


PROBLEMS: dict[str, Callable[[Task, Examples, Sequence[Timed], Catalogue], Problem]] = {
    "recommendations": _recommendations,
    "fraud": _fraud,
    "ctr": _ctr,
}
LOSSES: dict[str, Callable[[Problem, Examples, NDArray[Any]], Callable[..., Tensor]]] = {
    "recommendations": _next_item_loss,
    "fraud": _fraud_loss,
    "ctr": _slate_loss,
}


def _release(
    problem: Problem,
    held_out: NDArray[np.bool_],
    model: HeadraceModel,
    catalog: Catalogue,
    store: ReleaseStore,
    trained: dict[str, Any],
) -> Release:
    """Exports, calibrates on the held-out newest part, publishes, and refuses if the compiled engine differs."""
    task, late = problem.task, problem.examples.part(held_out)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if problem.bias is not None:
            prior = {
                catalog.ids[row]: round(float(problem.bias[row]), 3) for row in np.flatnonzero(problem.bias > -1e8)
            }
            (folder / PRIOR).write_text(json.dumps(prior))
        description = export(model, folder, settings=problem.settings, trained=trained)
        draft = ReleaseStore(f"{name}-draft").publish(task.name, folder, description)
        tower = VectorTable(ItemTower(draft), int(draft.manifest.config["width"]))
        tower.refresh(catalog.text, catalog.scalars, catalog.kind)
        inputs = dict(task.inputs(late.rows[-PARITY_ROWS * 8 :], tower.vectors))
        if problem.bias is not None:
            inputs |= {"catalog": tower.vectors, "catalog_bias": problem.bias}
        compiled = OpenVinoEngine(draft, precision="bf16", buckets=(256,), threads=2)
        oracle = EagerEngine(draft, precision="f32", buckets=(256,), threads=2)
        few = {k: v[:PARITY_ROWS] if len(v) == len(late.rows[-PARITY_ROWS * 8 :]) else v for k, v in inputs.items()}
        report = parity(compiled, oracle, few)
        report.check(BOUNDS[report.precision])
        found = outputs(compiled, inputs)
        label = problem.label[held_out][-PARITY_ROWS * 8 :]
        update, metrics = FINISH[task.name](
            problem, late.part(np.arange(len(late)) >= len(late) - len(label)), found, label
        )
        final = description.model_copy(update={**update, "metrics": {**metrics, "parity": report.as_dict()}})
        return store.publish(task.name, folder, final)


def _finish_fraud(
    problem: Problem, late: Examples, found: Any, label: NDArray[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    calibration = platt(found["logit"], label)
    chance = calibrated(found["logit"], calibration)
    settings = problem.settings | thresholds(label, chance)
    return {"calibration": calibration, "settings": settings}, {"log_loss": log_loss(label, chance)}


def _finish_ctr(
    problem: Problem, late: Examples, found: Any, label: NDArray[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    shown = shown_ads(late) > 0
    calibration = platt(found["logit"][shown], label[shown])
    chance = calibrated(found["logit"][shown], calibration)
    return {"calibration": calibration}, {"log_loss": log_loss(label[shown], chance)}


def _finish_recommendations(
    problem: Problem, late: Examples, found: Any, label: NDArray[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    from finetune.metrics import hit_at, ndcg_at, rank_of

    rank = rank_of(label, found["rows"])[label > 0]
    return {}, {"hit@10": hit_at(rank, 10), "ndcg@10": ndcg_at(rank, 10)}


FINISH = {"fraud": _finish_fraud, "ctr": _finish_ctr, "recommendations": _finish_recommendations}
