"""The linear part of the click model is fitted to new examples at once, and stays where they say nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.affinity import PAIRS, terms
from engines.ctr_head import CtrHead
from engines.model import HeadraceConfig, HeadraceModel
from finetune.incremental import Recipe, fit, held_loss
from finetune.refit import refit
from finetune.trainer import TorchTable
from streams.features import HISTORY_LENGTH, Rows
from streams.tasks import make_task
from streams.tasks.fraud import FIELDS
from tests.finetune_examples import ADS, ITEMS, arrays, problem_of, rows_of, slates, small_catalog, weights

CATALOG, TASK = small_catalog(), make_task("ctr")
KINDS = 4  # categories of these tests
LINEAR = {"head.line.weight", "head.line.bias", "head.bias.weight", "head.position.weight", "head.affinity.pair.weight"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread(torch_as_it_was):
    torch.set_num_threads(1)


def click_model(**sizes: Any) -> HeadraceModel:
    """As a first training leaves one that has learned nothing."""
    torch.manual_seed(0)
    sizes = {"width": 16, "heads": 2, "hidden": 32, "affinities": 1, **sizes}
    made = HeadraceModel(HeadraceConfig(task="ctr", fields=len(FIELDS), **sizes))
    head = cast(CtrHead, made.head)
    head.begin(0.08, ())
    with torch.no_grad():
        for each in (head.line, head.bias, head.position):
            each.weight.zero_()
        head.line.bias.fill_(-1.0)
    return made


def table_of(model: HeadraceModel) -> TorchTable:
    table = TorchTable(model, CATALOG)
    table.freeze()
    return table


def tasteful(count: int, seed: int, shift: int) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Slates of four ads to users who like one category: they click on ads of the category `shift` places on."""
    rng = np.random.default_rng(seed)
    rows = rows_of("ctr", count, rng)
    liked = rng.integers(1, KINDS + 1, count)
    rows["category"][:, HISTORY_LENGTH - 4 :] = liked[:, None] * 1000
    rows["ads"] = 4
    chosen = np.stack([rng.choice(ADS, 4, replace=False) for _ in range(count)])
    rows["ad"][:, :4], rows["position"][:, :4] = ITEMS + 1 + chosen, np.arange(1, 5)
    kind = chosen % KINDS + 1
    rows["ad_category"][:, :4] = kind * 1000
    label, weight = (np.zeros(rows["ad"].shape, np.float32) for _ in range(2))
    clicked = (liked[:, None] - 1 + shift) % KINDS + 1 == kind
    label[:, :4], weight[:, :4] = rng.random((count, 4)) < np.where(clicked, 0.6, 0.1), 1.0
    return rows, label, weight


def loss(model: HeadraceModel, rows: Rows, label: np.ndarray, weight: np.ndarray) -> float:
    """Mean cross-entropy."""
    with torch.no_grad():
        inputs = {name: torch.as_tensor(each) for name, each in TASK.inputs(rows, table_of(model)).items()}
        chance = torch.sigmoid(model(**inputs)["logit"]).numpy().astype(np.float64)
    entropy = -np.where(label > 0, np.log(chance), np.log1p(-chance))
    return float((entropy * weight).sum() / weight.sum())


def refitted(model: HeadraceModel, rows: Rows, label: np.ndarray, weight: np.ndarray) -> bool:
    return refit(model, table_of(model), TASK, rows, label, weight)


BEST = float(-(0.25 * (0.6 * np.log(0.6) + 0.4 * np.log(0.4)) + 0.75 * (0.1 * np.log(0.1) + 0.9 * np.log(0.9))))


def test_a_taste_for_another_category_is_learned_from_a_thousand_slates_and_unlearned_from_a_thousand_more() -> None:
    model = click_model()
    for shift in (0, 1, 3):
        later = tasteful(2000, 10 + shift, shift)
        assert loss(model, *later) > BEST + 0.08
        assert refitted(model, *tasteful(1000, shift, shift))
        assert loss(model, *later) < BEST + 0.03


def test_only_the_linear_part_moves() -> None:
    model = click_model()
    before = weights(model)
    refitted(model, *tasteful(300, 0, 1))
    assert {name for name, value in weights(model).items() if value != before[name]} == LINEAR


def test_a_champion_of_before_has_no_pairs_and_is_refitted_without() -> None:
    model = click_model(affinities=0)
    rows, label, weight = tasteful(1000, 0, 0)
    before = loss(model, rows, label, weight)
    assert refitted(model, rows, label, weight)
    assert loss(model, rows, label, weight) < before - 0.05


