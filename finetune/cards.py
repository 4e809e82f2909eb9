"""The model card of a release: on what it was trained, how good it is, on whom less so, and how easily its scores move.
What is measured is measured once, on held-out examples by the compiled engine, when the release is made, and is a file
of it; `headrace releases card` writes it out (Mitchell et al. 2019, Model cards for model reporting).
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.releases import Release
from finetune import metrics
from finetune.recorded import Outputs, Problem
from finetune.traits import slices
from streams.features import Inputs, Rows
from streams.tasks.base import calibrated

LEAST = 50
"""Labels of a slice, below which it is not named."""
NOISE = 0.01
ROWS = 256
SEQUENCE = ("item", "kind", "age", "value", "quantity", "category")
CARD = "card.json"
Score = Callable[[Inputs], Outputs]
"""An engine's outputs for inputs of any number of rows."""
Make = Callable[[Rows], Inputs]
"""Engine inputs of feature rows."""


def measured(
    problem: Problem,
    outputs: Outputs,
    which: NDArray[np.intp],
    calibration: Mapping[str, float],
    make: Make,
    score: Score,
) -> dict[str, Any]:
    """What the release keeps of held-out examples, of numbers `which` with their `outputs`: slices and steadiness."""
    return {
        "slices": by_slice(problem, outputs, which, calibration),
        "steadiness": steadiness(problem.examples.rows[which[-ROWS:]], calibration, make, score),
    }


def by_slice(
    problem: Problem, outputs: Outputs, which: NDArray[np.intp], calibration: Mapping[str, float]
) -> dict[str, dict[str, dict[str, float]]]:
    """By kind of slice and its value: labels, and what the release says of them."""
    example, place, label, weight = told(problem)
    at = np.full(len(problem.examples), -1)
    at[which] = np.arange(len(which))
    here = at[example] >= 0
    example, place, label, weight = example[here], place[here], label[here], weight[here]
    rows = problem.examples.rows
    served = {"features": rows, "time": problem.examples.time}
    ranked = outputs["rows"][at[example]] if "rows" in outputs else None
    chance = None
    if ranked is None:
        chance = calibrated(outputs["logit"].reshape(len(which), -1)[at[example], place], calibration)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind, values in slices(problem.task, problem.catalog, served, example, place).items():  # type: ignore[arg-type]  # a mapping of what it reads
        for value in np.unique(values):
            part = values == value
            if part.sum() >= LEAST:
                said = _ranking(label[part], ranked[part]) if ranked is not None else {}
                said |= _chances(label[part], chance[part], weight[part]) if chance is not None else {}
                found.setdefault(kind, {})[str(value)] = {"labels": float(part.sum()), **said}
    return found


def told(problem: Problem) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any], NDArray[Any]]:
    """All that has a label, each (n,): number of the example, place in it, label, weight."""
    if hasattr(problem, "told"):
        found: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any], NDArray[Any]] = problem.told()
        return found
    label: NDArray[Any] = problem.label.reshape(len(problem.examples), -1)  # type: ignore[attr-defined]  # Recorded's
    there = np.broadcast_to(getattr(problem, "shown", np.ones_like(label)), label.shape) > 0
    if problem.bias is not None:
        there = label > 0
    example, place = np.nonzero(there)
    return example, place, label[example, place], np.ones(len(example))


def _ranking(item: NDArray[Any], ranked: NDArray[Any]) -> dict[str, float]:
    rank = metrics.rank_of(item.astype(np.int64), ranked)
    return {"hit@10": metrics.hit_at(rank, 10), "ndcg@10": metrics.ndcg_at(rank, 10)}


def _chances(label: NDArray[Any], chance: NDArray[np.float64], weight: NDArray[Any]) -> dict[str, float]:
    rate, mean = float(np.average(label, weights=weight)), float(np.average(chance, weights=weight))
    said = {"rate": rate, "mean_prediction": mean, "log_loss": metrics.log_loss(label, chance, weight)}
    if 0 < label.sum() < len(label):
        said["roc_auc"] = metrics.roc_auc(label, chance)
        said["normalised_entropy"] = metrics.normalised_entropy(label, chance, weight)
    return said


