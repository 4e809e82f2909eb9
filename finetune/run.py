"""`python -m finetune.run PLAN.json`: from a champion and new examples to a candidate release, in its own process.
It prints one line of JSON. Exit codes: 0 made, 2 a plan that cannot be used, 3 refused; any other is a crash.

What it makes is in the store, and nothing points to it. Killed at any moment, a second run of the plan goes on.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.model import load_model
from engines.openvino import OpenVinoEngine
from engines.releases import Release, ReleaseStore
from finetune import release as releasing
from finetune.curves import Curves
from finetune.delays import Delays
from finetune.example_files import read_catalog, read_examples, whole
from finetune.examples import Counts, Examples, Record, examples_of, source_key
from finetune.incremental import Fitted, Told, fit
from finetune.judging import Material, judged
from finetune.mixing import Mix, mixed
from finetune.parts import Parts
from finetune.plan import File, TunePlan, read_plan
from finetune.reservoir import Reservoir
from finetune.served import SERVED, Served
from schemas.errors import HeadraceError, ReleaseError, SettingsError, TrainingError
from streams.catalog import Catalogue
from streams.tasks import make_task
from streams.tasks.base import Task

RESULT = "result.json"
REFUSED = "refuse"
CONVERSIONS = "conversions"
"""What a manifest says of the clicks that their head has learned from: a fine-tune leaves that head as it is."""
MADE_LATELY = 8  # releases of the store that are looked through for one that this plan has made


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
        new, counts = examples_of(task, catalog, _records(plan.examples))
        window, _ = examples_of(task, catalog, _records(plan.window))
        new = new[~np.isin(new["key"], window["key"])]  # never trained on, neither now nor by way of the reservoir
        holding = examples_of(task, catalog, _records(plan.holding))[0] if plan.holding else None
        kept = _reservoir(plan, task)
        mix = mixed(plan, task, new, kept, window["key"], holding)
        problem = make_problem(plan, task, catalog, champion, mix)
    made = _made(plan, store)
    with parts.timed("train"):
        model = load_model(champion.folder)
        identity = f"{plan.identity} {champion.digest}"

        def after_step(step: int, steps: int, loss: float) -> None:
            parts.check("train")
            if told is not None:
                told(step, steps, loss)

        fitted = fit(model, problem, plan.made_recipe(), plan.out, identity, after_step, Curves(plan.curves))
        if fitted.after >= fitted.before:
            raise TrainingError(
                f"nothing learned in {fitted.steps} steps was better than the champion on the examples to stop by",
                where=plan.task,
                expected=f"a loss below {fitted.before:.6f}",
                todo="wait for more examples, or lower the rate",
            )
    if made is None:
        judge = _judge(plan, problem, champion, mix, window, kept, new, counts)
        made = releasing.make_release(
            problem, model, store, _trained(plan, problem, champion, fitted, mix), threads=plan.threads,
            timed=parts.timed, judge=judge, int8=plan.int8, champion=champion,
        )  # fmt: skip
    with parts.timed("champion"):
        figures = champion_figures(problem, champion, plan.threads)
    with parts.timed("keep"):
        # What a refused candidate has learned is new for the next one, and may be what it was refused for.
        if kept is not None and made.manifest.metrics.get("gate", {}).get("verdict") != REFUSED:
            kept.add(new)
    result = _said(plan, made, figures, fitted, mix, counts, parts)
    with whole(path) as partial:
        partial.write_text(json.dumps(result))
    return result


def _records(files: Iterable[File]) -> Iterator[Record]:
    for file in files:
        yield from read_examples(file.path, file.sha256)


def make_problem(plan: TunePlan, task: Task, catalog: Catalogue, champion: Release, mix: Mix) -> Served:
    """Raises TrainingError where there are too few examples."""
    return SERVED[plan.task](
        task, catalog, champion.manifest, mix.examples, learning=mix.learning, judging=mix.judging,
        negatives=task.labels.negatives if plan.negatives is None else plan.negatives,
        offset=plan.correction == "offset", prior=releasing.kept_prior(champion, catalog),
        delays=None if plan.delays is None else Delays.from_dict(plan.delays), new=mix.learning - mix.replayed,
    )  # fmt: skip


def champion_figures(problem: Served, champion: Release, threads: int) -> dict[str, float]:
    """The champion on the examples to judge by, with its own calibration, on the engine that candidates have."""
    which = np.arange(problem.judging, len(problem.examples))[-releasing.HELD_ROWS :]
    engine = OpenVinoEngine(champion, precision=releasing.PRECISION, buckets=(releasing.BUCKET,), threads=threads)
    found = releasing.scored(engine, problem, releasing.vector_table(problem, champion), which)
    figures = problem.judge(found, which, dict(champion.manifest.calibration))
    engine.close()
    return figures


def _made(plan: TunePlan, store: ReleaseStore) -> Release | None:
    """The release that this plan has made before it was killed."""
    for version in reversed(store.list(plan.task)[-MADE_LATELY:]):
        with suppress(ReleaseError):  # a damaged one is for others to complain of
            release = store.open(plan.task, version)
            if release.manifest.trained.get("plan") == plan.identity:
                return release
    return None


def _trained(plan: TunePlan, problem: Served, champion: Release, fitted: Fitted, mix: Mix) -> dict[str, Any]:
    return {
        **plan.trained,
        "plan": plan.identity,
        "champion": champion.version,
        "encoder": champion.manifest.trained.get("encoder", ""),
        **{name: said for name, said in champion.manifest.trained.items() if name == CONVERSIONS},
        "files": [file.sha256 for file in plan.examples],
        "window": [file.sha256 for file in plan.window],
        "examples": mix.learning - mix.replayed,
        "held_back": mix.held_back,
        "replayed": mix.replayed,
        "replay": mix.replay_digest,
        "held_out": len(problem.examples) - problem.learning,
        "until": int(problem.examples.time[: problem.learning].max()),
        "recipe": asdict(plan.made_recipe()),
        "fit": asdict(fitted),
    }


def _judge(
    plan: TunePlan, problem: Served, champion: Release, mix: Mix, window: Examples, kept: Reservoir | None,
    new: Examples, counts: Counts,
) -> releasing.Judge | None:  # fmt: skip
    """What judges the candidate before it is published; None without a gate."""
    rule = plan.gate
    if rule is None:
        return None

    def judge(candidate: releasing.Compiled) -> dict[str, Any]:
        old, share = new[:0], np.zeros(0)
        if kept is not None:
            elsewhere = np.concatenate([new["key"], window["key"]])
            apart = ~np.isin(kept.examples["key"], elsewhere) & (kept.examples["weight"] > 0).any(axis=1)
            old, share = kept.examples[apart], kept.share[apart]
        sources = {source_key(name): name for name in counts.sources}
        material = Material(
            window, mix.examples[mix.fresh], old, share, mix.examples["key"][~mix.fresh], sources, counts.contradicted
        )
        return judged(problem, champion, candidate, material, rule, plan.threads)

    return judge


def _reservoir(plan: TunePlan, task: Task) -> Reservoir | None:
    if plan.reservoir is None:
        return None
    kept = plan.reservoir
    return Reservoir(kept.folder, task, rows=kept.rows, bytes_=kept.bytes, seed=kept.seed)


def _said(
    plan: TunePlan, candidate: Release, champion: dict[str, float], fitted: Fitted, mix: Mix, counts: Counts,
    parts: Parts,
) -> dict[str, Any]:  # fmt: skip
    metrics = dict(candidate.manifest.metrics)
    report, window = metrics.pop("gate", None), metrics.pop("window", None)
    del metrics["parity"]
    return {
        "made": candidate.version,
        "task": plan.task,
        "plan": plan.identity,
        "champion": {"version": plan.champion, "metrics": champion},
        "candidate": {"version": candidate.version, "metrics": metrics},
        "verdict": None if report is None else report["verdict"],
        "gate": report,
        "window": window,
        "fit": asdict(fitted),
        "examples": asdict(counts) | {"new": mix.new, "replayed": mix.replayed, "held_back": mix.held_back},
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


def main(arguments: list[str], *, alone: bool = False) -> int:
    """The exit code. Prints the result, or why there is none, as one line of JSON.

    alone: the process is for this only, and ends at the moment it holds more memory than the plan allows.
    """
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
    if alone:
        parts.watch(lambda error: _end(plan, parts, error))
    try:
        print(json.dumps(tune(plan, parts)), flush=True)
    except (HeadraceError, OSError, MemoryError) as error:
        print(_refusal(plan, parts, error), flush=True)
        return 3
    return 0


def _refusal(plan: TunePlan, parts: Parts, error: Exception) -> str:
    reason = str(error) or "there is not enough memory"
    told = {"refused": reason, "kind": type(error).__name__, "task": plan.task, "plan": plan.identity}
    return json.dumps(told | {"seconds": dict(parts.seconds), "peak_mb": dict(parts.peak_mb)})


def _end(plan: TunePlan, parts: Parts, error: Exception) -> None:
    """From another thread than the one that trains. What is half written has no name yet; the system frees the rest."""
    os.write(1, f"{_refusal(plan, parts, error)}\n".encode())
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], alone=True))
