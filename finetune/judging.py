"""The gate's evidence, built from examples and two releases: what both score on the same events, and what was taught.
Pure of Kafka and of files: arrays and engines in, evidence out.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Engine
from engines.openvino import OpenVinoEngine
from engines.releases import Release
from finetune import gate
from finetune.bounds import Bounds
from finetune.calibrate import REVIEW_BUDGET
from finetune.evidence import Evidence, Scores, Taught, Window
from finetune.examples import Examples, is_positive, ranks
from finetune.plan import Gate
from finetune.release import BUCKET, PRECISION, Compiled, engine_inputs, scored, vector_table
from finetune.reservoir import Chances
from finetune.reservoir import mixed as hashed
from finetune.served import Served
from finetune.traits import columns, slices

SERVING_BUCKET, CALLS, WARM_CALLS = 8, 200, 10
OLD_ROWS = 8192  # of the reservoir: both sides score them
REVIEW, BLOCK = 0.5, 0.9  # what the worker takes where a manifest says nothing


@dataclass(frozen=True, slots=True)
class Material:
    """Examples as `examples.layout` has them. window: trained on by nobody. taught: new ones that trained.

    kept, share (N,): the reservoir without what is new or in the window, and the chance with which each is still there.
    replayed: keys of those of `kept` that trained too. sources: names by `examples.source_key`. contradictions: records
    that said something else of the same label.
    """

    window: Examples
    taught: Examples
    kept: Examples
    share: Chances
    replayed: NDArray[np.uint64]
    sources: Mapping[int, str]
    contradictions: int = 0


class Side:
    """One of the two releases: its engine, its vectors, and how its scores are calibrated."""

    def __init__(self, engine: Engine, table: NDArray[np.float32], calibration: Mapping[str, float]) -> None:
        self.engine, self.table, self.calibration = engine, table, dict(calibration)

    def outputs(self, problem: Served) -> dict[str, NDArray[Any]]:
        """Of all examples."""
        return scored(self.engine, problem, self.table, np.arange(len(problem.examples)))


def judged(
    problem: Served, champion: Release, candidate: Compiled, material: Material, rule: Gate, threads: int
) -> dict[str, Any]:
    """For the manifest. gate: the report; window: figures of champion and candidate on the window."""
    engine = OpenVinoEngine(champion, precision=PRECISION, buckets=(BUCKET,), threads=threads)
    sides = (
        Side(engine, vector_table(problem, champion), champion.manifest.calibration),
        Side(candidate.engine, candidate.table, candidate.finish.calibration),
    )
    fresh = problem.over(material.window)
    window, figures = compared(fresh, material.window, sides)
    chosen = old_part(problem, material, rule)
    old = None
    if len(chosen):
        examples = material.kept[chosen].copy()
        examples["weight"] /= material.share[chosen].astype(np.float32)[:, None]
        old, _ = compared(problem.over(examples), examples, sides)
    engine.close()
    budget = float(champion.manifest.settings.get("review_budget", REVIEW_BUDGET))
    bounds = Bounds(min_labels=rule.labels, min_positives=rule.positives).for_budget(budget)
    if old is not None and too_few(problem, old, bounds):
        old = None
    there = len(material.kept) - int(np.isin(material.kept["key"], material.replayed).sum())
    why_no_old = (
        f"of {there:,} kept examples that the candidate did not replay, too few have labels: {rule.labels:,} are asked "
        f"for, {'of any kind' if ranks(problem.task) else f'and {rule.positives:,} positives of them'}"
    )
    task = problem.task
    names, features = columns(task, problem.catalog, material.taught["features"])
    _, recent = columns(task, problem.catalog, material.window["features"])
    _, before = columns(task, problem.catalog, material.kept["features"])
    known = 1.0 if fresh.known is None or not len(fresh.known) else float(fresh.known.mean())
    trained = (int(each.trained.get("until", 0)) for each in (champion.manifest, candidate.draft.manifest))
    evidence = Evidence(
        task.name, task.metric, window, old, taught_of(problem, material.taught, features, material),
        taught_of(problem, material.kept, before, material, material.share) if len(material.kept) else None,
        candidate.certificate, p99_ms(problem, candidate, threads), rule.budget_ms, max(trained),
        thresholds=(thresholds(champion.manifest.settings, known), thresholds(candidate.finish.settings, known))
        if task.raises_alerts else None,
        feature_names=names, window_features=recent, seed=rule.seed, why_no_old=why_no_old,
    )  # fmt: skip
    return {"gate": gate.judge(evidence, bounds).as_dict(), "window": figures}


def compared(problem: Served, examples: Examples, sides: tuple[Side, Side]) -> tuple[Window, dict[str, Any]]:
    """What both sides score on all of the problem's examples, and their figures."""
    example, place, label, weight = problem.told()
    scores: list[Scores] = []
    figures: dict[str, Any] = {}
    every = np.arange(len(problem.examples))
    for name, side in zip(("champion", "candidate"), sides, strict=True):
        if len(example):
            found = side.outputs(problem)
            scores.append(problem.scores(found, side.calibration))
            figures[name] = problem.judge(found, every, side.calibration)
        else:
            empty = np.zeros((0, 10) if ranks(problem.task) else 0)
            scores.append(Scores(empty, empty.astype(np.int64) if ranks(problem.task) else None))
            figures[name] = {}
    user = users(examples)[example]
    time_, traits = problem.examples.time[example], slices(problem.task, problem.catalog, examples, example, place)
    return Window(
        label.astype(np.float64), weight.astype(np.float64), time_, user, scores[0], scores[1], traits
    ), figures


