"""Grows the boosted trees of a fraud model with LightGBM, and lays them out as the arrays of `engines.trees`.
Columns are codes: trees ask only for their order, so nothing is lost by growing them on whole numbers. LightGBM is
used in training only: what serves is the graph.
"""

import math
import os
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from engines.signatures import MISSING

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Growth:
    """How trees are grown: few leaves, a share of columns and rows each, and strong shrinkage of what rare leaves say.

    Growing ends where later examples have not gained for `patience` trees.
    """

    trees: int = 300
    leaves: int = 16
    depth: int = 6
    rate: float = 0.05
    columns: float = 0.4
    rows: float = 0.8
    l2: float = 10.0
    least: int = 20
    patience: int = 40
    threads: int = 1

    def options(self, seed: int) -> dict[str, Any]:
        return {
            "objective": "binary", "metric": "binary_logloss", "verbosity": -1, "num_threads": self.threads,
            "learning_rate": self.rate, "num_leaves": self.leaves, "max_depth": self.depth,
            "feature_fraction": self.columns,
            "bagging_fraction": self.rows, "bagging_freq": 1, "lambda_l2": self.l2, "min_data_in_leaf": self.least,
            "max_bin": 255, "seed": seed, "deterministic": True, "force_row_wise": True,
        }  # fmt: skip


def grow(
    columns: NDArray[np.int32], label: Floats, growth: Growth, seed: int = 0, *, rounds: int = 0, stop: float = 0.15
) -> lgb.Booster:
    """Trees on (N, M) codes in time order. rounds: exactly so many; 0 to find out on the newest `stop` of them."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options, x = growth.options(seed), np.where(columns == MISSING, np.nan, columns.astype(np.float64))
    if rounds:
        return lgb.train(options, lgb.Dataset(x, label), rounds)
    cut = max(1, round(len(label) * (1 - stop)))
    if not (0 < label[:cut].sum() < cut and 0 < label[cut:].sum() < len(label) - cut):
        return lgb.train(options, lgb.Dataset(x, label), growth.trees // 3)
    early = lgb.Dataset(x[:cut], label[:cut])
    late = lgb.Dataset(x[cut:], label[cut:], reference=early)
    stopping = lgb.early_stopping(growth.patience, verbose=False)
    return lgb.train(options, early, growth.trees, valid_sets=[late], callbacks=[stopping])


def arrays(booster: lgb.Booster, leaves: int, columns: int) -> Arrays:
    """The buffers of `Trees(T, leaves, depth)`, by name, of the best T trees. columns: M."""
    grown = booster.dump_model(num_iteration=booster.best_iteration or None)["tree_info"]
    nodes = 2 * leaves - 1
    own = np.arange(len(grown) * nodes, dtype=np.int32)
    out: Arrays = {
        "root": own[::nodes].copy(), "column": np.zeros(len(own), np.int32),
        "threshold": np.zeros(len(own), np.int32), "left": own.copy(), "right": own.copy(),
        "value": np.zeros(len(own), np.float32),
    }  # fmt: skip
    for number, tree in enumerate(grown):
        _lay_out(tree["tree_structure"], out, number * nodes, columns)
    return out


def _lay_out(root: dict[str, Any], out: Arrays, first: int, columns: int) -> None:
    """One tree, its nodes from `first` on. LightGBM puts the average into the first tree's leaves."""
    waiting, free = [(root, first)], first + 1
    while waiting:
        node, place = waiting.pop()
        if "split_index" not in node:
            out["value"][place] = node["leaf_value"]
            continue
        threshold = math.floor(min(max(node["threshold"], MISSING), -MISSING - 1))
        goes_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0
        out["threshold"][place] = threshold
        out["column"][place] = node["split_feature"] + columns * (not goes_left)
        out["left"][place], out["right"][place] = free, free + 1
        waiting += [(node["left_child"], free), (node["right_child"], free + 1)]
        free += 2
