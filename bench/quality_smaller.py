"""What a smaller model costs in quality and saves in time: `python -m bench.quality_smaller`. Of the simulator's world,
a task each: the first training's release, one distilled and one pruned from it, and one of the distilled one's sizes
that was trained without a teacher. All are judged on later weeks, as they serve; intervals are over users.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ctr_judge import said
from bench.judging import Case, Figures, Floats, served
from bench.quality_world import BORDER, END, FRAUD_RATE, Clock, encoded, stream
from bench.report import show
from bench.timed_engine import timed
from engines.model import load_model
from engines.openvino import GRAPH
from engines.releases import Release, ReleaseStore
from finetune import metrics
from finetune.bootstrap import counts, units_of
from finetune.first import KEEP, PLANS, train
from finetune.history import Recording, replay
from finetune.labels import click_labels, fraud_labels, next_items, shown_ads
from finetune.plan import Gate
from finetune.problems import NEXT_ITEM_WINDOW_MS
from finetune.shrink import shrink
from finetune.smaller import Smaller
from schemas.errors import HeadraceError
from streams.catalog import Catalogue
from streams.demo.models import SEED
from streams.sources.world import World, WorldConfig, milliseconds
from streams.tasks import make_task

START = "2011-08-01"
CONVERSION_RATE = 0.05
FEWER = {"layers": 1, "hidden": 128}
THINNER = {"hidden": 64, "heads": 1}
WAYS = {"distilled": Smaller("distill", FEWER), "pruned": Smaller("prune", THINNER)}
RULE = Gate(labels=400, positives=10, budget_ms=50, seed=0)  # the newest tenth of three months has no more frauds
TOP, DRAWS = 10, 200

Values = NDArray[Any]
Figure = Callable[[Values, Values, Values], float]
"""Of labels, of what is said of them and of weights."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What is judged, (n,): label and what a release says of it, and whose event it was."""

    label: Values
    said: Values
    user: Values


def figures() -> dict[str, Any]:
    world = World(
        WorldConfig(start=START, end=END, shop="real", fraud_rate=FRAUD_RATE, conversion_rate=CONVERSION_RATE), SEED
    )
    catalog, clock = encoded(world), Clock()
    recording = replay(stream(world), [make_task(name) for name in PLANS], catalog, KEEP)
    known = recording.before(milliseconds(BORDER))
    with tempfile.TemporaryDirectory() as folder:
        store = ReleaseStore(folder)
        releases = made(known, catalog, store)
        found: dict[str, Any] = clock.so_far("all")
        for task, each in releases.items():
            cases = {
                name: Case(release, recording, known, catalog, world, milliseconds(BORDER))
                for name, release in each.items()
            }
            judged = beside({name: OUTCOMES[task](case) for name, case in cases.items()}, FIGURES[task])
            found |= {f"{task}_{name}": value for name, value in judged.items()}
            for name, release in each.items():
                found |= {f"{task}_{name}_{what}": value for what, value in costs(store, release).items()}
    return found


def made(known: Recording, catalog: Catalogue, store: ReleaseStore) -> dict[str, dict[str, Release]]:
    """Releases by task, and by name in the order in which they are shown."""
    teachers = train(known, catalog, store)
    alone = train(known, catalog, store, plans={name: replace(plan, sizes=FEWER) for name, plan in PLANS.items()})
    return {
        task: {
            "teacher": teacher,
            **{name: shrink(teacher, way, known, catalog, store, rule=RULE) for name, way in WAYS.items()},
            "alone": alone[task],
        }
        for task, teacher in teachers.items()
    }


def orders(case: Case) -> Outcomes:
    late = case.late
    label = fraud_labels(late.events, case.recording.labels)
    return Outcomes(label, np.array([result.prediction[0] for result in served(case, late)]), users(late.events))


def ads(case: Case) -> Outcomes:
    late, slots = case.late, case.late.rows["ad"].shape[1]
    shown = shown_ads(late.events, slots) > 0
    user = np.repeat(users(late.events)[:, None], slots, axis=1)
    label = click_labels(late.events, case.recording.labels, slots)
    return Outcomes(label[shown], said(case, late)[shown], user[shown])


def items(case: Case) -> Outcomes:
    """said: what each list gains by where the item stands that the user went on to."""
    late, clicks = case.late, case.recording.clicks
    target = next_items(clicks.user, clicks.time, clicks.item, NEXT_ITEM_WINDOW_MS)[late.place]
    late, target = late.part(target > 0), target[target > 0]
    ranked = np.zeros((len(late), TOP), np.int64)
    for number, result in enumerate(served(case, late)):
        best = result.candidates[:TOP]
        ranked[number, : len(best)] = [case.catalog.items[ident] for ident in best]
    rank = metrics.rank_of(target, ranked)
    gain = np.where(rank < TOP, 1 / np.log2(rank + 2.0), 0.0)
    return Outcomes(target, gain, users(late.events))


def users(events: list[Any]) -> Values:
    return np.array([event["user_id"] for event in events])


OUTCOMES: dict[str, Callable[[Case], Outcomes]] = {"recommendations": items, "fraud": orders, "ctr": ads}
FIGURES: dict[str, tuple[str, Figure]] = {
    "recommendations": ("ndcg_at_10", lambda label, gain, weight: float(np.average(gain, weights=weight))),
    "fraud": ("pr_auc", metrics.pr_auc),
    "ctr": ("normalised_entropy", metrics.normalised_entropy),
}


def beside(outcomes: dict[str, Outcomes], figure: tuple[str, Figure]) -> Figures:
    """Each one's figure, and how far it is from the teacher's, with 95 % intervals over the same draws of users."""
    name, measured = figure
    unit = units_of(outcomes["teacher"].user)
    weights = [np.ones(len(unit))]
    for chunk in counts(int(unit.max()) + 1, DRAWS, 0, len(unit)):
        weights += list(chunk[:, unit])
    drawn = {who: np.array([measured(each.label, each.said, weight) for weight in weights])
             for who, each in outcomes.items()}  # fmt: skip
    found: Figures = {"events": float(len(unit))}
    for who, every in drawn.items():
        found |= interval(f"{who}_{name}", every)
        if who != "teacher":
            found |= interval(f"{who}_{name}_less_teacher", every - drawn["teacher"])
    return found


def interval(name: str, every: Floats) -> Figures:
    """The figure itself, which comes first, and where 95 % of the draws lie."""
    low, high = np.quantile(every[1:], [0.025, 0.975])
    return {name: float(every[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def costs(store: ReleaseStore, release: Release) -> dict[str, Any]:
    """CPU time of a bucket, what is learned and what is stored; and what the gate said, of those that it judged."""
    parameters = sum(each.numel() for each in load_model(release.folder).parameters())
    size = release.manifest.files[GRAPH].size / 1e6
    told = timed(store, release) | {"parameters": parameters, "graph_mb": size}
    report = release.manifest.metrics.get("gate")
    if report is not None:
        told["gate"] = report["verdict"]
        told["gate_refuses"] = [each["name"] for each in report["checks"] if not each["passed"]]
    return told


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        show("quality_smaller", figures(), digits=5)
    except HeadraceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