def steadiness(rows: Rows, calibration: Mapping[str, float], make: Make, score: Score) -> dict[str, dict[str, float]]:
    """How much scores move when numbers are off by one percent, and when the newest event has not arrived yet.

    mean, largest: of the change of a chance; top_10: the share of the ten best that stays, who ranks.
    """
    inputs = make(rows)
    before = score(inputs)
    draw = np.random.default_rng(0)
    noisy = {
        name: value * (1 + NOISE * draw.standard_normal(value.shape)).astype(np.float32)
        if value.dtype == np.float32 and not name.startswith("catalog")
        else value
        for name, value in inputs.items()
    }
    changed = {"numbers off by 1 %": score(noisy), "newest event missing": score(make(without_newest(rows)))}
    return {name: _moved(before, after, calibration) for name, after in changed.items()}


def without_newest(rows: Rows) -> Rows:
    """The history before the scored event, less its last entry."""
    out = rows.copy()
    for name in SEQUENCE:
        if name in (rows.dtype.names or ()):
            out[name][:, 1:], out[name][:, 0] = rows[name][:, :-1], 0
    return out


def _moved(before: Outputs, after: Outputs, calibration: Mapping[str, float]) -> dict[str, float]:
    if "rows" in before:
        kept = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(before["rows"], after["rows"], strict=True)]
        return {"top_10": float(np.mean(kept))}
    change = np.abs(calibrated(after["logit"], calibration) - calibrated(before["logit"], calibration))
    return {"mean": float(change.mean()), "largest": float(change.max())}


def card(release: Release) -> str:
    """The release's card, as markdown. What an older release did not measure is said to be missing."""
    manifest = release.manifest
    said = dict(manifest.metrics)
    measured_here = json.loads(release.file(CARD).read_bytes()) if CARD in manifest.files else {}
    plain = {name: value for name, value in said.items() if isinstance(value, int | float)}
    parts = [
        f"# {manifest.task}/{manifest.version}\n\nMade {manifest.created_at}.",
        "## Trained on\n\n" + _list(manifest.trained),
        "## Figures on held-out examples\n\n" + _list(plain | _flat("calibration", manifest.calibration)),
        "## Slices\n\n" + _slices(measured_here.get("slices", {})),
        "## Change of the score under small changes of the input\n\n" + _steady(measured_here.get("steadiness", {})),
        "## The compiled engine beside the reference\n\n" + _list(said.get("parity", {})),
    ]
    if gate := said.get("gate"):
        parts.append("## The gate\n\n" + _list(gate if isinstance(gate, Mapping) else {"outcome": gate}))
    parts.append("## Files\n\n" + _list({name: entry.sha256 for name, entry in manifest.files.items()}))
    return "\n\n".join(parts) + "\n"


def _slices(slices: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A table a kind, and how far apart its best and its worst value are."""
    if not slices:
        return "Not measured."
    out = []
    for kind, values in slices.items():
        columns = list(dict.fromkeys(name for each in values.values() for name in each))
        lines = [f"| {kind} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for value, figures in values.items():
            cells = (f"{figures[name]:.4g}" if name in figures else "" for name in columns)
            lines.append(f"| {value} | " + " | ".join(cells) + " |")
        main = next((name for name in ("normalised_entropy", "ndcg@10", "log_loss") if name in columns), "")
        known = [figures[main] for figures in values.values() if main in figures]
        if len(known) > 1:
            lines.append(f"\nDifference of {main} between groups: {max(known) - min(known):.4g}.")
        out.append("\n".join(lines))
    return "\n\n".join(out)


def _steady(steadiness: Mapping[str, Mapping[str, float]]) -> str:
    return _list({f"{what}: {name}": value for what, each in steadiness.items() for name, value in each.items()})


def _list(values: Mapping[str, Any]) -> str:
    lines = [
        f"- {name}: {value:.5g}" if isinstance(value, float) else f"- {name}: {value}" for name, value in values.items()
    ]
    return "\n".join(lines) or "Nothing is said."


def _flat(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{name} {key}": value for key, value in values.items()}
