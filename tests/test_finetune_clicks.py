"""What a first training of click-through counts and calibrates before and after the steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.calibrate import platt, shrunk_platt
from finetune.clicks import effects
from finetune.metrics import calibration_by_score, expected_calibration_error, gauc


def test_a_group_that_is_clicked_twice_as_often_says_so_and_one_that_is_hardly_seen_says_little():
    group = np.array([0] * 20_000 + [1] * 20_000 + [2])
    clicked = np.zeros(len(group), np.float32)
    clicked[:800], clicked[20_000:20_400], clicked[-1] = 1, 1, 1
    found, seen = effects(group, clicked, np.full(len(group), 0.02), 4)
    assert found[0] == pytest.approx(np.log(2), abs=0.02)
    assert found[1] == pytest.approx(0, abs=0.02)
    assert 0 < found[2] < 0.1
    assert found[3] == 0
    assert seen.tolist() == [True, True, True, False]


def drawn(count, shift, seed):
    """Logits, labels that come more or less often than they say, and how far a calibration moves the mean logit."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2, 1, count)
    return logit, rng.random(count) < 1 / (1 + np.exp(-(logit + shift)))


def moved(sample, calibrate=shrunk_platt):
    logit, label = sample
    found = calibrate(logit, label)
    return found["b"] + (found["a"] - 1) * logit.mean()


@settings(max_examples=5, deadline=None)
@given(st.floats(-0.04, 0.04), st.integers(0, 100))
def test_much_evidence_moves_the_level_and_little_leaves_it(shift, seed):
    logit, label = drawn(40_000, shift, seed)
    assert moved((logit, label)) == pytest.approx(shift, abs=0.06)
    assert abs(moved((logit[:50], label[:50]))) < 0.3
    assert abs(shrunk_platt(logit[:50], label[:50])["a"] - 1) < 0.1


def test_a_level_that_has_moved_since_training_is_followed_and_chance_is_not():
    changed, unchanged = ([moved(drawn(2_000, shift, seed)) for seed in range(20)] for shift in (-0.4, 0))
    assert np.mean(changed) == pytest.approx(-0.4, abs=0.06)
    chance = [moved(drawn(2_000, 0, seed), platt) for seed in range(20)]
    assert np.median(np.abs(unchanged)) < 0.6 * np.median(np.abs(chance))


def test_an_example_that_weighs_two_is_two_examples():
    rng = np.random.default_rng(0)
    logit, label = rng.normal(-1, 1, 300), (rng.random(300) < 0.4).astype(np.float64)
    weight = rng.integers(1, 3, 300).astype(np.float64)
    twice = np.repeat(np.arange(300), weight.astype(int))
    assert shrunk_platt(logit, label, weight) == pytest.approx(shrunk_platt(logit[twice], label[twice]))


def test_a_class_that_is_missing_is_no_reason_for_certainty():
    found = shrunk_platt(np.full(100, -3.0), np.zeros(100))
    assert 0.02 < 1 / (1 + np.exp(3 * found["a"] - found["b"])) < 0.05


def test_gauc_compares_within_groups_only():
    group = np.array([7, 7, 3, 3, 5])
    label = np.array([1, 0, 1, 0, 1])
    score = np.array([0.2, 0.1, 0.9, 0.8, 0.0])  # over all, a negative of group 3 beats the positive of group 7
    assert gauc(label, score, group) == 1.0
    assert np.isnan(gauc(np.ones(5), score, group))


def test_gauc_weighs_groups_by_their_events():
    group, label = np.array([0, 0, 1, 1, 1, 1]), np.array([1, 0, 1, 0, 0, 0])
    score = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])  # right, then all wrong
    assert gauc(label, score, group) == pytest.approx(2 / 6)


def test_calibration_errors_are_zero_where_rates_are_met_in_each_decile():
    chance = np.repeat(np.linspace(0.05, 0.95, 10), 1000)
    label = np.concatenate([np.arange(1000) < round(1000 * p) for p in np.linspace(0.05, 0.95, 10)])
    assert expected_calibration_error(label, chance) == pytest.approx(0, abs=1e-9)
    assert calibration_by_score(label, chance) == pytest.approx([1.0] * 10)
    assert expected_calibration_error(label, chance * 0.5) == pytest.approx(0.25)
    assert calibration_by_score(chance, chance * 0.5) == pytest.approx([0.5] * 10)
