"""Fraud on foreign tables: `python -m bench.quality_tables` prints figures as one line of JSON.
A table of 100 columns, half missing, comes as orders with `attributes`; no code knows it. The first 70 % of time train,
the rest is scored by the compiled engine on histories from the stream, beside LightGBM, tuned, on the raw columns.
"""

import argparse
import os
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench import boosting, fraud_tables
from bench.fraud_tables import Table
from bench.report import show
from engines.releases import ReleaseStore
from engines.slot import load
from finetune.first import PLANS, train
from finetune.fraud_metrics import fraud_figures, paired_bootstrap
from finetune.history import Recording, replay
from finetune.metrics import calibration, pr_auc, roc_auc
from finetune.trainer import Plan
from schemas.errors import HeadraceError
from streams.catalog import Catalogue
from streams.tasks import make_task
from streams.tasks.base import calibrated

Floats = NDArray[np.float64]
TRAINED, TUNED = 0.7, 0.75  # share of time that trains; of that, what LightGBM's tuning learns on
BUCKET = 256
ROWS = 40_000
TARGETS = {"lightgbm_above_us_most": 0.0}


def recorded(table: Table) -> Recording:
    """The table's orders through the state and the feature rows of serving, and all labels."""
    return replay(table.events(), [make_task("fraud")], Catalogue())


def scored(recording: Recording, cut: int, plan: Plan) -> Floats:
    """Chances of the orders from number `cut` on, by the release that the earlier ones make, as it serves."""
    task, catalog, examples = make_task("fraud"), Catalogue(), recording.examples["fraud"]
    early = examples.part(np.arange(len(examples)) < cut)
    known = Recording({"fraud": early}, recording.clicks, recording.labels)
    with tempfile.TemporaryDirectory() as folder:
        release = train(known, catalog, ReleaseStore(folder), plans={"fraud": plan})["fraud"]
        loaded = load(release, backend="openvino", precision="bf16", buckets=(BUCKET,), threads=1)
        loaded.refresh(catalog.text, catalog.scalars, catalog.kind, catalog.candidate_bias())
        late = examples.rows[cut:]
        parts = [
            loaded.infer(task.inputs(late[at : at + BUCKET], loaded.table)).outputs["logit"]
            for at in range(0, len(late), BUCKET)
        ]
        loaded.engine.close()
    return calibrated(np.concatenate(parts), loaded.calibration)


def compared(table: Table, *, trials: int, plan: Plan) -> dict[str, float]:
    """Both on the last 30 %."""
    cut, label = round(len(table) * TRAINED), table.label
    x, texts = boosting.coded(table.columns)
    tuned = boosting.tune(x[:cut], label[:cut], texts, trials=trials, metric="roc_auc", start=TUNED)
    theirs = boosting.predicted(tuned, x[:cut], label[:cut], texts, x[cut:])[0]
    ours, late = scored(recorded(table), cut, plan), label[cut:]
    low, high = paired_bootstrap(roc_auc, late, ours[None], theirs[None], draws=200)
    return {
        "lightgbm_roc_auc": roc_auc(late, theirs), "lightgbm_pr_auc": pr_auc(late, theirs),
        "difference": roc_auc(late, ours) - roc_auc(late, theirs), "difference_low": low, "difference_high": high,
        "calibration": calibration(late, ours), **fraud_figures(late, ours, table.amount[cut:]),
    }  # fmt: skip


def figures(*, rows: int = ROWS, trials: int = 50, seed: int = 1, plan: Plan = PLANS["fraud"]) -> dict[str, Any]:
    """By table and figure."""
    made: dict[str, Any] = {"rows": rows, "trials": trials, "seed": seed}
    lost = []
    for name, make in fraud_tables.TABLES.items():
        found = compared(make(rows, seed), trials=trials, plan=plan)
        lost.append(-found["difference"])
        made |= {f"{name}_{figure}": value for figure, value in found.items()}
    return made | {"lightgbm_above_us_most": max(lost)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quality_tables", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tables, 5 trials: to see that it works")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(1)
    began = time.monotonic()
    small: dict[str, Any] = {"rows": 8_000, "trials": 5} if arguments.quick else {}
    try:
        found = figures(seed=arguments.seed, **small)
    except HeadraceError as error:
        sys.exit(str(error))
    show("quality_tables", {**found, "seconds": time.monotonic() - began}, TARGETS, digits=4)


if __name__ == "__main__":
    main()
