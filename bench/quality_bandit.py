"""Click-through on Open Bandit: a real shop's impressions, as Headrace's own events, through its own ctr task.
Trained on what its bandit showed, tested on what was shown at random, the last 30 % of the time: `python -m
bench.quality_bandit`. A file has 10,000 impressions and some 40 clicks, so only the intervals say anything.
"""

import csv
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from bench.judging import Case, Figures, classified, prefixed, served
from bench.report import show
from engines.releases import ReleaseStore
from finetune import metrics
from finetune.first import train
from finetune.history import Recording, Timed, catalogue_from, replay
from finetune.trainer import Plan
from schemas.errors import HeadraceError
from streams.catalog import Catalogue
from streams.sources import records
from streams.sources.fetch import fetch
from streams.tasks import make_task
from streams.vectors import HashingEncoder, catalogue_vectors

CAMPAIGNS = ("all", "men", "women")
TRAINED, TESTED, LAST = "bts", "random", 0.3
PLAN = Plan(steps=40, batch=256, rate=2e-4, weight_decay=0.1, dropout=0.2)
SECONDS_TO_CLICK = 5
DRAWS = 400
TARGETS = {"auc_behind_lightgbm": 0.0, "log_loss_above_lightgbm": 0.0, "calibration_off": 0.0}
"""Each is how far an interval is on the wrong side: of the paired differences to LightGBM, and of 1 for calibration."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One line of a file: an item that was put before somebody."""

    campaign: str
    ident: str
    time: int
    item: str
    position: int
    clicked: bool
    features: tuple[str, ...]
    affinity: float

    @property
    def ad(self) -> str:
        return f"{self.campaign}-{self.item}"


def lines(folder: Path, policy: str) -> list[Shown]:
    """All campaigns' impressions under a policy, in order of time."""
    found = []
    for campaign in CAMPAIGNS:
        with (folder / policy / campaign / f"{campaign}.csv").open(newline="") as file:
            found += [_line(policy, campaign, row) for row in csv.DictReader(file)]
    return sorted(found, key=lambda line: (line.time, line.ident))


def _line(policy: str, campaign: str, row: dict[str, str]) -> Shown:
    time = round(datetime.fromisoformat(row["timestamp"]).timestamp() * 1000)
    return Shown(
        campaign, f"{policy}-{campaign}-{row['']}", time, row["item_id"], int(row["position"]), row["click"] == "1",
        tuple(row[f"user_feature_{number}"] for number in range(4)), float(row[f"user-item_affinity_{row['item_id']}"]),
    )  # fmt: skip


