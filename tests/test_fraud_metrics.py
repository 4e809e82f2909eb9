"""Figures of a fraud team, by their definitions."""

import numpy as np
import pytest

from finetune.fraud_metrics import fraud_figures, paired_bootstrap, precision_at_budget, value_weighted_recall
from finetune.metrics import roc_auc

LABEL = np.array([1.0, 0, 1, 0, 0, 0, 0, 0, 0, 1])
SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])


def test_recall_by_value_counts_money_and_not_orders():
    value = np.array([10.0, 1, 30, 1, 1, 1, 1, 1, 1, 60])
    assert value_weighted_recall(LABEL, SCORE, value, 0.3) == pytest.approx(0.4)
    assert np.isnan(value_weighted_recall(np.zeros(10), SCORE, value))


def test_precision_at_a_budget_is_that_of_the_best_scored_share():
    assert precision_at_budget(LABEL, SCORE, 0.2) == 0.5
    assert precision_at_budget(LABEL, SCORE, 0.001) == 1.0


def test_each_figure_has_an_interval_that_holds_it():
    rng = np.random.default_rng(0)
    label = (rng.random(2000) < 0.05).astype(float)
    found = fraud_figures(label, label + rng.normal(0, 1, 2000), rng.random(2000), draws=40)
    names = [name for name in found if not name.endswith(("_low", "_high"))]
    assert len(names) == 6
    for name in names:
        assert found[f"{name}_low"] <= found[name] + 0.05
        assert found[f"{name}_high"] >= found[name] - 0.05


def test_a_paired_interval_tells_a_better_score_from_an_equal_one():
    rng = np.random.default_rng(0)
    label = (rng.random(1000) < 0.2).astype(float)
    good, bad = label + rng.normal(0, 0.5, 1000), rng.normal(0, 1, 1000)
    low, _ = paired_bootstrap(roc_auc, label, good[None], bad[None], draws=50)
    assert low > 0.2
    assert paired_bootstrap(roc_auc, label, good[None], good[None], draws=20) == (0.0, 0.0)
