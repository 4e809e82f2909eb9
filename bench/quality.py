"""How good the first models are on later time: `python -m bench.quality --smoke` prints a table and a line of JSON.
One world is replayed once; models and baselines learn from what was known at the border, and all are judged on the
weeks after it. The models are judged as they serve: compiled engine, feature rows, the task's own results.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import judges
from bench.judges import Figures
from engines.releases import ReleaseStore
from finetune.first import KEEP, PLANS, train
from finetune.history import Timed, catalogue_from, replay
from schemas.errors import HeadraceError
from streams.catalog import Catalogue
from streams.demo.models import SEED, text_encoder
from streams.sources.world import World, WorldConfig, milliseconds
from streams.tasks import make_task
from streams.vectors import catalogue_vectors

START, BORDER, END = "2011-03-01", "2011-11-01", "2011-12-09"
FRAUD_RATE = 0.03

TARGETS: dict[str, tuple[str, Callable[[Figures], bool]]] = {
    "recommendations": (
        "ndcg@10 and hit@10 above popularity's",
        lambda f: f["ndcg_at_10"] > f["popularity_ndcg_at_10"] and f["hit_at_10"] > f["popularity_hit_at_10"],
    ),
    "ctr": (
        "normalised entropy below 1, its whole interval; AUC above 0.5",
        lambda f: f["normalised_entropy_high"] < 1 and f["roc_auc"] > 0.5,
    ),
    "fraud": (
        "PR-AUC and log loss better than a logistic regression's on order fields",
        lambda f: f["pr_auc"] > f["logistic_pr_auc"] and f["log_loss_nats"] < f["logistic_log_loss_nats"],
    ),
    "first": ("the three trainings within 60 s", lambda f: f["training_s"] <= 60),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--smoke", action="store_true", required=True, help="first models against simple baselines")
    parser.parse_args()
    try:
        smoke()
    except HeadraceError as error:
        sys.exit(str(error))


def smoke() -> None:
    """The real shop from START to END; BORDER is where training ends and judging begins."""
    console = Console(stderr=True)
    world = World(WorldConfig(start=START, end=END, shop="real", fraud_rate=FRAUD_RATE), SEED)
    console.print(f"{world}\ntrained on {START} to {BORDER}, judged on {BORDER} to {END}")
    catalog = encoded(world)
    started = Clock()
    recording = replay(stream(world), [make_task(name) for name in PLANS], catalog, KEEP)
    replayed = started.so_far("replay")
    known = recording.before(milliseconds(BORDER))
    with tempfile.TemporaryDirectory() as folder:
        started = Clock()
        releases = train(known, catalog, ReleaseStore(folder))
        trained = started.so_far("training")
        figures: dict[str, Figures] = {
            name: judges.JUDGES[name](judges.Case(release, recording, known, catalog, world, milliseconds(BORDER)))
            for name, release in releases.items()
        }
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report(console, figures | {"first": {**replayed, **trained, "memory_mb": memory}})


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def so_far(self, what: str) -> Figures:
        return {f"{what}_s": time.monotonic() - self._wall, f"{what}_cpu_s": time.process_time() - self._cpu}


def report(console: Console, figures: dict[str, Figures]) -> None:
    """The table on stderr, the line of JSON on stdout."""
    table = Table("task", "figure", "value")
    for task, each in figures.items():
        for name, value in each.items():
            table.add_row(task, name, f"{value:,.4f}" if value < 10 else f"{value:,.0f}")
    console.print(table)
    missed = [task for task, (_, holds) in TARGETS.items() if not holds(figures[task])]
    flat = {f"{task}_{name}": round(value, 5) for task, each in figures.items() for name, value in each.items()}
    targets = {task: said for task, (said, _) in TARGETS.items()}
    print(json.dumps({"bench": "quality_smoke", **flat, "targets": targets, "missed": missed}))


def stream(world: World) -> Iterator[Timed]:
    """All events, and the labels that came after the last one too: chargebacks take weeks."""
    return ((event.topic, event.record) for event in world.events())


def encoded(world: World) -> Catalogue:
    """The world's catalogue with its text vectors."""
    items, ads = world.catalog()
    with tempfile.TemporaryDirectory() as cache:
        vectors = catalogue_vectors(items, ads, text_encoder(Path(cache)))
    return catalogue_from(items, ads, vectors)


if __name__ == "__main__":
    main()
