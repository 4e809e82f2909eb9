"""`python -m finetune.run PLAN.json`: from a champion and new examples to a candidate release, in its own process.
It prints one line of JSON. Exit codes: 0 made, 2 a plan that cannot be used, 3 refused; any other is a crash.

What it makes is in the store, and nothing points to it. Killed at any moment, a second run of the plan goes on.
"""

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.model import HeadraceModel, load_model
from engines.openvino import OpenVinoEngine
from engines.releases import Release, ReleaseStore
from finetune import release as releasing
from finetune.example_files import read_catalog, read_examples, whole
from finetune.examples import Counts, Examples, examples_of, is_positive, ranks, same_period
from finetune.incremental import Fitted, Told, fit
from finetune.parts import Parts
from finetune.plan import TunePlan, read_plan
from finetune.reservoir import Reservoir
from finetune.served import SERVED, Served
from schemas.errors import HeadraceError, ReleaseError, SettingsError, TrainingError
from streams.catalog import Catalogue
from streams.tasks import make_task
from streams.tasks.base import Task

RESULT = "result.json"
NICENESS = 10
MADE_LATELY = 8  # releases of the store that are looked through for one that this plan has made


@dataclass(slots=True)
class Mix:
    """Examples in the order of training and holding out; new ones that are left out of both are in `rest`."""

    examples: Examples
    learning: int
    judging: int
    new: int
    replayed: int
    held_back: int
    known: int


def tune(plan: TunePlan, parts: Parts, told: Told | None = None) -> dict[str, Any]:
    """Makes the candidate and returns what is printed. Raises HeadraceError where it cannot be made."""
    path = plan.out / RESULT
    if (done := _result(path)).get("plan") == plan.identity:
        return done
    task = make_task(plan.task)
    store = ReleaseStore(plan.store, cache=plan.cache)
    with parts.timed("read"):
        champion = store.open(plan.task, plan.champion)
        catalog = read_catalog(plan.catalog.path, plan.catalog.sha256)
        records = (record for file in plan.examples for record in read_examples(file.path, file.sha256))
        new, counts = examples_of(task, catalog, records)
        kept = _reservoir(plan, task)
        mix = mixed(plan, task, new, kept)
        problem = make_problem(plan, task, catalog, champion, mix)
    with parts.timed("train"):
        model = load_model(champion.folder)
        identity = f"{plan.identity} {champion.digest}"

        def after_step(step: int, steps: int, loss: float) -> None:
            parts.check("train")
            if told is not None:
                told(step, steps, loss)

        fitted = fit(model, problem, plan.made_recipe(), plan.out, identity, after_step)
        if fitted.best_step == 0:
            raise TrainingError(
                f"no step in {fitted.steps} was better than the champion on the examples to stop by",
                where=plan.task,
                expected=f"a loss below {fitted.before:.6f}",
                todo="wait for more examples, or lower the rate",
            )
    candidate = _candidate(plan, problem, model, store, champion, fitted, mix, parts)
    with parts.timed("champion"):
        figures = champion_figures(problem, champion, plan.threads)
    with parts.timed("keep"):
        if kept is not None:
            kept.add(new)
    result = _said(plan, candidate, figures, fitted, mix, counts, parts)
    with whole(path) as partial:
        partial.write_text(json.dumps(result))
    return result


def mixed(plan: TunePlan, task: Task, new: Examples, kept: Reservoir | None) -> Mix:
    """New examples and their replay. What a first run of the plan drew is drawn again, whatever was kept since."""
    new = new[(new["weight"] > 0).any(axis=1)]
    drawn = _drawn(plan, task, new, kept)
    fresh, replay = new[drawn["fresh"]], drawn["replay"]
    inside = drawn["inside"][drawn["fresh"]]
    used = fresh[inside]
    held = _held(plan, len(used))
    learning, judging = len(used) - held, len(used) - held + held // 2
    examples = np.concatenate([used[:learning], replay, used[learning:]])
    mix = Mix(
        examples, learning + len(replay), judging + len(replay), len(used), len(replay),
        int((~inside).sum()), len(new) - len(fresh),
    )  # fmt: skip
    if not ranks(task) and mix.learning:
        positives = int(is_positive(task, examples[: mix.learning]).sum())
        if not 0 < positives < mix.learning:
            raise TrainingError(
                f"{positives} positives among the {mix.learning} examples to train on",
                where=f"{plan.task}, {mix.held_back} of {len(fresh)} new examples held back",
                expected="examples of both kinds, from one period",
                todo="wait for more labels",
            )
    return mix


def _drawn(plan: TunePlan, task: Task, new: Examples, kept: Reservoir | None) -> dict[str, NDArray[Any]]:
    """fresh (N,): which of the new the reservoir does not have in this revision. inside (N,): which are of a period
    that has negatives. replay: with its weights multiplied in.
    """
    path = plan.out / f"mix-{plan.identity[:16]}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in ("fresh", "inside", "replay")}
    known: Examples = new[:0] if kept is None else kept.examples
    place = np.argsort(known["key"])
    at = np.searchsorted(known["key"], new["key"], sorter=place)
    at = place[np.minimum(at, len(known) - 1)] if len(known) else at
    fresh = np.ones(len(new), np.bool_)
    if len(known):
        fresh = (known["key"][at] != new["key"]) | (known["revision"][at] < new["revision"]).any(axis=1)
    inside = same_period(task, new, known) if plan.period == "shared" else np.ones(len(new), np.bool_)
    used = new[fresh & inside]
    learning = len(used) - _held(plan, len(used))
    replay = new[:0].copy()
    if kept is not None and learning:
        wanted = round(learning * plan.replay / (1 - plan.replay))
        seed = (plan.made_recipe().seed, int(plan.identity[:8], 16))
        draw = kept.draw(wanted, seed, before=int(used["time"][learning - 1]), without=new["key"])
        replay = draw.examples.copy()
        replay["weight"] *= draw.weight[:, None]
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, fresh=fresh, inside=inside, replay=replay)
    return {"fresh": fresh, "inside": inside, "replay": replay}