def catalogue(folder: Path) -> tuple[Catalogue, dict[str, tuple[float, ...]]]:
    """Items as ads, whose texts are the names of their features; and the same features as numbers, for the baseline."""
    items: list[dict[str, Any]] = []
    ads: list[dict[str, Any]] = []
    columns: dict[str, tuple[float, ...]] = {}
    names: dict[str, int] = {}
    for campaign in CAMPAIGNS:
        with (folder / TRAINED / campaign / "item_context.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                ident, kinds = f"{campaign}-{row['item_id']}", [row[f"item_feature_{number}"] for number in (1, 2, 3)]
                number = float(row["item_feature_0"])
                price = round(10_000 * np.exp(number))
                text = " ".join([campaign, *kinds])
                items.append(
                    {"item_id": ident, "text": text, "category": kinds[0], "price": price.to_bytes(8, "big"),
                     "available": True}
                )  # fmt: skip
                ads.append(records.catalog_ad(ident, text, kinds[0], ident, 0))
                columns[ident] = (number, *(names.setdefault(kind, len(names)) for kind in kinds))
    return catalogue_from(items, ads, catalogue_vectors(items, ads, HashingEncoder())), columns


def events(shown: list[Shown]) -> Iterator[Timed]:
    """Impressions of one ad by users that nobody knows again, and clicks seconds after."""
    made: list[tuple[int, str, dict[str, Any]]] = []
    for line in shown:
        user = f"anon:{line.ident}"
        slate = [{"ad_id": line.ad, "position": line.position - 1, "bid": None, "shown": True}]
        impression = records.impression(
            line.ident, line.time, user, None, None, line.campaign, None, None, slate
        )  # fmt: skip
        impression["attributes"] = {f"user_feature_{n}": value for n, value in enumerate(line.features)}
        impression["attributes"]["user_item_affinity"] = line.affinity
        made.append((line.time, "impressions", impression))
        if line.clicked:
            time = line.time + 1000 * SECONDS_TO_CLICK
            click = records.click(
                f"c-{line.ident}", time, user, None, None, "click", line.ad, None, line.ident, line.ad
            )  # fmt: skip
            made.append((time, "clicks", click))
    made.sort(key=lambda each: each[0])
    return ((topic, record) for _, topic, record in made)


def figures() -> dict[str, Any]:
    """Headrace, LightGBM and the mean on the same impressions; differences are paired (their intervals too)."""
    folder = fetch("open-bandit")
    catalog, columns = catalogue(folder)
    early, late = lines(folder, TRAINED), lines(folder, TESTED)
    border = int(np.quantile([line.time for line in early + late], 1 - LAST))
    known = replay(events([line for line in early if line.time < border]), [make_task("ctr")], catalog)
    tested = [line for line in late if line.time >= border]
    later = replay(events(tested), [make_task("ctr")], catalog)
    label = np.array([line.clicked for line in tested], np.float32)
    chance = headrace(known, later, catalog, border)
    baseline = boosted([line for line in early if line.time < border], tested, columns)
    mean = np.full(len(label), known.labels.clicks and len(known.labels.clicks) / len(known.examples["ctr"]))
    return compared(label, chance, baseline, mean)


def headrace(known: Recording, later: Recording, catalog: Catalogue, border: int) -> NDArray[np.float64]:
    """A release of the task, made as any first one, on its compiled engine."""
    with tempfile.TemporaryDirectory() as folder:
        release = train(known, catalog, ReleaseStore(folder), plans={"ctr": PLAN})["ctr"]
        case = Case(release, later, known, catalog, world=None, border=border)  # type: ignore[arg-type]  # no truth
        results = served(case, later.examples["ctr"])
    return np.array([result.prediction[0] for result in results])


def boosted(early: list[Shown], late: list[Shown], columns: dict[str, tuple[float, ...]]) -> NDArray[np.float64]:
    """LightGBM, small and cautious, as so few clicks want it; stopped by nothing, since nothing can be spared."""
    names: dict[str, int] = {}
    texts = [0, *range(6, 9), *range(9, 13)]

    def table(shown: list[Shown]) -> NDArray[np.float64]:
        return np.array([
            (names.setdefault(line.campaign, len(names)), names.setdefault(line.ad, len(names)), line.position,
             line.affinity, line.time // 3_600_000 % 24, *columns[line.ad],
             *(names.setdefault(value, len(names)) for value in line.features))
            for line in shown
        ])  # fmt: skip

    known = table(early)
    model = lgb.LGBMClassifier(
        n_estimators=100, learning_rate=0.02, num_leaves=7, min_child_samples=200, reg_lambda=50.0, subsample=0.8,
        subsample_freq=1, colsample_bytree=0.5, cat_smooth=100, verbosity=-1, n_jobs=1, random_state=0,
    )  # fmt: skip
    model.fit(known, [line.clicked for line in early], categorical_feature=texts)
    chance: NDArray[np.float64] = np.asarray(model.predict_proba(table(late)))[:, 1]
    return chance


def compared(
    label: NDArray[np.float32], ours: NDArray[np.float64], theirs: NDArray[np.float64], mean: NDArray[np.float64]
) -> dict[str, Any]:
    found: Figures = classified(label, ours) | {"clicks": float(label.sum())}
    for name in ("roc_auc", "normalised_entropy"):
        found[f"{name}_low"], found[f"{name}_high"] = metrics.bootstrap(
            getattr(metrics, name), label, ours, draws=DRAWS
        )
    found |= prefixed("boosting", classified(label, theirs), ("roc_auc", "normalised_entropy", "calibration"))
    found["mean_normalised_entropy"] = metrics.normalised_entropy(label, mean)
    low, high = metrics.bootstrap(metrics.calibration, label, ours, draws=DRAWS)
    found |= {"calibration_low": low, "calibration_high": high}
    for name, metric in (("auc", metrics.roc_auc), ("entropy", metrics.log_loss)):
        low, high = metrics.bootstrap(
            lambda y, both, metric=metric: metric(y, both[:, 0]) - metric(y, both[:, 1]),  # type: ignore[misc]  # a default
            label, np.stack([ours, theirs], axis=1), draws=DRAWS,
        )  # fmt: skip
        found |= {f"{name}_difference_low": low, f"{name}_difference_high": high}
    found["auc_behind_lightgbm"] = max(0.0, -found["auc_difference_high"])
    found["log_loss_above_lightgbm"] = max(0.0, found["entropy_difference_low"])
    found["calibration_off"] = max(0.0, found["calibration_low"] - 1, 1 - found["calibration_high"])
    return found


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        show("quality_bandit", figures(), TARGETS, digits=5)
    except HeadraceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
