"""What the judges of all tasks share: a case, the results of a release as the worker would make them, and figures.
The excess over the truth says what was left to learn: the simulator knows the probability of each of its outcomes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.releases import Release
from engines.slot import Loaded, load
from finetune import metrics
from finetune.history import Examples, Recording
from streams.catalog import NOT_A_CANDIDATE, Catalogue
from streams.live import prior_of
from streams.sources.world import World
from streams.tasks import make_task
from streams.tasks.base import Result, Serving, Task

BUCKET = 256
Figures = dict[str, float]
Floats = NDArray[np.float64]


@dataclass(slots=True)
class Case:
    """A release, all that was recorded, what was known of it at `border` (UTC ms), and who knows the truth."""

    release: Release
    recording: Recording
    known: Recording
    catalog: Catalogue
    world: World
    border: int

    @property
    def task(self) -> Task:
        return make_task(self.release.task)

    @property
    def late(self) -> Examples:
        """The examples from the border on."""
        return self.recording.since(self.border)[self.release.task]


def served(case: Case, examples: Examples) -> list[Result]:
    """The results of these examples as the worker makes them."""
    task, catalog, loaded = case.task, case.catalog, opened(case)
    serving = Serving(catalog, loaded.calibration, loaded.settings)
    results: list[Result] = []
    for start in range(0, len(examples), BUCKET):
        part = slice(start, start + BUCKET)
        rows, events = examples.rows[part], examples.events[part]
        outputs = loaded.infer(task.inputs(rows, loaded.table)).outputs
        results += task.results(outputs, events, rows, serving)
    loaded.engine.close()
    return results


def opened(case: Case) -> Loaded:
    """The release on its compiled engine, with the catalogue and the popularity prior as in serving."""
    loaded = load(case.release, backend="openvino", precision="bf16", buckets=(BUCKET,), threads=2)
    catalog = case.catalog
    bias = catalog.candidate_bias() + prior_of(loaded, catalog.items, len(catalog))
    loaded.refresh(catalog.text, catalog.scalars, catalog.kind, np.maximum(bias, NOT_A_CANDIDATE))
    return loaded


def classified(label: NDArray[Any], chance: Floats, truth: Floats | None = None) -> Figures:
    """Figures of probabilities, with intervals; beside the true ones where they are known."""
    figures: Figures = {"events": float(len(label)), "positives": float(label.sum())}
    for name, metric in (
        ("pr_auc", metrics.pr_auc),
        ("roc_auc", metrics.roc_auc),
        ("normalised_entropy", metrics.normalised_entropy),
        ("log_loss_nats", metrics.log_loss),
    ):
        figures[name] = metric(label, chance)
        if truth is not None:
            figures[f"{name}_low"], figures[f"{name}_high"] = metrics.bootstrap(metric, label, chance, draws=100)
    figures["calibration"] = metrics.calibration(label, chance)
    if truth is not None:
        best = metrics.normalised_entropy(label, truth)
        figures["truth_normalised_entropy"] = best
        figures["excess_over_truth"] = figures["normalised_entropy"] / best - 1
        figures["truth_pr_auc"] = metrics.pr_auc(label, truth)
        figures["truth_roc_auc"] = metrics.roc_auc(label, truth)
    return figures


def prefixed(by: str, figures: Figures, names: tuple[str, ...]) -> Figures:
    """Those named, as `by`'s."""
    return {f"{by}_{name}": figures[name] for name in names}


def against_truth(chance: Floats, truth: Floats) -> Figures:
    """Sums of predictions over sums of true chances: of all, and by decile of prediction, the least and the most.

    True chances hardly scatter, so a decile needs no clicks of its own to be judged.
    """
    every = metrics.calibration_by_score(truth, chance)
    return {
        "prediction_over_truth": float(chance.sum() / truth.sum()),
        "decile_over_truth_low": min(every),
        "decile_over_truth_high": max(every),
    }
