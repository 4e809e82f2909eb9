"""Small models, and training examples of made-up events whose labels follow a rule that a model can learn."""

import hashlib
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.export import export
from engines.fraud_head import FraudHead
from engines.model import HeadraceConfig, HeadraceModel
from engines.releases import Release, ReleaseStore
from finetune.columns import fit_scaling
from finetune.examples import Examples, examples_of
from finetune.incremental import Fitted, Recipe, Told, fit
from finetune.served import SERVED, Served
from streams.catalog import Catalogue
from streams.features import HISTORY_LENGTH, Rows, pack
from streams.tasks import make_task
from streams.tasks.codes import encoded
from streams.tasks.fraud import FIELDS

ITEMS, ADS = 40, 12
START = 1_700_000_000_000
MINUTE = 60_000
AMOUNT, WAY = 0, 3
"""Columns of a fraud row: what the label goes by, and which of two ways it goes."""


def small_catalog() -> Catalogue:
    """Rows 1 to ITEMS are items i1, i2, …; then come ads a1, a2, …"""
    catalog, rng = Catalogue(), np.random.default_rng(0)
    for row in range(1, ITEMS + ADS + 1):
        vector = (rng.standard_normal(384) / 20).astype("<f4").tobytes()
        if row <= ITEMS:
            kind, ident = "item", f"i{row}"
            catalog.apply_item({"item_id": ident, "price": (12_345 * row).to_bytes(4, "big"), "available": True})
        else:
            kind, ident = "ad", f"a{row - ITEMS}"
            catalog.apply_ad({"ad_id": ident, "active": True})
        catalog.apply_vector({"kind": kind, "id": ident, "row": row, "vector": vector})
    return catalog


def small_model(task: str, seed: int = 0) -> HeadraceModel:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"width": 16, "heads": 2, "hidden": 32, "conversions": 1}
    model = HeadraceModel(HeadraceConfig(task=task, fields=len(FIELDS), **sizes))
    if isinstance(model.head, FraudHead):  # as a first training leaves it
        seen, draw = np.zeros((2000, len(FIELDS)), np.float32), np.random.default_rng(0)
        seen[:, AMOUNT], seen[:, WAY] = draw.standard_normal(2000), draw.choice((-1, 1), 2000)
        fit_scaling(model.head.scaling, encoded(seen))
    return model


def small_release(model: HeadraceModel, store: ReleaseStore, trained: dict[str, Any] | None = None) -> Release:
    with tempfile.TemporaryDirectory() as folder:
        description = export(model, Path(folder), settings={"mean": 0.3, "popular": ["i1"]}, trained=trained or {})
        return store.publish(model.config.task, Path(folder), description)


def rows_of(task: str, count: int, rng: np.random.Generator) -> Rows:
    """Users with a few looks behind them."""
    rows = np.zeros(count, make_task(task).features)
    rows["item"][:, HISTORY_LENGTH - 4 :] = rng.integers(1, ITEMS + 1, (count, 4))
    rows["kind"][:, HISTORY_LENGTH - 4 :] = 1
    rows["now_item"], rows["now_kind"] = rng.integers(1, ITEMS + 1, count), 1
    return rows


def record(task: str, target: str, label: float, time: int, features: bytes, **over: Any) -> dict[str, Any]:
    """A TrainingExample in physical types."""
    name = {"fraud": "fraud"}.get(task, "click")
    made: dict[str, Any] = {
        "task": task, "target_id": target, "candidate_id": None, "name": name, "label": label, "weight": 1.0,
        "matured_at": time + MINUTE, "revision": 0, "event_time": time, "release": "r1", "features_format": 1,
        "features": features, "user_id": f"u{target}", "source": "chargeback" if label > 0 else "",
        "label_hash": zlib.crc32(f"{target} {over.get('candidate_id')}".encode()) if label > 0 else 0,
        "observed_at": time + MINUTE, "prediction": None, "automation": [],
    }  # fmt: skip
    made |= over
    parts = [made[part] for part in ("task", "target_id", "candidate_id", "name", "revision")]
    return {"example_id": hashlib.sha256(repr(parts).encode()).hexdigest()[:32], **made}