def test_where_all_is_as_before_it_stays_where_it_was() -> None:
    model = click_model()
    refitted(model, *tasteful(4000, 0, 1))
    later, known = tasteful(2000, 5, 1), []
    for seed in range(6, 10):
        known.append(loss(model, *later))
        refitted(model, *tasteful(60, seed, 1))
    assert max(known) < min(known) + 0.01


def test_of_one_class_alone_nothing_is_learned() -> None:
    model = click_model()
    before = weights(model)
    rows, label, weight = tasteful(50, 0, 1)
    assert not refitted(model, rows, label * 0, weight)
    assert not refitted(model, rows, label, weight * 0)
    assert weights(model) == before


def test_it_is_the_same_each_time() -> None:
    made = [click_model(), click_model()]
    for model in made:
        refitted(model, *tasteful(200, 3, 2))
    assert weights(made[0]) == weights(made[1])


def test_a_fine_tune_begins_with_it_and_goes_back_where_it_is_no_better(tmp_path: Path) -> None:
    examples = arrays("ctr", slates(400), CATALOG)
    problem = problem_of("ctr", examples, CATALOG)
    model = click_model()
    before = held_loss(model, problem, table_of(model))
    how = fit(model, problem, Recipe(steps=1, batch=16, rate=1e-9), tmp_path / "a", "these")
    assert how.before == pytest.approx(before)
    assert how.after < before - 0.1
    problem.label[: problem.learning] = 1 - problem.label[: problem.learning]
    model = click_model()
    known = weights(model)
    how = fit(model, problem, Recipe(steps=1, batch=16, rate=1e-9), tmp_path / "b", "others")
    assert how.after == pytest.approx(before, abs=1e-6)
    assert weights(model)["head.bias.weight"] == known["head.bias.weight"]


def test_what_is_replayed_is_not_what_it_is_fitted_to(tmp_path: Path) -> None:
    examples = arrays("ctr", slates(400), CATALOG)
    problem = problem_of("ctr", examples, CATALOG, new=150)
    problem.label[150 : problem.learning] = 1 - problem.label[150 : problem.learning]
    how = fit(click_model(), problem, Recipe(steps=1, batch=16, rate=1e-9), tmp_path, "these")
    assert how.after < how.before - 0.1


def test_a_killed_fine_tune_goes_on_behind_it(tmp_path: Path) -> None:
    examples = arrays("ctr", slates(200), CATALOG)
    problem, recipe = problem_of("ctr", examples, CATALOG), Recipe(steps=6, batch=16, checkpoint_every=2)
    whole, cut = click_model(), click_model()
    fit(whole, problem, recipe, tmp_path / "whole", "these")

    def killed(step: int, steps: int, loss: float) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(cut, problem, recipe, tmp_path / "cut", "these", killed)
    again = click_model()
    how = fit(again, problem, replace(recipe), tmp_path / "cut", "these")
    assert how.resumed_from == 4
    assert weights(again) == weights(whole)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_parts_of_a_category_add_up_to_the_root_of_its_share(seed: int) -> None:
    rng = np.random.default_rng(seed)
    category, ads = rng.integers(0, 4, (3, 9)), rng.integers(0, 4, (3, 5))
    weight = torch.softmax(torch.from_numpy(rng.normal(size=(3, 9))), dim=1)
    inputs = {
        "history_ids": torch.from_numpy(np.stack([category, category], axis=-1).astype(np.int32)),
        "slate_ids": torch.from_numpy(np.repeat(ads[..., None], 4, axis=-1).astype(np.int32)),
        "history_kinds": torch.from_numpy(rng.integers(0, 2, (3, 9)).astype(np.int32)),
    }
    pair, root = terms(weight, inputs)
    known = (category > 0) & (inputs["history_kinds"].numpy() > 0)
    for row in range(3):
        for each in range(4):
            share = float(weight[row][category[row] == each].sum())
            here = (category[row] == each) & known[row]
            found = float(root[row][here].sum())
            part = float(weight[row][here].sum())
            assert found == pytest.approx(part / np.sqrt(share + 1e-4), rel=1e-4, abs=1e-6)
    assert not root.numpy()[~known].any()
    assert 0 <= pair.min() <= pair.max() < PAIRS
    alike, found = category[0][:, None] == category[0], pair.numpy()[0]
    assert (found[:, :, None] == found[:, None])[:, alike].all()
