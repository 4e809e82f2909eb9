"""A trained model to a release: exported, compiled, compared with torch, calibrated on held-out events, published.
What cannot be served as it was trained is refused here.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from engines.eager import EagerEngine
from engines.export import export
from engines.model import HeadraceModel
from engines.openvino import OpenVinoEngine
from engines.parity import BOUNDS, outputs, parity
from engines.releases import Release, ReleaseStore
from engines.tables import ItemTower, VectorTable
from finetune.losses import MASKED
from finetune.problems import Problem

PARITY_ROWS = 512
HELD_ROWS = 4096
PRECISION = "bf16"
BUCKET = 256
THREADS = 2
PRIOR = "prior.json"


def make_release(problem: Problem, model: HeadraceModel, store: ReleaseStore, trained: dict[str, Any]) -> Release:
    """Publishes the model, with what the newest held-out examples say of it as the compiled engine scores them.

    Raises EngineError where that engine differs too much from torch.
    """
    which = np.arange(problem.learning, len(problem.examples))[-HELD_ROWS:]
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as drafts:
        folder = Path(name)
        if problem.bias is not None:
            (folder / PRIOR).write_text(json.dumps(prior_of(problem)))
        description = export(model, folder, trained=trained)
        draft = ReleaseStore(drafts).publish(problem.name, folder, description)
        compiled = OpenVinoEngine(draft, precision=PRECISION, buckets=(BUCKET,), threads=THREADS)
        oracle = EagerEngine(draft, precision="f32", buckets=(BUCKET,), threads=THREADS)
        inputs = engine_inputs(problem, draft, which)
        few = engine_inputs(problem, draft, which[-PARITY_ROWS:])
        report = parity(compiled, oracle, few)
        report.check(BOUNDS[report.precision])
        found = problem.finish(outputs(compiled, inputs), which)
        compiled.close()
        oracle.close()
        described = {
            "calibration": found.calibration,
            "settings": found.settings,
            "metrics": {**found.metrics, "parity": report.as_dict()},
        }
        final = description.model_copy(update={key: value for key, value in described.items() if value})
        return store.publish(problem.name, folder, final)


def engine_inputs(problem: Problem, release: Release, which: np.ndarray[Any, np.dtype[np.intp]]) -> dict[str, Any]:
    """The inputs of the examples of numbers `which`, with the release's own vector table."""
    catalog = problem.catalog
    table = VectorTable(ItemTower(release), int(release.manifest.config["width"]))
    table.refresh(catalog.text, catalog.scalars, catalog.kind)
    rows = problem.examples.rows[which]
    return {**problem.task.inputs(rows, table.vectors), **problem.shared_inputs(table.vectors)}


def prior_of(problem: Problem) -> dict[str, float]:
    """Popularity by item id, as the worker adds it to the scores."""
    bias = problem.bias
    if bias is None:
        return {}
    return {problem.catalog.ids[row]: round(float(bias[row]), 3) for row in np.flatnonzero(bias > MASKED)}