def frauds(count: int, *, way: int, start: int = START, seed: int = 0, noise: float = 0.05) -> list[dict[str, Any]]:
    """Orders a minute apart, fraud where the amount is high (way 1) or low (way -1), but for some noise."""
    rng = np.random.default_rng([seed, way + 1])
    rows = rows_of("fraud", count, rng)
    amount = rng.standard_normal(count)
    rows["fields"][:, AMOUNT], rows["fields"][:, WAY] = amount, way
    label = (amount * way > 0.5) ^ (rng.random(count) < noise)
    return [
        record("fraud", f"o{way}-{seed}-{number}", float(label[number]), start + number * MINUTE, features)
        for number, features in enumerate(pack(rows))
    ]


def rare(count: int, *, seed: int, start: int = START, noise: float = 0.004) -> list[dict[str, Any]]:
    """Orders of which one in 25 is a fraud: alerts are to be few. noise: share of wrong labels."""
    made = enumerate(frauds(count, way=1, seed=seed, start=start, noise=noise))
    return [each for number, each in made if not each["label"] or number % 11 == 0]


def slates(count: int, *, start: int = START, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Impressions of four ads each: the odd ads are clicked, mostly. The third ad was not seen and has no label."""
    rng = np.random.default_rng(seed)
    rows = rows_of("ctr", count, rng)
    rows["ads"] = 4
    chosen = np.stack([rng.choice(ADS, 4, replace=False) + 1 for _ in range(count)])
    rows["ad"][:, :4], rows["position"][:, :4] = ITEMS + chosen, np.arange(1, 5)
    for number, features in enumerate(pack(rows)):
        for place in (0, 1, 3):
            ad = int(chosen[number, place])
            clicked = rng.random() < (0.8 if ad % 2 else 0.1)
            if clicked or rng.random() < 0.5:
                ident, time = f"a{ad}", start + number * MINUTE
                weight = 1.0 if clicked else 2.0
                yield record(
                    "ctr", f"m{seed}-{number}", float(clicked), time, features, candidate_id=ident, weight=weight
                )


def wishes(count: int, *, start: int = START, seed: int = 0) -> list[dict[str, Any]]:
    """Recommended items that were clicked: always the one after the item looked at."""
    rows = rows_of("recommendations", count, np.random.default_rng(seed))
    wanted = [int(item) % ITEMS + 1 for item in rows["now_item"]]
    return [
        record(
            "recommendations", f"c{seed}-{number}", 1.0, start + number * MINUTE, features,
            candidate_id=f"i{wanted[number]}",
        )
        for number, features in enumerate(pack(rows))
    ]  # fmt: skip


def arrays(task: str, records: Any, catalog: Catalogue) -> Examples:
    return examples_of(make_task(task), catalog, records)[0]


def problem_of(
    task: str, examples: Examples, catalog: Catalogue, release: Any = None, share: float = 0.7, **how: Any
) -> Served:
    """The first `share` trains, and the rest is held out, half and half."""
    learning = round(len(examples) * share)
    judging = (learning + len(examples)) // 2
    champion: Any = release or _Champion()
    return SERVED[task](make_task(task), catalog, champion, examples, learning=learning, judging=judging, **how)


class _Champion:
    calibration: dict[str, float] = {"a": 1.0, "b": 0.0}  # noqa: RUF012 - stands for a manifest
    settings: dict[str, Any] = {}  # noqa: RUF012


def fitted(folder: Path, recipe: Recipe, task: str = "fraud", told: Told | None = None) -> tuple[HeadraceModel, Fitted]:
    """A small model of 160 examples of a task, most of which it was trained on."""
    catalog, model = small_catalog(), small_model(task)
    records = {"fraud": lambda: frauds(160, way=1), "ctr": lambda: slates(160), "recommendations": lambda: wishes(160)}
    problem = problem_of(task, arrays(task, records[task](), catalog), catalog)
    return model, fit(model, problem, recipe, folder, "these", told)


def weights(model: HeadraceModel) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
