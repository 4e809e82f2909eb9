"""Fraud on real cards (ULB): `python -m bench.quality_cards` prints figures as one line of JSON.
Every row is an order whose columns are the shop's own attributes. Settings are chosen on 60 to 80 % of time; the last
20 % is opened once, by the model and by LightGBM tuned on the very same spans. Both are means of seeds.
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.csv
import torch
from numpy.typing import NDArray

from bench import boosting
from bench.fraud_tables import Table
from bench.quality_tables import recorded, scored
from bench.report import show
from finetune import metrics
from finetune.first import PLANS
from finetune.fraud_metrics import fraud_figures, paired_bootstrap
from schemas.errors import HeadraceError
from streams.sources.fetch import fetch

Floats = NDArray[np.float64]
CHOSEN, OPENED = 0.6, 0.8
START_MS = 1_377_993_600_000  # 2013-09-01: the data set's seconds count from a day of that month
TARGETS = {"average_precision_missing_to_0_81": 0.0, "lightgbm_above_us_at_most": 0.02}


def table() -> Table:
    """284,807 payments of two days. Each is a user's first: the data names nobody."""
    read = pyarrow.csv.read_csv(fetch("creditcard", say=_say))
    columns = {name: read[name].to_numpy().astype(np.float64) for name in read.column_names}
    seconds, label = columns.pop("Time"), columns.pop("Class")
    order = np.argsort(seconds, kind="stable")
    return Table(
        "cards",
        {name: column[order] for name, column in columns.items()},
        np.arange(len(label)),
        (START_MS + 1000 * seconds[order]).astype(np.int64),
        columns["Amount"][order],
        label[order].astype(np.float32),
    )


def _say(said: str) -> None:
    """On standard error, with the CPU seconds so far: it takes minutes, and whoever ends it knows how far it came."""
    print(f"{said} ({time.process_time():.0f} s of CPU)", file=sys.stderr, flush=True)


def figures(*, seeds: int = 5, trials: int = 50, steps: int = 0, data: Table | None = None) -> dict[str, Any]:
    """Average precision and the rest on the last 20 %, and the difference to LightGBM by paired bootstrap."""
    cards = data or table()
    cut, start = round(len(cards) * OPENED), CHOSEN / OPENED
    x, texts = boosting.coded(cards.columns)
    label = cards.label
    _say(f"tuning LightGBM, {trials} trials")
    tuned = boosting.tune(x[:cut], label[:cut], texts, trials=trials, metric="pr_auc", start=start)
    theirs = boosting.predicted(tuned, x[:cut], label[:cut], texts, x[cut:], seeds)
    _say("LightGBM is done; replaying the orders")
    recording, plan = recorded(cards), PLANS["fraud"]
    ours = []
    for seed in range(seeds):
        _say(f"training release {seed + 1} of {seeds}")
        ours.append(scored(recording, cut, replace(plan, seed=seed, steps=steps or plan.steps)))
    said = {"orders": len(cards), "seeds": seeds, "trials": trials}
    return said | judged(label[cut:], ours, theirs, cards.amount[cut:])


def judged(label: NDArray[np.float32], ours: list[Floats], theirs: list[Floats], value: Floats) -> dict[str, Any]:
    """Means over seeds; intervals of the seeds' mean score."""
    made: dict[str, Any] = {"later": len(label), "frauds": int(label.sum())}
    sides = {"": ours, "lightgbm_": theirs}
    for prefix, chances in sides.items():
        for name, metric in (("average_precision", metrics.pr_auc), ("roc_auc", metrics.roc_auc)):
            made[f"{prefix}{name}"] = float(np.mean([metric(label, chance) for chance in chances]))
    made["calibration"] = float(np.mean([metrics.calibration(label, chance) for chance in ours]))
    first, second = (np.stack(chances) for chances in sides.values())
    low, high = paired_bootstrap(metrics.pr_auc, label, first, second)
    made |= {"difference_low": low, "difference_high": high}
    made["average_precision_missing_to_0_81"] = max(0.0, 0.81 - made["average_precision"])
    made["lightgbm_above_us_at_most"] = -low
    return made | fraud_figures(label, first.mean(axis=0), value)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quality_cards", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 seeds, 10 trials: to see that it works")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(1)
    try:
        found = figures(seeds=2, trials=10) if arguments.quick else figures()
    except HeadraceError as error:
        sys.exit(str(error))
    show("quality_cards", found, TARGETS, digits=4)


if __name__ == "__main__":
    main()
