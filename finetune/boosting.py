"""Grows the boosted trees of a fraud model with LightGBM, and lays them out as the arrays of `engines.trees`.
Columns are codes: trees ask only for their order, so nothing is lost by growing them on whole numbers. LightGBM is
used in training only: what serves is the graph.
"""

import math
import os
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from engines.signatures import MISSING

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]
STARTS = (0.4, 0.6, 0.8)
"""Shares of the examples: what comes before each grows trees, and what comes until the next judges them."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How trees are grown: few leaves, a share of columns and rows each, and strong shrinkage of what rare leaves say.

    How many is found on later examples, and at least `least_trees`: of few positives the log loss is mostly noise.
    """

    trees: int = 300
    leaves: int = 16
    depth: int = 6
    rate: float = 0.05
    columns: float = 0.4
    rows: float = 0.8
    l2: float = 10.0
    least: int = 20
    least_trees: int = 50
    threads: int = 1

    def options(self, seed: int) -> dict[str, Any]:
        return {
            "objective": "binary", "metric": "binary_logloss", "verbosity": -1, "num_threads": self.threads,
            "learning_rate": self.rate, "num_leaves": self.leaves, "max_depth": self.depth,
            "feature_fraction": self.columns,
            "bagging_fraction": self.rows, "bagging_freq": 1, "lambda_l2": self.l2, "min_data_in_leaf": self.least,
            "max_bin": 255, "seed": seed, "deterministic": True, "force_row_wise": True,
        }  # fmt: skip


def grow(columns: NDArray[np.int32], label: Floats, growth: Growth, seed: int = 0, *, rounds: int = 0) -> lgb.Booster:
    """Trees on all of (N, M) codes in time order. rounds: exactly so many; 0 to find out by `rounds_of`."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    x = np.where(columns == MISSING, np.nan, columns.astype(np.float64))
    rounds = rounds or rounds_of(x, label, growth, seed)
    return lgb.train(growth.options(seed), lgb.Dataset(x, label), rounds)


def rounds_of(x: NDArray[np.float64], label: Floats, growth: Growth, seed: int = 0) -> int:
    """How many trees have the least log loss on later examples, over all of `STARTS`: one span alone has so few
    positives that it may well ask for a single tree. A third of the most where no span has both classes.
    """
    lost: list[Floats] = []
    weight: list[int] = []
    for start, end in pairwise(round(len(label) * share) for share in (*STARTS, 1.0)):
        if 0 < label[:start].sum() < start and 0 < label[start:end].sum() < end - start:
            lost.append(_lost(x[:end], label[:end], start, growth, seed))
            weight.append(end - start)
    if not lost:
        return max(1, growth.trees // 3)
    best = 1 + int(np.average(lost, axis=0, weights=weight).argmin())
    return min(max(best, growth.least_trees), growth.trees)


def _lost(x: NDArray[np.float64], label: Floats, start: int, growth: Growth, seed: int) -> Floats:
    """(trees,) log loss of the examples from `start` on after each tree that the earlier ones grow."""
    early = lgb.Dataset(x[:start], label[:start])
    late = lgb.Dataset(x[start:], label[start:], reference=early)
    told: dict[str, dict[str, list[float]]] = {}
    recording = lgb.record_evaluation(told)
    lgb.train(growth.options(seed), early, growth.trees, valid_sets=[late], valid_names=["late"], callbacks=[recording])
    return np.array(told["late"]["binary_logloss"], np.float32)


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
