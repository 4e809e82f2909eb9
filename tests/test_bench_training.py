"""The benchmarks of trainings: what they judge, on arrays small enough to count by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.quality_encoder import bought_with, compared, new_by_title, pair
from bench.quality_few import LEAST, Later, few
from bench.quality_few import compared as between
from bench.quality_smaller import FIGURES, Outcomes, beside
from finetune.problems import PROBLEMS
from streams.tasks import make_task
from tests.small_shop import FEW, small_shop

# Three orders of six items; the last two items are new.
ORDERS = SimpleNamespace(
    item=np.array([0, 1, 4, 2, 3, 5, 5]), lines=lambda order: [slice(0, 3), slice(3, 6), slice(6, 7)][order]
)
SHOP: Any = SimpleNamespace(orders=ORDERS)
COLD: Any = SimpleNamespace(items=np.array([False] * 4 + [True] * 2))


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Items of one order have one title; the list that is judged is of two."""
    monkeypatch.setattr("bench.quality_encoder.TOP", 2)
    return np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0, 1]]


def test_titles_that_say_what_is_bought_together_find_all_of_it(titles):
    places, found = bought_with(SHOP, COLD, np.arange(3), titles)
    assert places.tolist() == [0, 1], "an order of one item asks for nothing"
    assert found.tolist() == [[1, 1], [1, 1]]
    places, found = new_by_title(SHOP, COLD, np.arange(3), titles)
    assert places.tolist() == [0, 1]
    assert found[:, 1].tolist() == [1, 1]


def test_of_more_than_can_be_named_all_that_can_be_count():
    assert pair(np.arange(10), np.arange(30)) == (1.0, 1.0)
    assert pair(np.arange(10), np.array([3, 40])) == (1.0, 0.5)
    assert pair(np.arange(10), np.array([40])) == (0.0, 0.0)


def test_a_difference_has_its_interval_by_customer():
    frozen, tuned = np.zeros((40, 2)), np.zeros((40, 2))
    tuned[::2] = 1.0
    said = compared("new", frozen, tuned, np.arange(40) // 2)
    assert said["new_tuned_recall_at_10"] == 0.5
    assert said["new_recall_difference_low"] == pytest.approx(0.5), "each customer has one of each"


@pytest.fixture(scope="module")
def shop(torch_as_it_was: None):
    torch.set_num_threads(1)
    return small_shop()


def test_few_labels_are_drawn_with_some_of_each_kind(shop):
    recording, catalog = shop
    made, (labels, positives) = few(recording, "fraud", catalog, 0.01)
    whole, (all_, _) = few(recording, "fraud", catalog, 1.0)
    assert LEAST <= positives < labels < all_ / 2
    assert 0 < made.label[: made.learning].sum() < made.learning
    assert all_ == len(PROBLEMS["fraud"](make_task("fraud"), recording, catalog).label) == len(whole.examples)


def test_what_is_judged_lies_after_the_border_and_is_the_same_for_both(shop):
    recording, catalog = shop
    problem = PROBLEMS["ctr"](make_task("ctr"), recording, catalog)
    border = int(np.quantile(problem.examples.time, 0.7))
    asked = Later.of(problem, border)
    assert (problem.examples.time[asked.which] >= border).all()
    assert asked.shown is not None
    assert len(asked.label) == asked.shown.sum()


@pytest.mark.parametrize("task", ["fraud", "ctr"])
def test_few_labels_make_chances_of_all_that_is_judged(shop, monkeypatch, task):
    recording, catalog = shop
    monkeypatch.setattr("bench.quality_few.PLANS", FEW)
    problem = PROBLEMS[task](make_task(task), recording, catalog)
    border = int(np.quantile(problem.examples.time, 0.7))
    asked = Later.of(problem, border)
    part, _ = few(recording.before(border), task, catalog, 0.5)
    chance = asked.chances(part, None)
    assert chance.shape == asked.label.shape
    assert ((chance > 0) & (chance < 1)).all()
    assert len(np.unique(chance)) > 10


def test_equal_chances_differ_by_nothing():
    label, chance = np.array([0.0, 1, 0, 1] * 20, np.float32), np.linspace(0.1, 0.9, 80)
    said = between("ctr", label, chance, chance)
    assert said["ctr_log_loss_difference_low"] == said["ctr_log_loss_difference_high"] == 0


@pytest.mark.parametrize("task", sorted(FIGURES))
def test_who_says_what_the_teacher_says_is_no_different_and_who_says_worse_is(task):
    rng = np.random.default_rng(0)
    label = (rng.random(600) < 0.3).astype(np.float32)
    chance = np.clip(0.3 + 0.4 * (label - 0.3) + 0.1 * rng.standard_normal(600), 0.01, 0.99)
    user = np.arange(600) // 3
    teacher, worse = Outcomes(label, chance, user), Outcomes(label, np.full(600, 0.3), user)
    said = beside({"teacher": teacher, "same": teacher, "worse": worse}, FIGURES[task])
    name, sign = FIGURES[task][0], -1 if task == "ctr" else 1
    assert said[f"teacher_{name}_low"] < said[f"teacher_{name}"] < said[f"teacher_{name}_high"]
    assert said[f"same_{name}_less_teacher_low"] == said[f"same_{name}_less_teacher_high"] == 0
    if task != "recommendations":  # its gain is a mean, which is the same
        assert sign * said[f"worse_{name}_less_teacher"] < 0
    assert said["events"] == 600
