"""Trains the demo's first releases in a process of its own, so that torch stays out of everything that serves.
`python -m streams.demo.models PLAN` reads a plan as JSON and prints one JSON line for each step.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import DataUnavailable, HeadraceError
from streams.events import Record
from streams.sources.fetch import fetch
from streams.sources.world import World, WorldConfig
from streams.vectors import Encoder, HashingEncoder, catalogue_vectors

SEED = 7
TEXT_ENCODER = "text-encoder"


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What is trained on: `world` is a WorldConfig, [start, end) the days that training sees.

    reservoir: a folder for what fine-tunes replay, "" for none. review_budget: share of orders that analysts look at.
    """

    world: dict[str, Any]
    start: str
    end: str
    store: str
    cache: str
    vectors: str
    reservoir: str = ""
    review_budget: float = 0.03


def main(plan: ModelPlan) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow each other where cores are shared
    from engines.releases import ReleaseStore
    from finetune.first import first_releases
    from finetune.history import catalogue_from

    world = World(WorldConfig(**{**plan.world, "keep_truth": False}), SEED)
    items, ads = world.catalog()
    say("encoding", items=len(items), ads=len(ads))
    vectors = catalogue_vectors(items, ads, text_encoder(Path(plan.cache)))
    save_vectors(Path(plan.vectors), vectors)
    say("replaying", start=plan.start, end=plan.end)
    stream = ((event.topic, event.record) for event in world.history_records(plan.start, plan.end))

    def progress(task: str) -> Callable[[int, int, float], None]:
        return lambda done, total, loss: say("step", task=task, done=done, total=total, loss=round(loss, 4))

    releases = first_releases(
        stream,
        catalogue_from(items, ads, vectors),
        ReleaseStore(plan.store),
        progress=progress,
        trained={"data": str(world), "start": plan.start, "end": plan.end, "seed": SEED},
        reservoir=Path(plan.reservoir) if plan.reservoir else None,
        review_budget=plan.review_budget,
    )
    for task, release in releases.items():
        conversions = release.manifest.trained.get("conversions", "")
        say("release", task=task, version=release.version, metrics=release.manifest.metrics, conversions=conversions)


def text_encoder(cache: Path) -> Encoder:
    """MiniLM if its files can be had, else hashed words; which one is said."""
    from engines.encoder import TextEncoder
    from engines.encoder_export import export_encoder

    try:
        source = fetch(TEXT_ENCODER)
    except DataUnavailable as error:
        say(**missing(error))
        return HashingEncoder()
    return TextEncoder(export_encoder(source, cache), threads=2)


def missing(error: DataUnavailable) -> dict[str, Any]:
    """The step that says so."""
    return {"what": "missing", "reason": str(error), "instead": "hashed words stand for the texts"}


def save_vectors(path: Path, vectors: list[Record]) -> None:
    """All of them in one npz, written whole or not at all."""
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        facts=np.frombuffer(
            json.dumps([{k: v for k, v in r.items() if k != "vector"} for r in vectors]).encode(), np.uint8
        ),
        vectors=np.stack([np.frombuffer(record["vector"], "<f4") for record in vectors]),
    )
    partial.rename(path)


def load_vectors(path: Path) -> list[Record]:
    """What `save_vectors` wrote."""
    with np.load(path, allow_pickle=False) as held:
        facts: list[dict[str, Any]] = json.loads(held["facts"].tobytes())
        return [fact | {"vector": vector.tobytes()} for fact, vector in zip(facts, held["vectors"], strict=True)]


def say(what: str, **facts: Any) -> None:
    print(json.dumps({"what": what, **facts}), flush=True)


def command(plan: ModelPlan) -> list[str]:
    """To run this module with a plan."""
    return [sys.executable, "-m", "streams.demo.models", json.dumps(asdict(plan))]


if __name__ == "__main__":
    try:
        main(ModelPlan(**json.loads(sys.argv[1])))
    except HeadraceError as error:
        sys.exit(str(error))
