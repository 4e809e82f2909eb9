"""A trained model to a release: exported, compiled, compared with torch, calibrated on held-out events, published.
What cannot be served as it was trained is refused here.
"""

import json
import logging
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Engine
from engines.certified import SAFER
from engines.eager import EagerEngine
from engines.export import export
from engines.model import HeadraceModel
from engines.openvino import OpenVinoEngine
from engines.parity import BOUNDS, Report, outputs, parity
from engines.probe import answered, write_probe
from engines.releases import Release, ReleaseStore
from engines.tables import ItemTower, VectorTable
from finetune.cards import CARD, Make, Score, measured
from finetune.losses import MASKED
from finetune.problems import Asked, Finish, Problem
from finetune.quantise import quantise
from schemas.errors import EngineError
from streams.catalog import Catalogue

log = logging.getLogger(__name__)

PARITY_ROWS = 512
HELD_ROWS = 4096
PRECISION = "bf16"
BUCKET = 256
ORACLE_BUCKET = 64
PROBE_ROWS = 64
PROBE_CATALOG = 255
THREADS = 2
PRIOR = "prior.json"


Timed = Callable[[str], AbstractContextManager[None]]
"""Entered around each part of the work, with its name: export, compile, parity, quantise, calibrate, gate, publish."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A candidate before it is published: as a draft, on the engine that was compared with torch, calibrated.

    table (N, D): the catalogue's vectors by its own item tower. certificate: the comparison.
    """

    draft: Release
    engine: Engine
    table: NDArray[np.float32]
    certificate: Report
    finish: Finish


Judge = Callable[[Compiled], dict[str, Any]]
"""What the manifest's metrics are to say besides."""


def make_release(
    problem: Problem,
    model: HeadraceModel,
    store: ReleaseStore,
    trained: dict[str, Any],
    *,
    threads: int = THREADS,
    timed: Timed = lambda part: nullcontext(),
    judge: Judge | None = None,
    int8: bool = False,
    champion: Release | None = None,
) -> Release:
    """Publishes the model, with what the newest held-out examples say of it as the compiled engine scores them.

    champion: what the model was fine-tuned from, if it was. int8: quantises too, calibrated on the newest that it has
    learned from; who serves it certifies it. Raises EngineError where the engine differs too much from torch in f32
    too, or int8 cannot be made.
    """
    which = np.arange(problem.learning, len(problem.examples))[-problem.held_rows :]
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as drafts:
        folder = Path(name)
        with timed("export"):
            if problem.bias is not None:
                (folder / PRIOR).write_text(json.dumps(prior_of(problem)))
            description = export(model, folder, champion, trained=trained)
            draft = ReleaseStore(drafts).publish(problem.name, folder, description)
        table = vector_table(problem, draft)
        engine, certificate = certified(problem, draft, table, which, folder, threads, timed)
        if int8:
            with timed("quantise"):
                learned = np.arange(problem.learning)[-PARITY_ROWS:]
                quantise(folder, description.signature, engine_inputs(problem, table, learned))
        with timed("calibrate"):
            answers = scored(engine, problem, table, which)
            found = problem.finish(answers, which)
            said = measured(problem, answers, which, found.calibration, *asking(engine, problem, table))
            (folder / CARD).write_text(json.dumps(said))
        metrics = {**found.metrics, "parity": certificate.as_dict()}
        if judge is not None:
            with timed("gate"):
                metrics |= judge(Compiled(draft, engine, table, certificate, found))
        engine.close()
        described = {"calibration": found.calibration, "settings": found.settings, "metrics": metrics}
        final = description.model_copy(update={key: value for key, value in described.items() if value})
        with timed("publish"):
            return store.publish(problem.name, folder, final)


def certified(
    problem: Problem, draft: Release, table: NDArray[np.float32], which: NDArray[np.intp], folder: Path,
    threads: int, timed: Timed,
) -> tuple[Engine, Report]:  # fmt: skip
    """The engine that the release is measured with: in bf16, or where that is too far from torch, in f32."""
    precision = PRECISION
    while True:
        with timed("compile"):
            engine = OpenVinoEngine(draft, precision=precision, buckets=(BUCKET,), threads=threads)
        try:
            with timed("parity"):
                return engine, compare(problem, draft, engine, table, which, folder, threads)
        except EngineError as error:
            engine.close()
            if precision not in SAFER:
                raise
            log.warning("%s is measured in %s, not in %s: %s", problem.name, SAFER[precision], precision, error)
            precision = SAFER[precision]


