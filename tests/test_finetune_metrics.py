"""Figures against values worked out by hand."""

import math

import numpy as np
import pytest

from finetune import metrics
from finetune.calibrate import REVIEW_BUDGET, ordinary, platt, thresholds
from streams.tasks.base import calibrated

LABEL = np.array([1.0, 0.0, 1.0, 0.0])


def test_pr_auc_is_the_mean_precision_at_each_positive():
    assert metrics.pr_auc(LABEL, np.array([0.9, 0.8, 0.7, 0.1])) == pytest.approx((1 + 2 / 3) / 2)


def test_roc_auc_is_the_share_of_pairs_in_the_right_order():
    assert metrics.roc_auc(LABEL, np.array([0.9, 0.8, 0.7, 0.1])) == pytest.approx(3 / 4)


def test_recall_at_a_false_positive_rate_takes_the_best_point_within_it():
    score = np.array([0.9, 0.8, 0.7, 0.1])
    assert metrics.recall_at_fpr(LABEL, score, 0.0) == 0.5
    assert metrics.recall_at_fpr(LABEL, score, 0.5) == 1.0


def test_log_loss_is_the_mean_negative_log_likelihood_and_stays_finite():
    assert metrics.log_loss(LABEL, np.array([0.5, 0.5, 0.25, 0.25])) == pytest.approx(
        (2 * math.log(2) + math.log(4) + math.log(4 / 3)) / 4
    )
    assert math.isfinite(metrics.log_loss(np.array([1.0]), np.array([0.0])))


def test_normalised_entropy_of_the_base_rate_is_one():
    assert metrics.normalised_entropy(LABEL, np.full(4, 0.5)) == pytest.approx(1.0)


def test_calibration_is_what_was_predicted_over_what_came():
    assert metrics.calibration(LABEL, np.full(4, 0.25)) == pytest.approx(0.5)


def test_a_rank_is_a_place_in_the_list_or_its_length():
    ranked = np.array([[4, 2, 7], [1, 3, 5], [6, 8, 9]])
    rank = metrics.rank_of(np.array([2, 1, 5]), ranked)
    assert rank.tolist() == [1, 0, 3]
    assert metrics.hit_at(rank, 1) == pytest.approx(1 / 3)
    assert metrics.ndcg_at(rank, 3) == pytest.approx((1 / math.log2(3) + 1) / 3)


def test_intervals_hold_the_figure_and_are_the_same_each_time():
    rng = np.random.default_rng(1)
    label = (rng.random(400) < 0.3).astype(float)
    score = label * 0.3 + rng.random(400)
    low, high = metrics.bootstrap(metrics.roc_auc, label, score, draws=50)
    assert low < metrics.roc_auc(label, score) < high
    assert (low, high) == metrics.bootstrap(metrics.roc_auc, label, score, draws=50)
    ranks = rng.integers(0, 20, 300)
    low, high = metrics.bootstrap_mean(lambda rank: metrics.hit_at(rank, 10), ranks, draws=50)
    assert low < metrics.hit_at(ranks, 10) < high


def test_platt_scaling_finds_the_line_that_outcomes_were_drawn_from():
    rng = np.random.default_rng(2)
    logit = rng.normal(0, 2, 40_000).astype(np.float32)
    label = (rng.random(40_000) < 1 / (1 + np.exp(-(0.5 * logit - 1)))).astype(np.float32)
    found = platt(logit, label)
    assert found == pytest.approx({"a": 0.5, "b": -1.0}, abs=0.05)
    assert metrics.calibration(label, calibrated(logit, found)) == pytest.approx(1.0, abs=0.01)


def test_one_class_alone_calibrates_nothing():
    assert platt(np.ones(3, np.float32), np.zeros(3, np.float32)) == {"a": 1.0, "b": 0.0}


def test_review_takes_its_budget_and_block_is_precise():
    chance = np.linspace(0, 1, 1000)
    label = (chance > 0.995).astype(np.float32)
    found = thresholds(label, chance)
    assert np.mean(chance >= found["review"]) == pytest.approx(REVIEW_BUDGET, abs=0.002)
    blocked = chance >= found["block"]
    assert label[blocked].mean() >= 0.9
    assert found["review"] <= found["block"]


def test_without_a_precise_range_hardly_anything_is_blocked():
    assert thresholds(np.zeros(100, np.float32), np.linspace(0, 0.5, 100))["block"] >= 0.95


def test_an_ordinary_order_is_a_good_one_in_the_middle_of_those_who_have_ordered_before() -> None:
    fields = np.array([[0, 9], [0, 9], [0, 9], [1, 4], [2, 5], [3, 6], [2, 5.5]], np.float32)
    label = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)
    assert ordinary(fields, label, 0) == [2, 5]
    assert ordinary(fields[:3], label[:3], 0) == [0, 9]