def old_part(problem: Served, material: Material, rule: Gate) -> NDArray[np.intp]:
    """Numbers of the kept examples that the candidate did not replay, at most OLD_ROWS; none where they are too few."""
    task = problem.task
    unseen = np.flatnonzero(~np.isin(material.kept["key"], material.replayed))
    if len(unseen) > OLD_ROWS:
        unseen = np.sort(np.random.default_rng(rule.seed).choice(unseen, OLD_ROWS, replace=False))
    examples = material.kept[unseen]
    few = int((examples["weight"] > 0).sum()) < rule.labels
    if not ranks(task):
        few |= int(is_positive(task, examples).sum()) < rule.positives
    return unseen[:0] if few else unseen


def too_few(problem: Served, window: Window, bounds: Bounds) -> bool:
    """Whether the gate would refuse the window for its size alone: an old one that small is no evidence."""
    positives = bounds.min_positives if ranks(problem.task) else int((window.label > 0.5).sum())
    return len(window.label) < bounds.min_labels or positives < bounds.min_positives


def taught_of(
    problem: Served, examples: Examples, features: NDArray[np.float64], material: Material, share: Chances | None = None
) -> Taught:
    """All labels of the examples, one a place. A label without an id, as silence is, gets that of its claim."""
    example, place = np.nonzero(examples["weight"] > 0)
    at = example, place
    user = users(examples)
    said = (examples["key"][example], place.astype(np.uint64), examples["revision"][at].astype(np.uint64))
    claim = hashed(said[0] + hashed(said[1] * np.uint64(1 << 32) + said[2], 1), 2)
    label_id, observed = examples["label_id"][at].astype(np.uint64), examples["observed"][at]
    value = np.ones(len(example)) if ranks(problem.task) else examples["label"][at].astype(np.float64)
    stands_for = None if share is None else 1 / share[example]
    weight = examples["weight"][at].astype(np.float64) * (1.0 if stands_for is None else stands_for)
    names = {0: "", **material.sources}
    source = np.array([names.get(each, f"{each:08x}") for each in examples["source"][at].tolist()], np.str_)
    return Taught(
        np.where(label_id == 0, claim, label_id), claim, source, user[example], value, weight,
        np.where(observed > 0, observed, examples["matured"][example]), examples["time"][example], features[example],
        stands_for=stands_for, contradictions=0 if share is not None else material.contradictions,
    )  # fmt: skip


def users(examples: Examples) -> NDArray[np.uint64]:
    """(N,) who it was; nobody known is somebody else each time."""
    return np.where(examples["user"] > 0, examples["user"], examples["key"])


def thresholds(settings: Mapping[str, Any], known: float) -> tuple[float, float]:
    """(review, block) as the worker decides by them; known: by what the window's chances are less than the worker's."""
    return known * float(settings.get("review", REVIEW)), known * float(settings.get("block", BLOCK))


def p99_ms(problem: Served, candidate: Compiled, threads: int, clock: Callable[[], float] = time.process_time) -> float:
    """99th percentile of CALLS inferences of SERVING_BUCKET rows of held-out examples, after some that warm up.

    Of CPU time: this process is a nice one, and how long others make it wait says nothing of the candidate.
    """
    which = np.resize(np.arange(problem.learning, len(problem.examples)), SERVING_BUCKET)
    inputs = engine_inputs(problem, candidate.table, which)
    engine = OpenVinoEngine(candidate.draft, precision=PRECISION, buckets=(SERVING_BUCKET,), threads=threads)
    took = []
    for _ in range(WARM_CALLS + CALLS):
        start = clock()
        engine.infer(inputs)
        took.append(1000 * (clock() - start))
    engine.close()
    return float(np.quantile(took[WARM_CALLS:], 0.99))
