"""Are an alert's reasons the real ones? `python -m bench.reasons` prints one line of JSON.
A model is trained on a simulated shop; of the frauds that it flags afterwards, what gave each away is known.

Faithful: without the group that contributes most, the score falls more than without any other; "without" is here not
the ordinary order's value, as in the alert, but the mean over other good orders'. True: what the simulator says gave
the fraud away most is among the three largest contributions.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.learning import first_release
from bench.learning_story import FRAUD, Story, tell
from bench.report import show
from engines.releases import ReleaseStore
from engines.slot import Loaded, load
from schemas.errors import HeadraceError
from streams.catalog import NOT_A_CANDIDATE
from streams.features import Rows
from streams.lookups import Lookups
from streams.tasks.attribution import GROUPS, VARIANTS, Attribution, attribute, variants
from streams.tasks.base import calibrated

Floats = np.ndarray[Any, np.dtype[np.float64]]

SEED, TOP = 21, 3
OTHERS = 16
"""Good orders whose values take a group's place."""
TARGETS = {"another_group_moves_more": 0.05, "true_cause_not_in_top_three": 0.10}
MEANT = {
    "pace": {"pace"},
    "card": {"card"},
    "amount": {"amount"},
    "device": {"device"},
    "address": {"address"},
    "ip": {"ip"},
    "taste": {"basket", "history"},
    "account": {"account"},
    "refunds": {"attributes"},
}
"""The groups of facts that hold a cause of the simulator's."""


class Alert(NamedTuple):
    """One order that is flagged. fallen (groups,): mean fall of the logit with other orders' values; above: of the
    logit over the ordinary order's.
    """

    fallen: Floats
    above: float
    found: Attribution
    kind: str
    cause: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reasons", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--orders-a-day", type=float, default=FRAUD.orders_a_day)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(arguments.threads)
    began = time.monotonic()
    scenario = replace(FRAUD, orders_a_day=arguments.orders_a_day)
    try:
        story = tell(scenario, arguments.seed)
        with tempfile.TemporaryDirectory() as folder:
            release = first_release(story, ReleaseStore(folder), None)
            loaded = load(release, backend="openvino", precision="bf16", buckets=(16, 64), threads=arguments.threads)
            figures = judged(list(alerts(story, loaded)))
    except HeadraceError as error:
        sys.exit(str(error))
    show("reasons", {"seed": arguments.seed, **figures, "seconds": time.monotonic() - began}, TARGETS)


def alerts(story: Story, loaded: Loaded) -> Iterator[Alert]:
    """Of the orders between the first training and the drift, those that the release's thresholds flag."""
    catalog, examples, scenario = story.catalog, story.examples, story.scenario
    bias = np.full(len(catalog), NOT_A_CANDIDATE, np.float32)
    loaded.refresh(catalog.text, catalog.scalars, catalog.kind, bias)
    which = story.between(scenario.trained, scenario.drift)
    rows = examples.rows[which]
    chance = calibrated(logits(story, loaded, rows), loaded.calibration)
    slope, baseline = float(loaded.calibration["a"]), loaded.settings["baseline"]
    good = rows["fields"][story.truth[which, 0] < 0.5]
    others = good[np.random.default_rng(SEED).choice(len(good), OTHERS, replace=False)]
    for at in np.flatnonzero(chance >= loaded.settings["review"]):
        row = rows[at : at + 1]
        logit = logits(story, loaded, variants(row, baseline)).astype(np.float64)
        removed = np.concatenate([variants(row, other) for other in others])
        elsewhere = logits(story, loaded, removed).reshape(OTHERS, VARIANTS).astype(np.float64)
        fallen = (elsewhere[:, :1] - elsewhere[:, 1:-1]).mean(axis=0)
        truth = story.world.truth(examples.events[which[at]]["event_id"])
        assert truth is not None
        yield Alert(fallen, slope * (logit[0] - logit[-1]), attribute(logit, slope), truth.kind, truth.cause)


def logits(story: Story, loaded: Loaded, rows: Rows) -> np.ndarray[Any, np.dtype[np.float32]]:
    table, step = Lookups(loaded.table), loaded.max_batch
    parts = [
        loaded.infer(story.task.inputs(rows[at : at + step], table)).outputs["logit"]
        for at in range(0, len(rows), step)
    ]
    return np.concatenate(parts)


def judged(found: list[Alert]) -> dict[str, Any]:
    """Shares over all alerts, and over those frauds whose cause is one of MEANT."""
    names = list(GROUPS)
    named = [each.fallen.argmax() == names.index(each.found.contributions[0].group) for each in found]
    above = [each.above for each in found]
    left = [abs(each.found.completeness_error) for each in found]
    known = [each for each in found if each.cause in MEANT]
    hits: dict[str, list[bool]] = defaultdict(list)
    causes: dict[str, list[bool]] = defaultdict(list)
    for each in known:
        top = {one.group for one in each.found.contributions[:TOP]}
        hit = bool(top & MEANT[each.cause])
        hits[each.kind].append(hit)
        causes[each.cause].append(hit)
    return {
        "alerts": len(found),
        "frauds_with_cause": len(known),
        "another_group_moves_more": 1 - float(np.mean(named)),
        "true_cause_not_in_top_three": 1 - float(np.mean([hit for part in hits.values() for hit in part])),
        "by_kind": {kind: round(float(np.mean(part)), 3) for kind, part in sorted(hits.items())},
        "by_cause": {cause: round(float(np.mean(part)), 3) for cause, part in sorted(causes.items())},
        "completeness_error_log_odds_median": float(np.median(left)),
        "completeness_error_share_median": float(np.median(np.array(left) / np.maximum(np.abs(above), 1e-9))),
    }


if __name__ == "__main__":
    main()
