"""From a release to a smaller one that serves faster: pruned or distilled, calibrated, judged by the gate, published.
It learns from recorded events, as a first training does; of the newest, half calibrate it and half are the gate's.

What the release knows without learning stays as it is: columns, trees and prior; and, where its width stays, the items'
vectors, so that the head of conversions says what it said.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from engines.model import HeadraceModel
from engines.releases import Release, ReleaseStore
from finetune.clicks import ClickThrough
from finetune.distill import student_of, taught
from finetune.examples import Examples, source_key
from finetune.fraud import Fraud
from finetune.ground import learned
from finetune.history import Recording
from finetune.judging import Material, judged
from finetune.plan import Gate
from finetune.problems import PROBLEMS
from finetune.prune import importance, pruned
from finetune.recorded import Recorded
from finetune.release import Compiled, kept_prior, make_release
from finetune.run import CONVERSIONS
from finetune.served import SERVED, Served
from finetune.smaller import Smaller, check_encoder, checked
from finetune.trainer import Loss, Progress, TorchTable, fit
from streams.catalog import Catalogue
from streams.labels import derive
from streams.tasks import make_task

HELD = 0.2  # the newest share of the examples does not train
KEPT = ("encoder", "standing", CONVERSIONS)
"""What a manifest says of its teacher's training that is true of the smaller one as well."""


def shrink(
    teacher: Release,
    smaller: Smaller,
    recording: Recording,
    catalog: Catalogue,
    store: ReleaseStore,
    *,
    rule: Gate | None = None,
    progress: Progress | None = None,
    trained: Mapping[str, Any] | None = None,
    threads: int = 2,
    int8: bool = False,
) -> Release:
    """Publishes a smaller release of the teacher's task; nothing points to it.

    rule: of the gate, which then judges it beside its teacher; a refused one is published as well, and its manifest
    says so. trained: what the manifest says of the data. Raises SettingsError for sizes that are not smaller,
    ReleaseError for a teacher of another version or catalogue, TrainingError for too few examples.
    """
    known = checked(teacher, smaller)
    check_encoder(teacher, catalog)
    problem = PROBLEMS[teacher.task](make_task(teacher.task), recording, catalog)
    problem.learning = max(1, round(len(problem.examples) * (1 - HELD)))
    examples = learned(problem)
    served = as_served(problem, examples, teacher)
    if isinstance(problem, Fraud):
        problem.learned = problem.columns(known, np.arange(problem.learning))
    loss = taught(problem, known, smaller.share, served.bias)
    model = small(known, smaller, problem, loss)
    narrower = model.config.width < known.config.width
    plan = smaller.plan(teacher.task, narrower=narrower)
    lost = fit(model, problem.learning, loss, TorchTable(model, catalog), plan, progress)
    end(problem, model, served, narrower=narrower)
    said = {**(trained or {}), **told(teacher, known, model, smaller), "steps": plan.steps, "loss": lost}
    said |= {"examples": served.learning, "until": int(examples["time"][: served.learning].max())}

    def judge(candidate: Compiled) -> dict[str, Any]:
        return {} if rule is None else by_gate(served, examples, teacher, candidate, rule, threads)

    return make_release(served, model, store, said, threads=threads, judge=judge, int8=int8)


def small(known: HeadraceModel, smaller: Smaller, problem: Recorded, loss: Loss) -> HeadraceModel:
    """The smaller model before it learns."""
    if smaller.by == "prune":
        table = TorchTable(known, problem.catalog)
        table.freeze()
        return pruned(known, smaller.sizes, importance(known, problem.learning, loss, table))
    sizes = dict(smaller.sizes)
    if isinstance(problem, ClickThrough) and sizes.get("width", known.config.width) < known.config.width:
        sizes["conversions"] = int(known.config.conversions and problem.converts)
    return student_of(known, sizes, problem)


def as_served(problem: Recorded, examples: Examples, teacher: Release) -> Served:
    """The same examples as fine-tunes have them: those that train, then half of the rest to calibrate by."""
    time, held = problem.examples.time, len(problem.examples) - problem.learning
    borders = time[problem.learning - 1], time[problem.learning + held // 2 - 1]
    learning, judging = (int((examples["time"] <= border).sum()) for border in borders)
    prior = kept_prior(teacher, problem.catalog)
    return SERVED[problem.name](
        problem.task, problem.catalog, teacher.manifest, examples, learning=learning, judging=judging, prior=prior
    )


def end(problem: Recorded, model: HeadraceModel, served: Served, *, narrower: bool) -> None:
    """What is not learned by steps: how much the trees count; and of other vectors, the head of conversions."""
    if isinstance(problem, Fraud) and model.config.trees:
        held = len(problem.examples) - problem.learning
        problem.weigh(model, problem.learning + np.arange(held // 2))
    if isinstance(problem, ClickThrough) and narrower:
        problem.end(model)
        clicks = {name: served.champion.calibration[name] for name in ("a", "b")}
        calibration = clicks | problem.conversions[0]
        served.champion = served.champion.model_copy(update={"calibration": calibration})


def told(teacher: Release, known: HeadraceModel, model: HeadraceModel, smaller: Smaller) -> dict[str, Any]:
    """For the manifest: what it was made from, and how."""
    counts = [sum(each.numel() for each in whose.parameters()) for whose in (model, known)]
    how = {"by": smaller.by, "sizes": dict(smaller.sizes), "share": smaller.share, "teacher": teacher.digest}
    parameters = {"parameters": counts[0], "teacher_parameters": counts[1]}
    kept = {name: said for name, said in teacher.manifest.trained.items() if name in KEPT}
    return {**kept, "champion": teacher.version, "smaller": {**how, **parameters}}


def by_gate(
    served: Served, examples: Examples, teacher: Release, candidate: Compiled, rule: Gate, threads: int
) -> dict[str, Any]:
    """The gate's report. That the teacher may have learned the window is no reason to refuse: it only makes it harder
    for the candidate.
    """
    trained = {name: said for name, said in teacher.manifest.trained.items() if name != "until"}
    champion = replace(teacher, manifest=teacher.manifest.model_copy(update={"trained": trained}))
    window, nothing = examples[served.judging :], examples[:0]
    material = Material(
        window,
        examples[: served.learning],
        nothing,
        np.zeros(0),
        nothing["key"],
        {source_key(derive.SOURCE): derive.SOURCE},
    )
    return judged(served, champion, candidate, material, rule, threads)