def _held(plan: TunePlan, count: int) -> int:
    """How many of the newest examples do not train: no more than a release is checked with."""
    return min(round(count * plan.holdout), releasing.HELD_ROWS)


def make_problem(plan: TunePlan, task: Task, catalog: Catalogue, champion: Release, mix: Mix) -> Served:
    """Raises TrainingError where there are too few examples."""
    prior = None
    if releasing.PRIOR in champion.manifest.files:
        prior = np.zeros(len(catalog), np.float32)
        for ident, value in json.loads(champion.file(releasing.PRIOR).read_text("utf-8")).items():
            prior[catalog.items.get(ident, 0)] = value
        prior[0] = 0
    return SERVED[plan.task](
        task, catalog, champion.manifest, mix.examples, learning=mix.learning, judging=mix.judging,
        negatives=task.labels.negatives if plan.negatives is None else plan.negatives,
        offset=plan.correction == "offset", prior=prior,
    )  # fmt: skip


def champion_figures(problem: Served, champion: Release, threads: int) -> dict[str, float]:
    """The champion on the examples to judge by, with its own calibration, on the engine that candidates have."""
    which = np.arange(problem.judging, len(problem.examples))[-releasing.HELD_ROWS :]
    engine = OpenVinoEngine(champion, precision=releasing.PRECISION, buckets=(releasing.BUCKET,), threads=threads)
    found = releasing.scored(engine, problem, releasing.vector_table(problem, champion), which)
    figures = problem.judge(found, which, dict(champion.manifest.calibration))
    engine.close()
    return figures


def _candidate(
    plan: TunePlan, problem: Served, model: HeadraceModel, store: ReleaseStore, champion: Release, fitted: Fitted,
    mix: Mix, parts: Parts,
) -> Release:  # fmt: skip
    """The release that this plan has made before it was killed, or a new one."""
    for version in reversed(store.list(plan.task)[-MADE_LATELY:]):
        with suppress(ReleaseError):  # a damaged one is for others to complain of
            release = store.open(plan.task, version)
            if release.manifest.trained.get("plan") == plan.identity:
                return release
    trained = {
        **plan.trained,
        "plan": plan.identity,
        "champion": champion.version,
        "files": [file.sha256 for file in plan.examples],
        "examples": mix.new,
        "replayed": mix.replayed,
        "held_out": len(problem.examples) - problem.learning,
        "until": int(problem.examples.time[problem.learning :].max()),
        "recipe": asdict(plan.made_recipe()),
        "fit": asdict(fitted),
    }
    return releasing.make_release(problem, model, store, trained, threads=plan.threads, timed=parts.timed)


def _reservoir(plan: TunePlan, task: Task) -> Reservoir | None:
    if plan.reservoir is None:
        return None
    kept = plan.reservoir
    return Reservoir(kept.folder, task, rows=kept.rows, bytes_=kept.bytes, seed=kept.seed)


def _said(
    plan: TunePlan, candidate: Release, champion: dict[str, float], fitted: Fitted, mix: Mix, counts: Counts,
    parts: Parts,
) -> dict[str, Any]:  # fmt: skip
    metrics = {name: value for name, value in candidate.manifest.metrics.items() if name != "parity"}
    return {
        "made": candidate.version,
        "task": plan.task,
        "plan": plan.identity,
        "champion": {"version": plan.champion, "metrics": champion},
        "candidate": {"version": candidate.version, "metrics": metrics},
        "fit": asdict(fitted),
        "examples": asdict(counts)
        | {"new": mix.new, "replayed": mix.replayed, "held_back": mix.held_back, "known": mix.known},
        "seconds": parts.seconds,
        "peak_mb": parts.peak_mb,
    }


def _result(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def settle(threads: int) -> None:
    """Of the whole process: bounded threads, and the same arithmetic in each run."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def main(arguments: list[str]) -> int:
    """The exit code. Prints the result, or why there is none, as one line of JSON."""
    try:
        if len(arguments) != 1:
            raise SettingsError(
                f"{len(arguments)} arguments", expected="PLAN.json", todo="python -m finetune.run PLAN.json"
            )
        plan = read_plan(Path(arguments[0]))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    settle(plan.threads)
    parts = Parts(plan.memory_mb)
    try:
        print(json.dumps(tune(plan, parts)), flush=True)
    except (HeadraceError, OSError, MemoryError) as error:
        reason = str(error) or "there is not enough memory"
        told = {"refused": reason, "kind": type(error).__name__, "task": plan.task, "plan": plan.identity}
        print(json.dumps(told | {"seconds": parts.seconds, "peak_mb": parts.peak_mb}), flush=True)
        return 3
    return 0


if __name__ == "__main__":
    os.nice(NICENESS)
    sys.exit(main(sys.argv[1:]))
