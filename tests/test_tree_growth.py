"""How many trees a fraud model grows: found on several later spans, since one alone has too few frauds to say."""

import numpy as np
import pytest

from engines.signatures import MISSING
from finetune import boosting
from finetune.boosting import Growth

SMALL = Growth(trees=60, least_trees=5, least=5)


def examples(rows: int, strength: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ten columns of codes, a tenth missing, two of which say something of the label."""
    draw = np.random.default_rng(seed)
    columns = draw.integers(-1000, 1000, (rows, 10)).astype(np.int32)
    odds = -2.5 + strength * (columns[:, 0] + columns[:, 1]) / 1000
    columns[draw.uniform(size=columns.shape) < 0.1] = MISSING
    return columns, (draw.uniform(size=rows) < 1 / (1 + np.exp(-odds))).astype(np.float32)


def test_a_newest_span_that_contradicts_does_not_stop_growing_alone():
    columns, label = examples(2000, 3.0)
    backwards = label.copy()
    backwards[1900:] = np.random.default_rng(1).permutation(label[1900:])
    rounds = boosting.grow(columns, backwards, Growth(trees=60, least_trees=1, least=5)).num_trees()
    assert rounds > 10


def test_trees_stop_early_where_columns_say_nothing_but_not_before_the_least():
    columns, label = examples(1500, 0.0)
    assert boosting.grow(columns, label, SMALL).num_trees() < SMALL.trees
    assert boosting.grow(columns, label, SMALL).num_trees() >= SMALL.least_trees


def test_the_trees_that_serve_have_learned_from_the_newest_examples_too():
    columns, label = examples(2000, 3.0)
    grown = boosting.grow(columns, label, SMALL)
    assert grown.dump_model()["tree_info"][1]["tree_structure"]["internal_count"] > 0.7 * len(label)


@pytest.mark.parametrize("frauds", [slice(0, 3), slice(1997, 2000)])
def test_frauds_of_one_span_only_still_grow_trees(frauds: slice):
    columns, _ = examples(2000, 3.0)
    label = np.zeros(2000, np.float32)
    label[frauds] = 1
    assert 1 <= boosting.grow(columns, label, SMALL).num_trees() <= SMALL.trees