def compare(
    problem: Problem, draft: Release, engine: Engine, table: NDArray[np.float32], which: NDArray[np.intp],
    folder: Path, threads: int,
) -> Report:  # fmt: skip
    """The engine beside torch on the newest of `which`; writes the probe into the folder. Raises EngineError."""
    oracle = EagerEngine(draft, precision="f32", buckets=(ORACLE_BUCKET,), threads=threads)
    report = parity(engine, oracle, engine_inputs(problem, table, which[-PARITY_ROWS:]))
    report.check(BOUNDS[report.precision])
    asked = probe_inputs(problem, table, which)
    answers = outputs(oracle, asked)
    answered(engine, asked, answers, "the probe of the new release")
    write_probe(folder, asked, answers)
    oracle.close()
    return report


def probe_inputs(problem: Problem, table: NDArray[np.float32], which: NDArray[np.intp]) -> dict[str, Any]:
    """A few of the examples, spread over all of `which`, and a part of the catalogue with as many candidates."""
    rows = which[np.unique(np.linspace(0, len(which) - 1, PROBE_ROWS).astype(np.intp))]
    shared = problem.shared_inputs(table)
    if problem.bias is not None:
        candidates = np.flatnonzero(problem.bias > MASKED)
        chosen = candidates[np.unique(np.linspace(0, len(candidates) - 1, PROBE_CATALOG).astype(np.intp))]
        part = np.concatenate([[0], chosen])  # row 0 is the unknown item
        shared = {name: array[part] for name, array in shared.items()}
    return {**problem.task.inputs(problem.examples.rows[rows], table), **shared}


def vector_table(problem: Asked, release: Release) -> NDArray[np.float32]:
    """(N, D) the vectors of the catalogue's rows, by the release's own item tower."""
    catalog = problem.catalog
    table = VectorTable(ItemTower(release), int(release.manifest.config["width"]))
    table.refresh(catalog.text, catalog.scalars, catalog.kind)
    return table.vectors


def engine_inputs(problem: Asked, table: NDArray[np.float32], which: NDArray[np.intp]) -> dict[str, Any]:
    """The inputs of the examples of numbers `which`."""
    return {**problem.task.inputs(problem.examples.rows[which], table), **problem.shared_inputs(table)}


def scored(
    engine: Engine, problem: Asked, table: NDArray[np.float32], which: NDArray[np.intp]
) -> dict[str, NDArray[Any]]:
    """The engine's outputs for the examples of numbers `which`, a few at a time: inputs are 16 KB each and more."""
    parts = [which[start : start + BUCKET] for start in range(0, len(which), BUCKET)]
    found = [outputs(engine, engine_inputs(problem, table, part)) for part in parts]
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def asking(engine: Engine, problem: Problem, table: NDArray[np.float32]) -> tuple[Make, Score]:
    """Engine inputs of feature rows, and the engine's outputs for inputs, at most a bucket of them."""
    shared = problem.shared_inputs(table)
    return (lambda rows: {**problem.task.inputs(rows, table), **shared}), (lambda inputs: outputs(engine, inputs))


def kept_prior(release: Release, catalog: Catalogue) -> NDArray[np.float32] | None:
    """(rows,) what a release adds to the catalogue's scores; None where it adds nothing."""
    if PRIOR not in release.manifest.files:
        return None
    prior = np.zeros(len(catalog), np.float32)
    for ident, value in json.loads(release.file(PRIOR).read_text("utf-8")).items():
        prior[catalog.items.get(ident, 0)] = value
    prior[0] = 0
    return prior


def prior_of(problem: Problem) -> dict[str, float]:
    """Popularity by item id, as the worker adds it to the scores."""
    bias = problem.bias
    if bias is None:
        return {}
    return {problem.catalog.ids[row]: round(float(bias[row]), 3) for row in np.flatnonzero(bias > MASKED)}
