"""The simulator's part of the quality: models and baselines learn from what was known of a world at a border, and all
are judged on the weeks after it, beside the probabilities that outcomes were drawn from. The models are judged as they
serve: compiled engine, feature rows, the task's own results.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from bench import judges
from bench.judging import Case, Figures
from bench.report import show
from engines.releases import ReleaseStore
from finetune.first import KEEP, PLANS, train
from finetune.history import Timed, catalogue_from, replay
from finetune.trainer import Plan
from schemas.errors import HeadraceError
from streams.catalog import Catalogue
from streams.demo.models import SEED, text_encoder
from streams.sources.world import World, WorldConfig, milliseconds
from streams.tasks import make_task
from streams.vectors import catalogue_vectors

START, BORDER, END = "2011-03-01", "2011-11-01", "2011-12-09"
FRAUD_RATE = 0.03
LONG = PLANS | {"ctr": replace(PLANS["ctr"], steps=600, batch=256, rate=1e-3)}
ALL_CLICKS = KEEP | {"ctr": 1.0}
TARGETS = {
    "ctr_excess_over_truth": 0.02,
    "ctr_prediction_off_truth": 0.02,
    "ctr_decile_off_truth": 0.05,
    "fraud_excess_over_truth": 0.02,
    "fraud_prediction_off_truth": 0.02,
    "recommendations_ndcg_below_popularity": 0.0,
}
SMOKE_TARGETS = {
    "ctr_normalised_entropy_high": 1.0,
    "ctr_entropy_over_boosting": 1.0,
    "recommendations_ndcg_below_popularity": 0.0,
    "first_training_s": 60.0,
}


def figures() -> Figures:
    """With all impressions and a longer training of click-through than a first one."""
    return judged(LONG, ALL_CLICKS)


def smoke_figures() -> Figures:
    """The first models as `make demo` trains them."""
    return judged(PLANS, KEEP)


def judged(plans: Mapping[str, Plan], keep: Mapping[str, float]) -> Figures:
    world = World(WorldConfig(start=START, end=END, shop="real", fraud_rate=FRAUD_RATE), SEED)
    catalog = encoded(world)
    started = Clock()
    recording = replay(stream(world), [make_task(name) for name in plans], catalog, keep)
    spent = started.so_far("replay")
    border = milliseconds(BORDER)
    known = recording.before(border)
    found: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        started = Clock()
        releases = train(known, catalog, ReleaseStore(folder), plans=plans)
        spent |= started.so_far("training")
        for name, release in releases.items():
            made = judges.JUDGES[name](Case(release, recording, known, catalog, world, border))
            found |= {f"{name}_{figure}": value for figure, value in made.items()}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found | bounds(found) | {f"first_{name}": value for name, value in {**spent, "memory_mb": memory}.items()}


def bounds(found: Figures) -> Figures:
    """Figures that are better the smaller they are, of the tasks that were judged: what targets are of."""
    made: Figures = {}
    if "recommendations_ndcg_at_10" in found:
        behind = found["recommendations_popularity_ndcg_at_10"] - found["recommendations_ndcg_at_10"]
        made["recommendations_ndcg_below_popularity"] = behind
    if "ctr_normalised_entropy" in found:
        made["ctr_entropy_over_boosting"] = found["ctr_normalised_entropy"] / found["ctr_boosting_normalised_entropy"]
    for task in ("ctr", "fraud"):
        if f"{task}_prediction_over_truth" not in found:
            continue
        made[f"{task}_prediction_off_truth"] = abs(found[f"{task}_prediction_over_truth"] - 1)
        ends = found[f"{task}_decile_over_truth_low"], found[f"{task}_decile_over_truth_high"]
        made[f"{task}_decile_off_truth"] = max(abs(end - 1) for end in ends)
    return made


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def so_far(self, what: str) -> Figures:
        return {f"{what}_s": time.monotonic() - self._wall, f"{what}_cpu_s": time.process_time() - self._cpu}


def stream(world: World) -> Iterator[Timed]:
    """All events, and the labels that came after the last one too: chargebacks take weeks."""
    return ((event.topic, event.record) for event in world.events())


def encoded(world: World) -> Catalogue:
    """The world's catalogue with its text vectors."""
    items, ads = world.catalog()
    with tempfile.TemporaryDirectory() as cache:
        vectors = catalogue_vectors(items, ads, text_encoder(Path(cache)))
    return catalogue_from(items, ads, vectors)


def main() -> None:
    """All of it, or some tasks: recommendations are always trained, as the others start from them."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality_world", description=__doc__)
    parser.add_argument("--tasks", default=",".join(LONG), help="with commas between; by default all")
    parser.add_argument("--first", action="store_true", help="as the demo trains, instead of longer")
    given = parser.parse_args()
    wanted = {"recommendations", *given.tasks.split(",")}
    plans, keep, targets = (PLANS, KEEP, SMOKE_TARGETS) if given.first else (LONG, ALL_CLICKS, TARGETS)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        found = judged({name: plan for name, plan in plans.items() if name in wanted}, keep)
    except HeadraceError as error:
        sys.exit(str(error))
    asked = {name: most for name, most in targets.items() if name.partition("_")[0] in {*wanted, "first"}}
    show("quality_world", found, asked, digits=5)


if __name__ == "__main__":
    main()
